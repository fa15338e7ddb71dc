"""Pushing: a sealed run goes to the hub in one commit with its card, goes on after an interruption, and loads back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, constants
from huggingface_hub.repocard_data import model_index_to_eval_results
from safetensors.torch import load, load_file, save_file

from alignment import __main__ as command
from alignment import hub, manifest, run, scores, terminal
from alignment.errors import HubError, RunError
from eval import evaluate
from tests import tiny, writable_hub
from tests.writable_hub import TOKEN

ROOT = Path(__file__).parents[2]
TO = "some/body"
CARD = {"revision": "unpinned", "rows": 7, "digest": "d"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[writable_hub.Hub]:
    """An empty hub that we may write to."""
    with writable_hub.serve() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain of three sealed runs: base, mixture, sft; the last two evaluated, with a pickle in the model folder."""
    root = tmp_path_factory.mktemp("runs")

    def model(path: Path) -> None:
        tiny.write_start(path, layers=1, width=8)
        (path / "model" / "training_args.bin").write_bytes(b"\x80\x04.")
        (path / "metrics.jsonl").write_text("".join(f'{{"step": {i}, "loss": {3 / i}}}\n' for i in range(1, 9)))

    def data(path: Path) -> None:
        (path / "rows.jsonl").write_text('{"id": "a", "input_ids": [1, 2]}\n{"id": "b", "input_ids": [3]}\n')
        (path / "validation.jsonl").write_text("")
        (path / "ledger.json").write_text('{"rows": 2, "languages": {"en": 1, "zh": 1}, "dropped": {"too long": 3}}')

    seal(root / "base", "pretrain", model, recipe="stage: pretrain\n")
    seal(root / "mix", "mixture", data, cards={"gsm8k": CARD}, recipe="stage: mixture\n")
    seal(root / "sft", "sft", model, inputs=("base", "mix"), recipe="stage: sft\nmax_length: 64\n")
    for name, score in (("base", 0.25), ("sft", 0.5)):
        write_report(root / name, score)
    return root


def seal(path: Path, stage: str, fill: Any, *, inputs: Any = (), cards: Any = None, recipe: str = "") -> None:
    prints = {name: run.read(path.parent / name).fingerprint for name in inputs}
    words = {"stage": stage, "seed": 0, "max_length": 64, "name": path.name}
    hardware = {"device": "cpu", "dtype": "float32"}
    plan = manifest.compose(words=words, inputs=prints, cards=cards or {}, hardware=hardware)
    here = run.begin(path, plan, inputs={}, cards={}, main=True, resume=False, recipe_text=recipe)
    fill(path)
    run.finish(here, {"train_loss": 0.375})


def write_report(path: Path, score: float) -> None:
    task = {
        **{"n": 8, "score": score, "interval": [score - 0.2, score + 0.2], "unread": 1, "form": "chat", "protocol": "paper"},
        **{"shots": {"least": 0, "most": 0}, "average": "mean of items", "interval_kind": "Wilson"},
    }
    (path / "eval").mkdir(exist_ok=True)
    report = {"model": evaluate.identity(path), "tasks": {"gsm8k": task, "mini-gsm8k": task}}
    (path / "eval" / "report.json").write_text(json.dumps(report))


def say(*words: str | Path) -> int:
    return terminal.guarded(lambda: command.app([*map(str, words)], standalone_mode=False), resumes=False)


def repository(server: writable_hub.Hub, revision: str = "main", kind: str = "models") -> Mapping[str, bytes]:
    return server.repositories[f"{kind}/{TO}"].at(revision)


# -- what is packed ---------------------------------------------------------------------------------------------------


def test_a_dry_run_writes_the_folder_and_sends_nothing(
    runs: Path, tmp_path: Path, server: writable_hub.Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say("push", runs / "sft", "--to", TO, "--dry-run", "--out", tmp_path / "out") == 0
    assert "stays here: training_args.bin" in capsys.readouterr().out
    assert not server.repositories
    folder = tmp_path / "out" / TO
    found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert found == {
        *("README.md", "training.png", ".eval_results/gsm8k.yaml"),
        *("recipes/base.yaml", "recipes/mix.yaml", "recipes/sft.yaml"),
        *("config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    assert (folder / "model.safetensors").read_bytes() == (runs / "sft" / "model" / "model.safetensors").read_bytes()
    assert say("push", runs / "sft", "--to", TO, "--dry-run", "--out", tmp_path / "out") == 2


def test_the_card_says_what_the_manifests_say(runs: Path) -> None:
    text = bytes(hub.pack(runs / "sft", TO, "mit").files["README.md"]).decode()  # type: ignore[arg-type]
    card = ModelCard(text)
    assert (card.data.license, card.data.language, card.data.datasets) == ("mit", ["en", "zh"], ["openai/gsm8k"])
    assert card.data.library_name == "transformers"
    for fact in (
        "| gsm8k | 8 | 50.0 (30.0 to 70.0) | 25.0 | 1 | 0-shot, chat, paper; mean of items, Wilson |",
        "[gsm8k](https://huggingface.co/datasets/openai/gsm8k) | mix | 7 | MIT |",
        "| mix | dropped | too long 3 |",
        "stage: sft\nmax_length: 64",
        run.read(runs / "base").fingerprint[:12],
        "up to 64 tokens",
        f'AutoTokenizer.from_pretrained("{TO}")',
        "![Loss over updates](training.png)",
        "2401.02954",
        "| train loss | 0.375 |",
    ):
        assert fact in text
    assert "None" not in text


def test_scores_are_written_in_both_of_the_hubs_formats(runs: Path) -> None:
    parcel = hub.pack(runs / "sft", TO)
    (entry,) = yaml.safe_load(bytes(parcel.files[".eval_results/gsm8k.yaml"]))  # type: ignore[arg-type]
    assert entry["dataset"]["id"] == "openai/gsm8k"
    assert entry["value"] == 50.0
    assert "n = 8, 95 % 30.0 to 70.0" in entry["notes"]
    index = ModelCard(bytes(parcel.files["README.md"]).decode()).data.to_dict()["model-index"]  # type: ignore[arg-type]
    _, results = model_index_to_eval_results(index)
    assert {(one.dataset_name, one.dataset_type, one.metric_value) for one in results} == {
        ("gsm8k", "openai/gsm8k", 50.0),
        ("mini-gsm8k", "mini-gsm8k", 50.0),  # no data set of the hub, so no .eval_results
    }


def test_results_of_another_model_are_refused(runs: Path, tmp_path: Path) -> None:
    seal(tmp_path / "sft", "sft", lambda path: tiny.write_start(path, layers=1, width=8))
    (tmp_path / "sft" / "eval").mkdir()
    report = (runs / "sft" / "eval" / "report.json").read_text()
    (tmp_path / "sft" / "eval" / "report.json").write_text(report)
    assert scores.identity(run.read(runs / "sft")) == evaluate.identity(runs / "sft")
    with pytest.raises(RunError, match="the results of another model"):
        hub.pack(tmp_path / "sft", TO)


def test_a_run_that_was_not_evaluated_says_so(tmp_path: Path) -> None:
    seal(tmp_path / "sft", "sft", lambda path: tiny.write_start(path, layers=1, width=8))
    text = bytes(hub.pack(tmp_path / "sft", TO).files["README.md"]).decode()  # type: ignore[arg-type]
    assert "This model was not evaluated." in text
    assert "No licence was chosen" in text
    assert "training.png" not in text


def test_a_changed_or_unshareable_run_is_refused(runs: Path, tmp_path: Path) -> None:
    seal(tmp_path / "tok", "tokenizer", lambda path: (path / "report.md").write_text("x"))
    with pytest.raises(RunError, match="neither model/ nor data"):
        hub.pack(tmp_path / "tok", TO)
    (tmp_path / "tok" / "report.md").write_text("y")
    with pytest.raises(RunError, match="changed after the run was sealed"):
        hub.pack(tmp_path / "tok", TO)
    assert runs.exists()


def test_a_token_is_never_sent_nor_said(
    tmp_path: Path, server: writable_hub.Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leaked = f"# my token is {TOKEN}\nstage: mixture\n"
    seal(tmp_path / "mix", "mixture", lambda path: (path / "rows.jsonl").write_text("{}\n"), recipe=leaked)
    assert say("push", tmp_path / "mix", "--to", TO) == 2
    assert not server.repositories
    (tmp_path / "clean").mkdir()
    seal(tmp_path / "clean" / "mix", "mixture", lambda path: (path / "rows.jsonl").write_text("{}\n"))
    wrong = ("hf_" + "y" * 30, "hf_" + "z" * 30 + "\u20ac")  # one the hub does not know, one that is no header
    for token in wrong:
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(HubError):
            hub.push(
                *(hub.pack(tmp_path / "clean" / "mix", TO), TO),
                **{"revision": "main", "private": False, "message": "m", "say": print},  # type: ignore[arg-type]
            )
    said = capsys.readouterr()
    for token in (TOKEN, *wrong):
        assert token not in said.out + said.err


def test_a_data_set_carries_its_ledger_and_the_cards_of_its_sources(runs: Path) -> None:
    parcel = hub.pack(runs / "mix", TO)
    assert parcel.files["ledger.json"] == runs / "mix" / "ledger.json"
    assert Path(str(parcel.files["data_cards/gsm8k.md"])).read_text(encoding="utf-8").startswith("---\nname: gsm8k")
    assert "data_cards/gsm8k.md" not in hub.pack(runs / "sft", TO).files


# -- what is pushed ---------------------------------------------------------------------------------------------------


def test_a_push_is_one_commit_and_a_second_one_none(runs: Path, server: writable_hub.Hub) -> None:
    assert say("push", runs / "sft", "--to", TO) == 0
    parcel = hub.pack(runs / "sft", TO)
    expected = {name: file if isinstance(file, bytes) else file.read_bytes() for name, file in parcel.files.items()}
    assert repository(server) == expected
    assert (server.commits, len(server.uploads)) == (1, 2)  # weights and picture are large files
    assert say("push", runs / "sft", "--to", TO) == 0
    assert (server.commits, len(server.uploads)) == (1, 2)


def test_an_interrupted_push_goes_on_where_it_stopped(runs: Path, server: writable_hub.Hub) -> None:
    server.die_after = 1
    assert say("push", runs / "sft", "--to", TO) == 2
    assert repository(server) == {}
    assert len(server.uploads) == 1
    server.die_after = None
    assert say("push", runs / "sft", "--to", TO) == 0
    assert server.commits == 1
    assert len(server.uploads) == len(set(server.uploads)) == 2


def test_a_revision_is_a_branch_and_leaves_main_alone(runs: Path, server: writable_hub.Hub) -> None:
    assert say("push", runs / "base", "--to", TO, "--revision", "base") == 0
    assert say("push", runs / "sft", "--to", TO, "--revision", "sft") == 0
    assert repository(server) == {}
    assert repository(server, "base")["recipes/base.yaml"] == b"stage: pretrain\n"
    assert "recipes/sft.yaml" in repository(server, "sft")


def test_weights_of_an_earlier_push_do_not_stay_beside_the_new_ones(runs: Path, server: writable_hub.Hub) -> None:
    assert say("push", runs / "sft", "--to", TO) == 0
    files = server.repositories[f"models/{TO}"].at()
    files |= {"model-00001-of-00002.safetensors": b"old", "model.safetensors.index.json": b"{}", "notes.md": b"by hand"}
    assert say("push", runs / "base", "--to", TO) == 0
    assert "notes.md" in repository(server)
    assert [name for name in repository(server) if "safetensors" in name] == ["model.safetensors"]
    assert server.commits == 2


def test_a_card_that_the_hub_refuses_is_one_sentence(
    runs: Path, server: writable_hub.Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say("push", runs / "mix", "--to", TO, "--licence", "nonsense") == 2
    assert '"license" must be one of [mit, ...] Nothing was committed.' in " ".join(capsys.readouterr().err.split())
    assert server.commits == 0


def test_private_is_kept_or_refused(runs: Path, server: writable_hub.Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert say("push", runs / "sft", "--to", TO, "--private") == 0
    assert server.repositories[f"models/{TO}"].private
    server.repositories[f"models/{TO}"].private = False
    assert say("push", runs / "base", "--to", TO, "--private") == 2
    assert "is public already" in " ".join(capsys.readouterr().err.split())
    assert server.commits == 1


def test_checkpoints_of_an_unfinished_run_become_revisions(tmp_path: Path, server: writable_hub.Hub) -> None:
    """Of a pre-training in our own form, of a fine-tuning as the trainer writes them; an adapter is no whole model."""
    tiny.write_start(tmp_path / "shards", layers=1, width=8)
    whole = load_file(tmp_path / "shards" / "model" / "model.safetensors")
    shape = {"layers": 1, "width": 8, "heads": 2, "ffn": 16, "tie": True}
    pretrain = {"stage": "pretrain", "seed": 0, "data": "shards", "model": shape, "optim": {"learning_rate": 1e-3}}
    pretrain |= {"tokens": 5120, "batch_size": 4, "sequence_length": 128}
    for name, words in (("pretrain", pretrain), ("sft", {"stage": "sft", "seed": 0})):
        plan = manifest.compose(words=words, inputs={}, cards={}, hardware={})
        run.begin(tmp_path / name, plan, inputs={}, cards={}, main=True, resume=False, recipe_text=f"stage: {name}\n")
    folder = tmp_path / "pretrain" / "checkpoints" / "step-200"
    folder.mkdir(parents=True)
    save_file({name: 2 * value for name, value in whole.items()}, folder / "tensors.safetensors")
    assert say("push", tmp_path / "pretrain", "--to", TO, "--checkpoints") == 0
    assert repository(server) == {}
    pushed = load(repository(server, "step-200")["model.safetensors"])
    assert all((pushed[name] == 2 * whole[name]).all() for name in pushed)
    assert 'revision="step-200"' in repository(server, "step-200")["README.md"].decode()

    folder = tmp_path / "sft" / "checkpoints" / "checkpoint-40"
    shutil.copytree(tmp_path / "shards" / "model", folder)
    for name in ("trainer_state.json", "optimizer.pt", "training_args.bin"):
        (folder / name).write_text("{}")
    assert say("push", tmp_path / "sft", "--to", TO, "--checkpoints") == 0
    assert set(repository(server, "step-40")) == {
        "README.md",
        *(file.name for file in (tmp_path / "shards" / "model").iterdir()),
    }
    (folder / "config.json").unlink()
    assert say("push", tmp_path / "sft", "--to", TO, "--checkpoints") == 2
    assert say("push", tmp_path / "sft", "--to", TO) == 2  # unfinished


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_what_was_pushed_loads_back(runs: Path, tmp_path: Path) -> None:
    """In a fresh process, by the libraries' own functions, from the hub alone."""
    assert say("push", runs / "sft", "--to", TO) == 0
    assert say("push", runs / "mix", "--to", TO) == 0
    code = f"""
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
rows = load_dataset({TO!r}, split="train")
assert rows["id"] == ["a", "b"], rows
model, tokenizer = AutoModelForCausalLM.from_pretrained({TO!r}), AutoTokenizer.from_pretrained({TO!r})
ids = tokenizer.apply_chat_template([dict(role="user", content="Hi")], add_generation_prompt=True, return_dict=False)
print(float(sum(p.double().sum() for p in model.parameters())), ids)
"""
    cache = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **cache}, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    from alignment import chat
    from alignment.models import build

    model = build.load(runs / "sft" / "model", tiny.CPU)
    tokenizer = build.read_tokenizer(runs / "sft" / "model")
    asked = chat.encode(tokenizer, [{"role": "user", "content": "Hi"}], answer=False).input_ids
    weights = float(sum(p.double().sum() for p in model.parameters()))
    assert done.stdout.strip().splitlines()[-1] == f"{weights} {asked}"
