"""An arena for the sandbox's red team: what there is to steal, to reach and to spoil, and whether it was."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from alignment.verify import sandbox
from alignment.verify.problem import Problem


@dataclass
class Arena:
    """What there is to steal, to reach and to spoil. `hidden` stands in the tests, `mark` in every process's command."""

    secret: str
    hidden: str
    mark: str
    file: Path
    tcp: socket.socket
    udp: socket.socket
    unix: socket.socket
    abstract: socket.socket

    def attack(self, program: str, problem: Problem) -> sandbox.Verdict:
        """Run a program and see that nothing came of it: no pass, no secret, no visitor, no file, no process, no delay."""
        before, begun = {path.name for path in self.file.parent.iterdir()}, time.monotonic()
        problem = replace(problem, tests=f"{problem.tests}\n# {self.hidden}")
        verdict = sandbox.run(self.fill(program), problem, timeout_seconds=1, wall_seconds=4)
        assert time.monotonic() - begun < 60
        assert not verdict.passed, verdict
        assert self.secret not in verdict.detail
        assert self.hidden not in verdict.detail
        assert self.heard() == []
        assert {path.name for path in self.file.parent.iterdir()} == before
        assert self.file.read_text() == self.secret
        assert self.survivors() == []
        return verdict

    def fill(self, text: str) -> str:
        """Put this arena's names into a program."""
        names = {
            "FILE": str(self.file), "FOLDER": str(self.file.parent), "TCP": str(self.tcp.getsockname()[1]),
            "UDP": str(self.udp.getsockname()[1]), "UNIX": self.unix.getsockname(), "HARNESS": str(os.getpid()),
            "ABSTRACT": self.abstract.getsockname().decode().replace("\0", "\\x00"), "PROJECT": str(sandbox.ROOT),
            "HIDDEN": self.hidden[:6] + "' + '" + self.hidden[6:],
        }  # fmt: skip
        return re.sub(r"\$([A-Z]+)", lambda found: names[found[1]], text)

    def heard(self) -> list[str]:
        """Who got through to one of the servers."""
        found = []
        for name in ("tcp", "unix", "abstract", "udp"):
            try:
                server = getattr(self, name)
                found.append(f"{name} {server.recv(100) if name == 'udp' else server.accept()}")
            except BlockingIOError:
                continue
        return found

    def survivors(self) -> list[int]:
        """Processes of this arena's sandboxes that still run."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if self.mark.encode() in command(path)]


def command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


@pytest.fixture
def arena(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    if sys.platform != "linux":
        pytest.skip("these attacks are written for Linux")
    secret, hidden, mark = (secrets.token_hex(8) for _ in range(3))
    file = tmp_path / "secret"
    file.write_text(secret)
    monkeypatch.setenv("SECRET_OF_THE_TEST", secret)
    monkeypatch.setattr(sandbox, "START", f"{sandbox.START}  # {mark}")
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    unix, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "s"))
    abstract.bind(f"\0{secret}")
    for server in (unix, abstract):
        server.listen()
    for server in (tcp, udp, unix, abstract):
        server.setblocking(False)
    yield Arena(secret, hidden, mark, file, tcp, udp, unix, abstract)
    for server in (tcp, udp, unix, abstract):
        server.close()
