"""What the person at the keyboard sees: text, progress, and errors in a line or two."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.errors import PlumblineError

if TYPE_CHECKING:
    from rich.console import Console

LINE_SECONDS = 15.0  # between two lines of progress where there is no terminal
NO_SPACE = 16 << 20  # with fewer bytes free, a write that fell short fell short of space

Show = Callable[[int, str, float], None]  # done, numbers, seconds left


@cache
def console() -> Console:
    """The one place where text for people goes."""
    from rich.console import Console

    return Console(highlight=False)


def complain(text: str) -> None:
    """Say on stderr what went wrong."""
    from rich.console import Console

    Console(highlight=False, stderr=True).print(text, markup=False, soft_wrap=True)


class Progress:
    """Counts steps and shows them: `advance(1, loss=2.5)`."""

    def __init__(self, total: int, show: Show | None = None) -> None:
        self.total, self.done = total, 0
        self._show, self._began = show, time.monotonic()

    def advance(self, n: int = 1, **numbers: float) -> None:
        """Count `n` more steps."""
        self.done += n
        if self._show is None:
            return
        rate = self.done / max(1e-9, time.monotonic() - self._began)
        shown = "  ".join([f"{rate:.1f}/s", *(f"{name} {value:.4g}" for name, value in numbers.items())])
        self._show(self.done, shown, max(0, self.total - self.done) / max(1e-9, rate))


@contextmanager
def progress(what: str, total: int) -> Iterator[Progress]:
    """Show step, rate, numbers and time left; a line now and then where there is no terminal."""
    if not console().is_terminal:
        yield Progress(total, _lines(what, total))
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    numbers = TextColumn("{task.fields[numbers]}")
    columns = ("  {task.description}", BarColumn(), MofNCompleteColumn(), numbers, TimeRemainingColumn())
    with Bar(*columns, console=console(), transient=True) as bar:
        task = bar.add_task(what, total=total, numbers="")
        yield Progress(total, lambda done, text, _: bar.update(task, completed=done, numbers=text))


def _lines(what: str, total: int) -> Show:
    last = time.monotonic()

    def line(done: int, numbers: str, left: float) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            console().print(f"  {what}: {done:,}/{total:,}, {numbers}, {_spoken(left)} left", markup=False)

    return line


def _spoken(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def guarded(call: Callable[[], Any], *, resumes: bool) -> int:
    """Run a command line and return its exit code; say what the user can mend, without a traceback.

    `resumes`: whether the command knows --resume.
    """
    import typer.exceptions

    again = "the same command with --resume" if resumes else "the same command again"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # before any library reads it
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # ours are shown
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels that nobody asked for
    try:
        if not Path("recipes").is_dir():
            raise PlumblineError("no recipes/ here: nothing is installed as a package, run this from the project's root.")
        call()
    except typer.exceptions.TyperException as error:  # a word that the command line does not know
        error.show()  # type: ignore[attr-defined]  # what the parser raises has it
        return int(error.exit_code)
    except PlumblineError as error:
        complain(f"error: {error}")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted." + (f" {again[0].upper()}{again[1:]} continues." if resumes else ""))
        return 130
    except Exception as error:
        if not disk_is_full(error, Path()):
            raise
        complain(f"error: the disk is full. Free some space, then run {again}.")
        return 2
    return 0


def disk_is_full(error: Exception, place: Path) -> bool:
    """Whether a write failed for lack of space. Some libraries only say that it fell short: then the disk is asked."""
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return True
    short = (isinstance(error, OSError) and error.errno is None) or "PytorchStreamWriter" in str(error)
    return short and shutil.disk_usage(place).free < NO_SPACE
