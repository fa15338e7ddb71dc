"""The two processes inside the sandbox: the candidate runs the program, the checker holds the tests and calls it.

Both start as one fresh base interpreter, which enters the namespaces and forks before it has read the tests. So no
memory, file or pipe that the program can reach holds anything of them but the arguments of each call, and all it can
send are values (`wire`), which the checker compares with its own builtins. Whatever becomes of the candidate, a pass is
said by the checker alone, on a pipe of its own, after the tests have returned.
"""

from __future__ import annotations

import builtins
import os
import sys

from alignment.verify import locks, wire

TYPE_CHECKING = False  # `typing` would cost as much as the interpreter's own start
if TYPE_CHECKING:
    from typing import Any

# What a call may raise in a test that expects it. Not StopIteration, which would end an `all(map(candidate, cases))`
# early and well.
ERRORS = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and kind is not Exception  # for that, and for what is none of the language's own, `Raised` stands
    and not issubclass(kind, (StopIteration, StopAsyncIteration, UnicodeError, ExceptionGroup))
}
KILL, CPU_SPENT = 9, 24  # signals; the module `signal` would cost as much as the fork
JOB_BYTES = 1 << 30  # from our own side
MOST_FILES = 256  # this process was started with three files, and has opened a few


class Raised(Exception):
    """The candidate raised an error that is none of the language's own, or no error at all (SystemExit)."""


class Broken(BaseException):
    """The candidate has gone, or talks nonsense."""


def main() -> None:
    """Read the limits, fork the candidate, read the program and its tests, judge, and tell."""
    bounds = wire.receive(0)
    report, silence = os.dup(1), os.open(os.devnull, os.O_RDWR)
    try:
        entered = locks.enter(bounds["layers"], bounds["scratch_bytes"])
        hear, told = os.pipe()
        heard, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                locks.die_with_parent()
                _keep(silence, heard, told)
                candidate(bounds, entered, heard, told)
            finally:
                os._exit(0)
        job = wire.receive(0, JOB_BYTES)
        _keep(silence, hear, tell, report)
        _lock(bounds, entered, writes=False)
        layers = wire.receive(hear)
        wire.send(tell, [job["program"], job["entry_point"]])
    except Exception as error:  # noqa: BLE001 -- nothing of the program has run, and whatever it is, the harness is told
        _tell(report, "refused", _describe(error))
        os._exit(1)
    _tell(report, "layers", ",".join(layers))
    link = Link(hear, tell)
    outcome = judge(job, link)
    os.close(tell)
    os.close(hear)
    if link.gone:  # how it ended says more than what the tests made of it
        outcome = _ended(child, bounds["cpu_seconds"])
    _tell(report, *outcome)
    if not link.gone:
        os.waitpid(child, 0)  # with the first process of its namespace, all that the program ever started has ended
    os._exit(0)


def candidate(bounds: dict[str, Any], entered: list[str], heard: int, told: int) -> None:
    """Lock this process, run the program, then answer calls until the checker has heard enough."""
    wire.send(told, _lock(bounds, entered, writes=True))
    program, entry_point = wire.receive(heard, JOB_BYTES)
    module = type(sys)("answer")
    sys.modules["answer"], sys.argv = module, ["answer.py"]
    space = module.__dict__
    try:
        exec(compile(program, "answer.py", "exec", dont_inherit=True), space)
        if entry_point not in space:
            raise NameError(f"{entry_point} is not defined")
        wire.send(told, ["value", None])
    except BaseException as error:  # noqa: BLE001 -- SystemExit and KeyboardInterrupt are the program's too
        wire.send(told, _raised(error))
    while True:
        try:
            args, named = wire.receive(heard, JOB_BYTES)
        except EOFError:
            return
        try:
            wire.send(told, ["value", space[entry_point](*args, **named)])
        except BaseException as error:  # noqa: BLE001
            wire.send(told, _raised(error))


class Link:
    """The checker's end of the pipes to the candidate."""

    def __init__(self, hear: int, tell: int) -> None:
        self.hear, self.tell = hear, tell
        self.gone = False
        self.nonsense = ""

    def call(self, *args: Any, **named: Any) -> Any:
        """Have the candidate compute, as if it were here."""
        if self.gone or self.nonsense:
            raise Broken
        try:
            wire.send(self.tell, [args, named])  # an argument that cannot cross is the test's TypeError
        except OSError:
            self.gone = True
            raise Broken from None
        return self.answer()

    def answer(self) -> Any:
        """Take one answer: a value, or an error to raise here."""
        said = None
        try:
            said = wire.receive(self.hear)
        except (EOFError, OSError):
            self.gone = True
            raise Broken from None
        except (ValueError, MemoryError) as error:
            self.nonsense = f": {_describe(error)}"
        match said:
            case ["value", value]:
                return value
            case ["raised", list(names), str(text)]:
                kind = next((ERRORS[name] for name in names if isinstance(name, str) and name in ERRORS), None)
                raise kind(text) if kind else Raised(text or "an error without a word")
        self.nonsense = f"sent no value{self.nonsense}"
        raise Broken


def judge(job: dict[str, Any], link: Link) -> tuple[str, str]:
    """Run the trusted part of the prompt and the tests here, with the candidate in place of the function."""
    space: dict[str, Any] = {"__name__": "tests"}
    try:
        link.answer()  # the program has run
        exec(compile(job["helpers"], "prompt.py", "exec", dont_inherit=True), space)
        space[job["entry_point"]] = link.call
        exec(compile(job["tests"], "tests.py", "exec", dont_inherit=True), space)
        if job["calls_check"]:
            space["check"](link.call)
    except AssertionError as error:
        return "failed", _describe(error)
    except Raised as error:
        return "error", str(error)
    except BaseException as error:  # noqa: BLE001
        return "error", link.nonsense or _describe(error)
    return ("error", link.nonsense) if link.nonsense else ("passed", "")  # a bare `except:` may have caught Broken


def _lock(bounds: dict[str, Any], entered: list[str], writes: bool) -> list[str]:
    most = bounds["cpu_seconds"], bounds["memory_bytes"], bounds["scratch_bytes"]
    layers = locks.lock(bounds["layers"], entered, writes, *most)
    if not bounds["unprotected"] and not any(layer.startswith("rlimits") for layer in layers):
        raise RuntimeError("the system grants no limit of CPU time")
    return layers


def _ended(child: int, cpu_seconds: int) -> tuple[str, str]:
    _, status, used = os.wait4(child, 0)
    if not os.WIFSIGNALED(status):
        return "error", "ended before its tests did"
    spent = used.ru_utime + used.ru_stime >= 0.75 * cpu_seconds  # counted in ticks: on a busy machine, too few
    died = os.WTERMSIG(status)
    if died == CPU_SPENT or (died == KILL and spent):
        return "timeout", "used up its CPU time"
    return "killed", f"signal {died}"


def _keep(silence: int, *fds: int) -> None:
    """Close every file but these; what is read or printed goes nowhere."""
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    low = 3
    for fd in sorted(fds):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, MOST_FILES)


def _tell(report: int, word: str, detail: str) -> None:
    os.write(report, f"{word} {detail[:400]}".replace("\n", " ").encode(errors="replace") + b"\n")


def _raised(error: BaseException) -> list[object]:
    kinds = [kind.__name__ for kind in type(error).__mro__]
    text = str(error) if ERRORS.keys() & kinds else f"{kinds[0]}: {error}"
    return ["raised", kinds, text[:1000]]


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
