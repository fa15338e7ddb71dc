"""Each layer of the sandbox alone: what it stops without the others, and what happens where there is none."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.errors import SandboxError
from alignment.verify import sandbox
from alignment.verify.problem import Problem

TELL = Problem("tell", "", "code", tests="told = attempt()\nassert False, told", entry_point="attempt")
TRIED = """
def attempt():
    try:
        got = %s
        return f"got {got!r}"
    except OSError as error:
        return str(error)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="layers of Linux")


def told(program: str, monkeypatch: pytest.MonkeyPatch, *layers: str) -> str:
    """What the program says it got under these layers and limits alone."""
    monkeypatch.setattr(sandbox, "LAYERS", (*layers, "rlimits"))
    verdict = sandbox.run(program, TELL, timeout_seconds=2)
    assert verdict.reason == "failed", verdict
    granted = {layer.partition("-")[0] for layer in verdict.layers}
    if missing := set(layers) - granted - {"user"}:  # a root may enter the others without it
        pytest.skip(f"not granted here: {missing}")
    assert granted == {"process", "rlimits", *layers}
    return verdict.detail


@pytest.mark.parametrize("layers", [(), ("landlock",), ("user", "mount")], ids="+".join)
def test_files_are_hidden_by_landlock_alone_and_by_an_own_root_alone(
    layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    secret = tmp_path / "secret"
    secret.write_text("4711")
    said = told(TRIED % f"open({str(secret)!r}).read()", monkeypatch, *layers)
    assert ("4711" in said) is (layers == ())
    assert layers == () or "denied" in said or "No such file" in said


@pytest.mark.parametrize("layers", [(), ("landlock",), ("user", "mount")], ids="+".join)
def test_installed_packages_are_hidden_and_the_standard_library_is_not(
    layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    folder = Path(os.__file__).parent
    if not list((folder / "site-packages").glob("*/*.py")):
        pytest.skip("nothing is installed beside this interpreter")
    call = f"len(__import__('glob').glob({str(folder)!r} + '/site-packages/*/*.py')), __import__('wave').__name__"
    said = told(TRIED % call, monkeypatch, *layers)
    assert "'wave'" in said
    assert ("got (0," in said) is (layers != ())


@pytest.mark.parametrize("layers", [(), ("landlock",), ("user", "net"), ("seccomp",)], ids="+".join)
def test_loopback_is_closed_by_each_of_three_layers(layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        call = f"__import__('socket').create_connection({server.getsockname()!r}, 1)"
        said = told(TRIED % call, monkeypatch, *layers)
        if layers == ():
            server.accept()[0].close()
            assert "got <socket" in said
        else:
            with pytest.raises(BlockingIOError):
                server.accept()
            assert "got" not in said


@pytest.mark.parametrize("layers", [(), ("landlock",), ("user", "pid"), ("seccomp",)], ids="+".join)
def test_signals_reach_nobody_through_each_of_three_layers(layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim:
        said = told(TRIED % f"__import__('os').kill({victim.pid}, 9)", monkeypatch, *layers)
        if layers == ():
            assert victim.wait(5) == -9
        else:
            assert victim.poll() is None
            assert "got" not in said
        victim.kill()


@pytest.mark.parametrize("layers", [("user", "pid"), ("seccomp",)], ids="+".join)
def test_no_daemon_survives_either_of_two_layers(layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    mark = "daemon-of-the-test"
    monkeypatch.setattr(sandbox, "START", f"{sandbox.START}  # {mark}")
    program = "import os, time\ndef leave():\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n"
    program += "            time.sleep(600)\n        os._exit(0)\n" + TRIED % "leave()"
    told(program, monkeypatch, *layers)
    files = [path / "cmdline" for path in Path("/proc").glob("[0-9]*") if path.name != str(os.getpid())]
    assert not [file for file in files if file.exists() and mark.encode() in file.read_bytes()]


def test_without_a_file_system_of_bounded_size_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    target = tmp_path / "outside"
    said = told(TRIED % f"open({str(target)!r}, 'w', buffering=1).write('x\\n')", monkeypatch)
    assert "too large" in said
    assert target.read_text() == ""


def test_without_any_limit_a_program_is_refused_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox, "LAYERS", ())
    program, problem = "def one():\n    return 1", Problem("one", "", "code", tests="assert one() == 1", entry_point="one")
    with pytest.raises(SandboxError, match="no limit of CPU time"):
        sandbox.run(program, problem)
    with pytest.raises(SandboxError, match="unprotected"):
        sandbox.run_many([(program, problem)])
    monkeypatch.setattr(sandbox, "_accepted", False)  # put back when this test ends
    sandbox.accept_unprotected()
    verdict = sandbox.run(program, problem)
    assert verdict.passed
    assert verdict.layers == ("process",)


def test_an_interpreter_that_does_not_start_is_an_error_and_no_verdict(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox, "START", "raise SystemExit(3)")
    with pytest.raises(SandboxError, match="ended with 3"):
        sandbox.run("", TELL)


def test_bubblewrap_is_taken_where_it_works_and_left_where_it_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    real = shutil.which("bwrap")
    sandbox._bubblewrap.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda _: str(broken))
    verdict = sandbox.run(TRIED % "1", TELL)
    assert (verdict.reason, "bubblewrap" in verdict.layers) == ("failed", False)
    sandbox._bubblewrap.cache_clear()
    monkeypatch.undo()
    if real is None:
        return  # not installed: only its absence can be tested
    verdict = sandbox.run(TRIED % "open('/etc/passwd').read()", TELL)
    assert "bubblewrap" in verdict.layers
    assert "No such file" in verdict.detail
