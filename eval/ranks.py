"""The processes of one evaluation: each asks a part of the items, the first one marks and writes.

`accelerate launch` starts them and says in the environment which one this is. Answers travel over gloo, on GPUs too:
they are text. A process that dies takes the others with it, and what each has saved is not asked again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from alignment.hardware import Hardware
from eval.samples import Asked, Row

PATIENCE = timedelta(days=7)  # the first to finish waits for the last, and all for the first to mark


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many."""

    number: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that marks and writes."""
        return self.number == 0

    def share(self, waiting: Sequence[Asked]) -> list[Asked]:
        """Take this process's part of the items: neighbours, since they share worked examples.

        Equal prompts stay together, for the random numbers of the second depend on there being a first.
        """
        prompts = list(dict.fromkeys(tuple(a.ids) for a in waiting))
        begin, end = (len(prompts) * number // self.count for number in (self.number, self.number + 1))
        mine = set(prompts[begin:end])
        return [a for a in waiting if tuple(a.ids) in mine]

    def together(self, rows: dict[str, Row]) -> dict[str, Row]:
        """Put the answers of all processes together; all return, and none before the last has come."""
        if self.count == 1:
            return rows
        from torch import distributed

        parts: list[dict[str, Row]] = [{} for _ in range(self.count)]
        distributed.all_gather_object(parts, rows)
        return {key: row for part in parts for key, row in part.items()}


ALONE = Ranks()


@contextmanager
def joined(hardware: Hardware) -> Iterator[Ranks]:
    """Connect the processes that the launcher started, each with a GPU of its own where there are GPUs."""
    if hardware.processes == 1:
        yield ALONE
        return
    import torch
    from torch import distributed

    if hardware.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def placed(hardware: Hardware) -> Hardware:
    """The machine as this process uses it: of several GPUs its own, said by number, for "cuda" may mean the first."""
    if hardware.device != "cuda" or hardware.processes == 1:
        return hardware
    return replace(hardware, device=f"cuda:{os.environ['LOCAL_RANK']}")
