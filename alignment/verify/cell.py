"""The script inside the sandbox: locks itself in, runs one program, then its tests, and says how that ended.

Run as a file by the base interpreter with `-I -S`, never imported; standard library only. It reads one marshalled
request from stdin. Results go to what was stdout at the start, each line behind a nonce, so that nothing printed or
any way of exiting can look like a pass: "passed" is written only after the tests returned.

It takes on each layer that the kernel permits, one at a time, and reports those in force. Not yet stopped: a program
written to search this process's own frames for the nonce, and reading world-readable files.
"""

from __future__ import annotations

import builtins
import ctypes
import marshal
import os
import resource
import signal
import struct
import sys
import types
from typing import Any

NAMESPACES = {"net": 0x40000000, "ipc": 0x08000000, "mount": 0x00020000, "pid": 0x20000000}
NEW_USER = 0x10000000
READ_ONLY, NO_SUID, NO_DEV, RECURSIVE, PRIVATE = 1, 2, 4, 0x4000, 0x40000
MOUNT_SETATTR, SECCOMP_FILTER, NO_NEW_PRIVS, DEATH_SIGNAL, SECCOMP = 442, 2, 38, 1, 22
# x86-64 numbers. Denied: new processes, other programs, sockets, signals, tracing, mounts, namespaces, other memory,
# and leaving the group or the parent by which we end a program (setsid, setpgid, prctl).
DENIED = (
    57, 58, 59, 322, 41, 62, 200, 234, 129, 297, 424, 434, 438, 101, 310, 311, 161, 165, 166, 272, 308,
    250, 298, 321, 323, 425, 428, 429, 430, 432, 442, 109, 112, 157,
)  # fmt: skip
CLONE, CLONE3, CLONE_THREAD = 56, 435, 0x10000

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    request = marshal.loads(sys.stdin.buffer.read())
    out = os.dup(1)
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    os.close(silence)
    write, nonce = os.write, request["nonce"]

    def tell(word: str, detail: str = "") -> None:
        write(out, f"{nonce} {word} {detail[:400]}".encode(errors="replace").replace(b"\n", b" ") + b"\n")

    layers = namespaces(request["scratch_bytes"]) if request["namespaces"] else []
    if "pid" in layers:
        guard(request["cpu_seconds"])  # only the child returns
    limits(request)
    layers.insert(0, "rlimits")
    if seccomp():
        layers.append("seccomp")
    tell("layers", ",".join(layers))
    tell(*outcome(request))
    os._exit(0)


def outcome(request: dict[str, Any]) -> tuple[str, str]:
    """Run the program, then the tests against it."""
    module = types.ModuleType("answer")
    sys.modules["answer"] = module
    sys.argv = ["answer.py"]
    space, clean = module.__dict__, dict(vars(builtins))
    try:
        exec(compile(request["program"], "answer.py", "exec", dont_inherit=True), space)
        if request["entry_point"] not in space:
            return "error", f"NameError: {request['entry_point']} is not defined"
    except BaseException as error:  # noqa: BLE001 -- SystemExit and KeyboardInterrupt are the program's too
        return "error", describe(error)
    judging = own_names(space, clean, request["entry_point"])
    try:
        exec(compile(request["tests"], "tests.py", "exec", dont_inherit=True), judging)
        if request["calls_check"]:
            judging["check"](judging[request["entry_point"]])
    except AssertionError as error:
        return "failed", describe(error)
    except BaseException as error:  # noqa: BLE001
        return "error", describe(error)
    return "passed", ""


def own_names(space: dict[str, Any], clean: dict[str, Any], entry_point: str) -> dict[str, Any]:
    """Give the tests the program's names but the language's own builtins: `abs = ...` must not judge itself."""
    shared = vars(builtins)
    shared.clear()  # from here to the next line not even `vars` is known
    shared.update(clean)
    kept = {name: value for name, value in space.items() if name not in clean or name == entry_point}
    return kept | {"__builtins__": clean}


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def limits(request: dict[str, Any]) -> None:
    """Bound CPU time, memory, file size, open files and (where the kernel counts this user) processes."""
    cpu, memory = request["cpu_seconds"], request["memory_bytes"]
    for what, most in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, request["scratch_bytes"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 64),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def namespaces(scratch_bytes: int) -> list[str]:
    """Leave the host's network, processes and mounts; return what worked."""
    uid, gid = os.getuid(), os.getgid()
    got: list[str] = []
    if libc.unshare(NEW_USER) == 0:
        got.append("user")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            write_file(f"/proc/self/{name}", text)
    got += [name for name, flag in NAMESPACES.items() if libc.unshare(flag) == 0]
    if "mount" in got and not lock_files(scratch_bytes):
        got.remove("mount")
    return got


def lock_files(scratch_bytes: int) -> bool:
    """Make everything read-only, hide /proc, and put a small memory file system on the working directory."""
    scratch = os.getcwd().encode()
    size = f"size={scratch_bytes},mode=0700".encode()
    attributes = struct.pack("QQQQ", READ_ONLY | NO_SUID, 0, 0, 0)
    done: bool = (
        libc.mount(None, b"/", None, RECURSIVE | PRIVATE, None) == 0
        and libc.syscall(MOUNT_SETATTR, -100, b"/", 0x8000, attributes, len(attributes)) == 0
        and libc.mount(b"none", scratch, b"tmpfs", NO_SUID | NO_DEV, size) == 0
    )
    if done:
        libc.mount(b"none", b"/proc", b"tmpfs", NO_SUID | NO_DEV | READ_ONLY, b"size=0")
        os.chdir(scratch)
    return done


def guard(cpu_seconds: int) -> None:
    """Fork the first process of the new namespace; wait for it and end as it ended. All its children die with it."""
    child = os.fork()
    if child == 0:
        libc.prctl(DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        return
    _, status, used = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        spent = used.ru_utime + used.ru_stime >= cpu_seconds - 0.1
        os._exit(128 + (signal.SIGXCPU if spent else os.WTERMSIG(status)))
    os._exit(os.WEXITSTATUS(status))


def seccomp() -> bool:
    """Drop all capabilities and install the system-call filter (x86-64 only)."""
    libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24))
    if os.uname().machine != "x86_64":
        return False
    load, equal, bits, answer = 0x20, 0x15, 0x45, 0x06
    kill, refuse, absent, allow = 0x80000000, 0x00050001, 0x00050026, 0x7FFF0000
    n = len(DENIED)
    rules = [
        (load, 0, 0, 4), (equal, 1, 0, 0xC000003E), (answer, 0, 0, kill),  # this architecture only
        (load, 0, 0, 0), (0x35, 0, 1, 0x40000000), (answer, 0, 0, kill),  # no x32 numbers
        *((equal, n - i + 4, 0, number) for i, number in enumerate(DENIED)),
        (equal, 0, 2, CLONE), (load, 0, 0, 16), (bits, 1, 2, CLONE_THREAD),  # threads yes, processes no
        (equal, 2, 0, CLONE3), (answer, 0, 0, allow), (answer, 0, 0, refuse), (answer, 0, 0, absent),
    ]  # fmt: skip
    code = b"".join(struct.pack("HBBI", *rule) for rule in rules)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_ = struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(buffer))
    return bool(libc.prctl(SECCOMP, SECCOMP_FILTER, filter_, 0, 0) == 0)


def write_file(path: str, text: str) -> None:
    """Set a kernel file; one that may not be written (setgroups, on some kernels) is left."""
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError:
        return


if __name__ == "__main__":
    main()
