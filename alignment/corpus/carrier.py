"""Carries a step over its shards: in this process, in several, or by datatrove's executors on many machines.

A step is a function of a shard's number that fills a folder. The folder gets its name, `steps/NAME/00000`, when it is
whole, so that a run that was killed finds what is finished and does the rest: the same files, whoever carries them.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

from alignment.errors import DataError
from alignment.hardware import Cluster

Work = Callable[[int, Path], None]  # fills the folder of one shard; picklable
Folders = tuple[Path, ...]
Advance = Callable[[int], None]  # told how many more shards are finished

SOON_SECONDS = 1.0  # a step that is over by then is not worth a second process
POLL_SECONDS = 10.0  # between two looks at what a cluster has finished


@dataclass(frozen=True)
class Crew:
    """Who works: so many processes of this machine, or a cluster."""

    processes: int
    cluster: Cluster | None = None


def folder(step: Path, shard: int) -> Path:
    """Where a shard of a step lies when it is finished."""
    return step / f"{shard:05d}"


def carry(step: Path, work: Work, shards: int, crew: Crew, advance: Advance = lambda _: None) -> Folders:
    """Work on all shards of a step that are not finished; return their folders. Raises what the work raises."""
    step.mkdir(parents=True, exist_ok=True)
    for draft in step.glob("*.part"):
        shutil.rmtree(draft)  # of a run that was killed
    waiting = [shard for shard in range(shards) if not folder(step, shard).exists()]
    advance(shards - len(waiting))
    if crew.cluster and waiting:
        _by_executor(Rank(step, work, tuple(waiting)), crew.cluster)
        advance(len(waiting))
        waiting = []
    began = time.monotonic()
    while waiting and (min(crew.processes, len(waiting)) == 1 or time.monotonic() - began < SOON_SECONDS):
        finish(step, work, waiting.pop(0))
        advance(1)
    if waiting:
        _by_processes(step, work, waiting, crew.processes, advance)
    return tuple(folder(step, shard) for shard in range(shards))


def finish(step: Path, work: Work, shard: int) -> None:
    """Do one shard, if nobody has, and give its folder its name."""
    place = folder(step, shard)
    if place.exists():
        return
    draft = step / f"{place.name}.{socket.gethostname()}-{os.getpid()}.part"
    draft.mkdir()
    work(shard, draft)
    try:
        draft.rename(place)
    except OSError:
        if not place.exists():
            raise
        shutil.rmtree(draft)  # a second worker was quicker; what it wrote is the same


# -- several processes ------------------------------------------------------------------------------------------------


def _by_processes(step: Path, work: Work, waiting: Sequence[int], processes: int, advance: Advance) -> None:
    """Spawn workers, which share nothing with this process: no threads, no locks, no memory."""
    count = min(processes, len(waiting))
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        left = {pool.submit(finish, step, work, shard) for shard in waiting}
        try:
            while left:
                done, left = wait(left, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                advance(len(done))
        except BrokenProcessPool:
            raise DataError(
                f"{step}: a worker was killed, most likely for its memory. Lower memory_bytes or the profile's threads, "
                "then run the same command with --resume."
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """A run that is killed leaves no worker behind."""
    parent = parent_process()
    if parent is None:
        return

    def follow(sentinel: int) -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=follow, args=(parent.sentinel,), daemon=True).start()


# -- datatrove's executors --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rank:
    """A step in datatrove's words: a rank is the position of a shard among those that wait."""

    step: Path
    work: Work
    waiting: tuple[int, ...]

    def __call__(self, _: object, rank: int, __: int) -> None:
        """Work on one shard."""
        finish(self.step, self.work, self.waiting[rank])


def _by_executor(rank: Rank, cluster: Cluster) -> None:
    """Hand the shards to an executor and wait until they lie there. The executor's own logs lie in `steps/logs`."""
    try:
        from datatrove import executor
    except ImportError:
        raise DataError("the profile names a cluster: pip install -r requirements.txt.") from None
    logs = str(rank.step.parent / "logs" / rank.step.name)
    shutil.rmtree(logs, ignore_errors=True)  # the ranks of another time were other shards
    given = {"tasks": len(rank.waiting), "workers": cluster.workers, "logging_dir": logs, "skip_completed": False}
    job = None
    if cluster.executor == "local":
        executor.LocalPipelineExecutor([rank], **given).run()
    elif cluster.executor == "ray":
        executor.RayPipelineExecutor([rank], mem_per_cpu_gb=cluster.memory_gb, **given).run()
    else:
        here = shlex.quote(str(Path.cwd()))
        slurm = executor.SlurmPipelineExecutor(
            [rank],
            time=f"{cluster.hours}:00:00",
            partition=cluster.partition,
            mem_per_cpu_gb=cluster.memory_gb,
            job_name=f"corpus-{rank.step.name}",
            qos=None,
            env_command=f"cd {here}; export PYTHONPATH={here} PATH={shlex.quote(sys.prefix)}/bin:$PATH",
            sbatch_args=dict(cluster.sbatch),
            **given,
        )
        slurm.run()
        job = str(slurm.job_id)
    _await(rank, job, logs)


def _await(rank: Rank, job: str | None, logs: str) -> None:
    """Wait for the folders: an executor that queues a job returns before it is done."""
    while missing := [shard for shard in rank.waiting if not folder(rank.step, shard).exists()]:
        if job is None or not _queued(job):
            time.sleep(0 if job is None else POLL_SECONDS)  # a shared file system shows a folder some seconds late
            missing = [shard for shard in missing if not folder(rank.step, shard).exists()]
            if missing:
                raise DataError(f"{rank.step}: {len(missing)} of {len(rank.waiting)} shards failed. Their logs: {logs}.")
            return
        time.sleep(POLL_SECONDS)


def _queued(job: str) -> bool:
    asked = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True, check=False)
    return bool(asked.stdout.strip())
