import os
from functools import partial

import numpy as np
import pytest

from alignment.corpus import carrier
from alignment.corpus.carrier import Crew
from alignment.corpus.deal import Deal
from alignment.errors import DataError
from alignment.hardware import Cluster


def write(shard, out, *, fails=()):
    if shard in fails:
        (out / "half").write_text("...")
        raise DataError(f"shard {shard} cannot be done")
    (out / "text").write_text(f"{shard}")


def finished(step):
    return sorted(path.name for path in step.iterdir())


def test_a_step_is_the_folders_of_its_shards_in_order(tmp_path):
    told = []
    folders = carrier.carry(tmp_path / "step", write, 3, Crew(1), told.append)
    assert [(folder.name, (folder / "text").read_text()) for folder in folders] == [
        ("00000", "0"),
        ("00001", "1"),
        ("00002", "2"),
    ]
    assert sum(told) == 3


def test_a_shard_that_fails_leaves_none_and_the_next_try_does_only_what_is_missing(tmp_path):
    with pytest.raises(DataError, match="shard 1"):
        carrier.carry(tmp_path / "step", partial(write, fails={1}), 3, Crew(1))
    before, half = finished(tmp_path / "step")
    assert (before, half.endswith(".part")) == ("00000", True)
    again = carrier.carry(tmp_path / "step", partial(write, fails={0}), 3, Crew(1))  # 0 would fail if it were done again
    assert finished(tmp_path / "step") == [folder.name for folder in again]


def test_of_two_workers_the_quicker_one_counts(tmp_path):
    step = tmp_path / "step"

    def overtaken(shard, out):
        write(shard, out)
        (step / "00000").mkdir()
        (step / "00000" / "text").write_text("the other's")

    step.mkdir()
    carrier.finish(step, overtaken, 0)
    assert finished(step) == ["00000"]
    assert (step / "00000" / "text").read_text() == "the other's"


SBATCH = """#!/bin/bash
script="${@: -1}"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
if [ -n "$last" ]; then
  [ -e PLACE/script ] || cp "$script" PLACE/script
  for task in $(seq 0 "$last"); do
    SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=here RUN_OFFSET=0 bash "$script" >> PLACE/log 2>&1
  done
fi
echo "Submitted batch job 7"
"""
SRUN = """#!/bin/bash
while [[ "$1" == -* ]]; do if [ "$1" = -n ]; then shift; fi; shift; done
exec "$@"
"""


def two_parts(folder):
    """Work that other processes can import: two lines are dealt out, each a part."""
    if not (folder / "cuts.npy").exists():
        (folder / "documents.jsonl").write_text("first\nsecond\n")
        np.array([0, 6, 13], np.uint64).tofile(folder / "start.bin")
        np.save(folder / "rows.npy", np.array([1, 0]))
        np.save(folder / "cuts.npy", np.array([0, 1, 2]))
    return Deal((folder,), folder)


@pytest.mark.slow
def test_slurm_is_given_a_job_whose_tasks_do_the_shards(tmp_path, monkeypatch):
    """A stand-in for Slurm runs the job array here, as it is submitted: what the nodes would be told is what counts."""
    pytest.importorskip("datatrove", reason="datatrove is not installed (requirements.txt)")
    here = tmp_path / "bin"
    here.mkdir()
    tools = {"sbatch": SBATCH, "srun": SRUN, "scontrol": "#!/bin/bash\necho here\n", "squeue": "#!/bin/bash\n"}
    for name, text in tools.items():
        (here / name).write_text(text.replace("PLACE", str(tmp_path)))
        (here / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")
    monkeypatch.setattr(carrier, "POLL_SECONDS", 0.01)
    given = {"executor": "slurm", "workers": 2, "partition": "cpu", "hours": 3, "memory_gb": 5, "sbatch": {"account": "me"}}
    crew = Crew(1, Cluster.model_validate(given))
    folders = carrier.carry(tmp_path / "steps" / "deal", two_parts(tmp_path), 2, crew)
    found = [(folder / "documents.jsonl").read_text() for folder in folders]
    assert found == ["second\n", "first\n"], (tmp_path / "log").read_text()
    script = (tmp_path / "script").read_text()
    for line in ("partition=cpu", "time=3:00:00", "mem-per-cpu=5G", "account=me", "array=0-1%2", "job-name=corpus-deal"):
        assert f"#SBATCH --{line}\n" in script
    with pytest.raises(DataError, match=r"1 of 1 shards failed\. Their logs"):  # there is no third part
        carrier.carry(tmp_path / "steps" / "deal", two_parts(tmp_path), 3, crew)
