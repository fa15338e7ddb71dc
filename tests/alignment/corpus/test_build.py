import gzip
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from alignment import run
from alignment.corpus import build, documents
from alignment.corpus.documents import Document
from alignment.data_card import Card, Opened
from alignment.errors import DataError
from alignment.hardware import Cluster, Hardware
from alignment.recipe import Corpus
from alignment.run import Run
from tests import fake_hub

WORDS = ["river", "stone", "house", "garden", "window", "market", "teacher", "letter", "morning", "summer", "apple"]
CARD = {
    "name": "web",
    "origin": "a test",
    "hub": None,
    "licence": "none",
    "language": "en",
    "domain": "web",
    "reader": "documents",
    "columns": ["text"],
    "splits": {"all": {"role": "train", "files": ["*.jsonl"], "seen": False}},
}


def machine(threads=1, cluster=None):
    return Hardware("cpu", "cpu", "float32", "test", "sdpa", 512, False, 1, threads, cluster=cluster)


def page(number, words=80):
    return " ".join(WORDS[(number * 7 + i * i * (number + 3) + i) % len(WORDS)] + str(number) for i in range(words))


def recipe(**changes):
    base = {
        "stage": "corpus",
        "data": [{"run": "made", "dedup": False}, {"card": "web"}],
        "filters": {"min_characters": 50},
        "shares": {"made": 0.5, "web": 0.5},
        "bytes": 1_000_000,
        "held_out": 0.2,
    }
    return Corpus.model_validate(base | changes)


def write(path, rows):
    path.write_bytes(b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows))


def opened(tmp_path, name="corpus"):
    """A run that may begin, over the files that lie there."""
    (tmp_path / name).mkdir()
    card = Opened(Card.model_validate(CARD), tuple(sorted((tmp_path / "web").glob("*.jsonl"))), "digest")
    inputs = {name.name: SimpleNamespace(path=name) for name in (tmp_path / "made",)}
    return Run(tmp_path / name, inputs, {"web": card}, True, False, {})


@pytest.fixture
def here(tmp_path):
    (tmp_path / "made/heldout/mini-gsm8k").mkdir(parents=True)
    question = " ".join(page(3).split()[:30])
    (tmp_path / "made/heldout/mini-gsm8k/test.jsonl").write_text(json.dumps({"question": question}) + "\n")
    made = [Document(f"m{i}", page(50, 70) + f" {i}", "made", "en", "made") for i in range(30)]
    documents.write(tmp_path / "made/documents.jsonl", made)
    (tmp_path / "web").mkdir()
    dumps = [[{"id": f"w{i}", "text": page(i)} for i in range(first, 30, 2)] for first in (0, 1)]
    dumps[0].append({"id": "short", "text": "tiny"})
    dumps[1] += [{"id": "copy", "text": page(4)}, {"id": "near", "text": page(5) + " end"}]
    for number, rows in enumerate(dumps):
        write(tmp_path / "web" / f"dump{number}.jsonl", rows)
    return opened(tmp_path)


def ledger(here):
    found = json.loads((here.path / "ledger.json").read_text(encoding="utf-8"))
    return found, {step["step"]: step for step in found["steps"]}


def test_every_step_takes_what_it_should_and_the_ledger_says_so(here):
    numbers = build.build(recipe(against="made"), here, machine())
    assert [numbers[n] for n in ("exact_duplicates", "near_duplicates", "filtered", "contaminated")] == [1, 1, 1, 1]
    found, steps = ledger(here)
    for before, after in zip(found["steps"], found["steps"][1:], strict=False):
        assert before["out"] == after["in"]
    near = steps["near duplicates"]["reasons"]["near duplicate"]["samples"][0]
    assert (near["id"], near["instead"]) == ("web/dump1.jsonl:w5", "web/dump1.jsonl:near")
    assert steps["exact duplicates"]["reasons"]["equal text"]["samples"][0]["instead"] == "web/dump0.jsonl:w4"
    assert steps["filters"]["reasons"]["shorter than 50 characters"]["samples"][0]["id"] == "web/dump0.jsonl:short"
    assert found["decontamination"]["groups"]["seen"]["exact"] == 1
    joined = [(row["joined"], row["removed"]) for row in found["removed_as_dumps_are_joined"]]
    assert joined == [("made", 0), ("web/dump0.jsonl", 0), ("web/dump1.jsonl", 2)]
    assert here.cards["web"].rows_read == 33


def test_templated_text_keeps_its_near_duplicates_and_nothing_is_on_both_sides(here):
    numbers = build.build(recipe(), here, machine())
    train = list(documents.read(here.path / "documents.jsonl"))
    held_out = list(documents.read(here.path / "heldout.jsonl"))
    assert sum(document.domain == "made" for document in train + held_out) == 30
    assert {document.id for document in train}.isdisjoint(document.id for document in held_out)
    assert (numbers["documents"], numbers["held_out_documents"]) == (len(train), len(held_out))
    assert numbers["bytes"] == sum(document.bytes for document in train)
    assert ledger(here)[1]["remix"]["out"]["bytes"] == numbers["bytes"] + numbers["held_out_bytes"]


def test_dumps_are_named_groups_and_a_run_may_read_some_files_of_a_card(here):
    sources = [
        {"card": "web", "files": ["dump1*"], "dump": "second"},
        {"card": "web", "files": ["dump0.*"], "dump": "first", "domain": "book", "rows": 4},
    ]
    build.build(recipe(data=sources, shares={"web": 0.5, "book": 0.5}), here, machine())
    by = ledger(here)[1]["sources"]["by"]
    assert {dump: sizes["in"]["documents"] for dump, sizes in by["dump"].items()} == {"second": 17, "first": 4}
    assert by["domain"]["book"]["in"]["documents"] == 4
    with pytest.raises(DataError, match=r"dump9\* matches none of the 2 files"):
        build.build(recipe(data=[{"card": "web", "files": ["dump9*"]}]), here, machine())


def test_what_cannot_be_used_is_put_aside_up_to_a_share(here, tmp_path):
    write(tmp_path / "web/dump2.jsonl", [b"{\n", {"text": page(40)}, {"title": "none"}, {"text": ""}])
    here = opened(tmp_path, "again")
    with pytest.raises(
        DataError, match=r"data\.1: web: 3 of 37 rows cannot be used \(not JSON: 1, no field text: 1, empty: 1\)"
    ):
        build.build(recipe(), here, machine())
    lenient = [{"run": "made", "dedup": False}, {"card": "web", "max_bad_share": 0.1}]
    numbers = build.build(recipe(data=lenient), opened(tmp_path, "third"), machine())
    assert numbers["put_aside"] == 3
    aside = [json.loads(line) for line in (tmp_path / "third/aside.jsonl").read_text().splitlines()]
    assert [(row["file"], row["row"], row["reason"]) for row in aside] == [
        ("web/dump2.jsonl", 1, "not JSON"),
        ("web/dump2.jsonl", 3, "no field text"),
        ("web/dump2.jsonl", 4, "empty"),
    ]


def test_an_empty_corpus_is_an_error(here, tmp_path):
    for file in (tmp_path / "web").iterdir():
        file.write_text("")
    with pytest.raises(DataError, match=r"data\.1: web gave no document"):
        build.build(recipe(), here, machine())


def test_a_corpus_in_which_everything_is_filtered_out_names_the_rule(here):
    with pytest.raises(DataError, match=r"all 61 documents were filtered out \(shorter than 100000 characters: 61\)"):
        build.build(recipe(filters={"min_characters": 100_000}), here, machine())
    assert not (here.path / "documents.jsonl").exists()


def test_too_little_memory_is_refused_with_what_is_needed(here):
    with pytest.raises(DataError, match="One process needs"):
        build.build(recipe(memory_bytes=1000), here, machine())


def test_what_is_finished_is_not_done_again(here, monkeypatch):
    words = recipe(against="made", keep_index=True)
    first = build.build(words, here, machine())
    before = {path: path.read_bytes() for path in [*here.path.rglob("*.jsonl"), *here.path.rglob("*.npy")]}
    for path in (here.path / "steps").glob("*/00001"):
        path.rename(path.with_name("00001.other-1.part"))  # as if it had been killed there
    monkeypatch.setattr(build.carrier, "finish", counted := Counted(build.carrier.finish))
    assert build.build(words, here, machine()) == first
    assert counted.calls == ["read", "sift", "deal"]
    assert {path: path.read_bytes() for path in [*here.path.rglob("*.jsonl"), *here.path.rglob("*.npy")]} == before


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"filters": {"min_characters": 60}}, ["learn", "sift", "order", "deal"]),
        ({"near": {"threshold": 0.8}}, ["duplicates", "sift", "order", "deal"]),
        ({"bytes": 20_000}, ["order", "deal"]),
        ({"data": [{"run": "made", "dedup": False}, {"card": "web", "max_bad_share": 0.5}], "memory_bytes": 2 << 30}, []),
    ],
)
def test_a_corrected_recipe_does_again_what_the_correction_touches(here, tmp_path, monkeypatch, change, again):
    build.build(recipe(), here, machine())
    monkeypatch.setattr(build.carrier, "finish", counted := Counted(build.carrier.finish))
    numbers = build.build(recipe(**change), here, machine())
    assert sorted({*counted.calls}) == sorted({*again})
    fresh = opened(tmp_path, "fresh")
    assert build.build(recipe(**change), fresh, machine()) == numbers
    for name in ("documents.jsonl", "heldout.jsonl", "aside.jsonl", "clusters.md"):
        assert (here.path / name).read_bytes() == (fresh.path / name).read_bytes()


def test_other_content_under_the_same_names_is_read_anew(here, tmp_path):
    first = build.build(recipe(), here, machine())
    write(tmp_path / "web/dump0.jsonl", [{"id": "other", "text": page(90)}])
    here.cards["web"] = replace(here.cards["web"], digest="another")
    assert build.build(recipe(), here, machine())["raw_documents"] != first["raw_documents"]


def test_a_run_that_stopped_gives_way_to_a_corrected_recipe(here):
    with pytest.raises(DataError, match="filtered out"):
        build.build(recipe(filters={"min_characters": 100_000}), here, machine())
    assert {path.name for path in here.path.iterdir()} <= run.OURS


class Counted:
    def __init__(self, call):
        self.call, self.calls = call, []

    def __call__(self, step, work, shard):
        self.calls.append(step.name.partition("-")[0])
        self.call(step, work, shard)


def test_a_later_dump_meets_the_index_of_an_earlier_run(here, tmp_path):
    """Two runs, the second against the index of the first, keep what one run over both keeps."""
    whole = recipe(data=[{"card": "web"}], shares={"web": 1.0}, near={"keep": "first"})
    build.build(whole, here, machine())
    kept = {document.id for name in ("documents", "heldout") for document in documents.read(here.path / f"{name}.jsonl")}
    parts = []
    for number, index in ((0, ()), (1, ("corpus-0",))):
        run = later(tmp_path, f"corpus-{number}", whole)
        data = [{"card": "web", "files": [f"dump{number}*"]}]
        words = whole.model_copy(update={"index": index, "keep_index": True, "data": recipe(data=data).data})
        build.build(words, run, machine())
        parts += [d.id for name in ("documents", "heldout") for d in documents.read(run.path / f"{name}.jsonl")]
    assert sorted(parts) == sorted(kept)
    assert ledger(run)[1]["exact duplicates"]["reasons"]["equal text"]["samples"][0]["instead"] == "document 2 of the index"
    write(
        tmp_path / "web/dump2.jsonl",
        [{"id": f"again{i}", "text": f"{page(i)} end"} for i in range(4)] + [{"text": page(50)}],
    )
    last = {
        "index": ("corpus-0", "corpus-1"),
        "held_out": 0.0,
        "data": recipe(data=[{"card": "web", "files": ["dump2*"]}]).data,
    }
    build.build(whole.model_copy(update=last), run := later(tmp_path, "third", whole), machine())
    assert [document.id for document in documents.read(run.path / "documents.jsonl")] == ["web/dump2.jsonl:5"]
    nothing = {**last, "data": recipe(data=[{"card": "web", "files": ["dump1*"]}]).data}
    with pytest.raises(DataError, match="every document is a duplicate of one in corpus-0, corpus-1"):
        build.build(whole.model_copy(update=nothing), later(tmp_path, "nothing", whole), machine())
    other = whole.model_copy(update={"index": ("corpus-0",), "seed": 5})
    with pytest.raises(DataError, match="has seed 0, here it is 5"):
        build.build(other, later(tmp_path, "other", whole), machine())


def later(tmp_path, name, words):
    """A run beside `corpus-0` and `corpus-1`, which `words` made."""
    run = opened(tmp_path, name)
    for earlier in ("corpus-0", "corpus-1"):
        manifest = {"recipe": words.model_dump(mode="json")}
        run.inputs[earlier] = SimpleNamespace(path=tmp_path / earlier, manifest=manifest)
    return run


@pytest.mark.slow
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "hardware",
    [machine(threads=3), machine(cluster=Cluster(executor="local", workers=2))],
    ids=["processes", "datatrove"],
)
def test_whoever_carries_the_steps_the_bytes_are_the_same(tmp_path, hardware, monkeypatch):
    monkeypatch.setattr(build.carrier, "SOON_SECONDS", 0)
    if hardware.cluster:
        pytest.importorskip("datatrove", reason="datatrove is not installed (requirements.txt)")
    tail = page(99, 30)
    write(tmp_path / "web/dump2.jsonl", [{"id": f"v{i}", "text": f"{page(i)}\n{tail}"} for i in range(60, 70)])
    sources = {"data": [{"card": "web"}], "shares": {"web": 1.0}}
    words = recipe(**sources, against="made", strings={"line_documents": 1, "run_tokens": 20})
    outputs = []
    for name, carriers in (("alone", machine()), ("together", hardware)):
        run = opened(tmp_path, name)
        build.build(words, run, carriers)
        found, _ = ledger(run)
        assert (found["strings"]["lines"], found["strings"]["runs"]) == (1, 11)
        for step in found["steps"]:
            del step["seconds"]
        outputs.append(
            [found, *((run.path / file).read_bytes() for file in ("documents.jsonl", "heldout.jsonl", "aside.jsonl"))]
        )
    assert outputs[0] == outputs[1]


@pytest.mark.usefixtures("here")
def test_lines_that_documents_repeat_are_cut_where_the_recipe_says_so(tmp_path):
    line = "This line of the page stands below every single one of its articles."
    write(tmp_path / "web/dump2.jsonl", [{"id": f"v{i}", "text": f"{page(i)}\n{line}"} for i in range(60, 70)])
    changes = {"data": [{"card": "web"}], "shares": {"web": 1.0}, "strings": {"line_documents": 2}}
    build.build(recipe(**changes), opened(tmp_path, "cut"), machine())
    whole = [d for name in ("documents", "heldout") for d in documents.read(tmp_path / f"cut/{name}.jsonl")]
    assert sum(line in document.text for document in whole) == 1
    steps = [step["step"] for step in json.loads((tmp_path / "cut/ledger.json").read_text())["steps"]]
    assert steps[2:4] == ["near duplicates", "repeated strings"]


@pytest.mark.usefixtures("here")
def test_a_card_may_be_read_from_the_hub_without_a_copy(tmp_path, monkeypatch):
    rows = "".join(json.dumps({"body": page(number), "lang": "en"}) + "\n" for number in range(20))
    splits = {"all": {"role": "train", "files": ["2024/a.jsonl.gz"], "seen": False}}
    hub = {"hub": "org/web", "revision": fake_hub.COMMIT, "splits": splits}
    with fake_hub.serve({"datasets/org/web": {"2024/a.jsonl.gz": gzip.compress(rows.encode())}}) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        run = opened(tmp_path, "streamed")
        run.cards["web"] = Opened(Card.model_validate(CARD | hub), (), "digest", ("2024/a.jsonl.gz",))
        words = recipe(data=[{"card": "web", "stream": True, "text": "body", "dump": "2024"}], shares={"web": 1.0})
        numbers = build.build(words, run, machine())
    assert numbers["raw_documents"] == 20
    assert {document.dump for document in documents.read(run.path / "documents.jsonl")} == {"2024"}
