"""What `Order` decides on columns is what the plain lists of documents would give."""

import json
import random

import numpy as np
import pytest

from alignment.corpus import deal, remix
from alignment.corpus.column import Columns
from alignment.corpus.deal import Deal, Order
from alignment.corpus.documents import Document, line
from alignment.corpus.ledger import KEYS


def mixed(documents, plan, seed):
    """Take each domain's bytes, pass after pass, in the order of the documents' numbers; then shuffle all."""
    taken = []
    for domain, left in plan.take.items():
        turn = 0
        while left > 0:
            pool = [document for document in documents if document.domain == domain]
            for document in sorted(pool, key=lambda document: remix.key(document, seed, f"take {turn}")):
                if left > 0:
                    taken.append((remix.key(document, seed, f"mix {turn}"), document))
                    left -= document.bytes
            turn += 1
    return [document for _, document in sorted(taken, key=lambda entry: entry[0])]


def shelve(documents, folder, turns, seed):
    """Write documents as two shards of the step `sift`."""
    cut = len(documents) // 3
    for number, part in enumerate((documents[:cut], documents[cut:])):
        (folder / str(number)).mkdir(parents=True)
        names = {key: list(dict.fromkeys(getattr(document, key) for document in part)) for key in KEYS}
        rows = [line(document) for document in part]
        (folder / str(number) / "documents.jsonl").write_bytes(b"".join(rows))
        with Columns(folder / str(number), deal.KINDS) as columns:
            columns.add(start=np.cumsum([0, *map(len, rows)]), size=[document.bytes for document in part])
            columns.add(hash=[[remix.key(document, seed, use) for use in deal.uses(turns)] for document in part])
            columns.add(**{key: [names[key].index(getattr(document, key)) for document in part] for key in KEYS})
        (folder / str(number) / "said.json").write_text(json.dumps({"names": names}))
    return folder / "0", folder / "1"


@pytest.mark.parametrize(("budget", "held_out", "part_bytes"), [(4000, 0.1, 10**6), (10**6, 0.05, 700), (900, 0.0, 1)])
def test_columns_decide_what_lists_would(tmp_path, monkeypatch, budget, held_out, part_bytes):
    monkeypatch.setattr(deal, "PART_BYTES", part_bytes)
    draw = random.Random(3)
    found = [
        Document(str(i), "text " * draw.randrange(1, 40), draw.choice("ab"), draw.choice(["en", "zh"]), draw.choice("xyz"))
        for i in range(90)
    ]
    shards = shelve(found, tmp_path / "sift", turns=2, seed=5)
    available = deal.available(shards)
    assert sum(available.values()) == sum(document.bytes for document in found)
    sizes = {domain: sum(size for (name, _), size in available.items() if name == domain) for domain in "ab"}
    plan = remix.plan(sizes, {"a": 0.3, "b": 0.7}, budget=budget, max_epochs=1.7)
    (tmp_path / "order").mkdir()
    Order(shards, plan, 2, held_out, by_language=False)(0, tmp_path / "order")
    cuts = np.load(tmp_path / "order/cuts.npy")
    texts = []
    for part in range(len(cuts) - 1):
        (tmp_path / f"part-{part}").mkdir()
        Deal(shards, tmp_path / "order")(part, tmp_path / f"part-{part}")
        texts += (tmp_path / f"part-{part}/documents.jsonl").read_bytes().splitlines(keepends=True)
    wanted = mixed(found, plan, 5)
    numbers = json.loads((tmp_path / "order/said.json").read_text())["numbers"]
    train, held = texts[: numbers["documents"]], texts[numbers["documents"] :]
    assert len(held) == numbers["held_out_documents"]
    assert train == [line(document) for document in wanted if line(document) not in held]
    for domain in "ab":
        numbered = {remix.key(document, 5, "hold out"): document for document in wanted if document.domain == domain}
        mine = [document for _, document in sorted(numbered.items())]
        whole, kept = sum(d.bytes for d in mine), [d for d in mine if line(d) in held]
        assert kept == mine[: len(kept)]  # the first by their number, and just enough
        assert not held_out or sum(d.bytes for d in kept[:-1]) < held_out * whole <= sum(d.bytes for d in kept)


def test_languages_divide_each_domain(tmp_path):
    found = [Document(str(i), "x" * 10, "ab"[i % 2], ["en", "zh", "zh"][i % 3], "d") for i in range(120)]
    shards = shelve(found, tmp_path / "sift", turns=1, seed=0)
    bytes_, shares = remix.by_language(deal.available(shards), {"a": 0.5, "b": 0.5}, {"en": 0.5, "zh": 0.5})
    plan = remix.plan(bytes_, shares, budget=10**6, max_epochs=1)
    (tmp_path / "order").mkdir()
    Order(shards, plan, 1, 0.0, by_language=True)(0, tmp_path / "order")
    said = json.loads((tmp_path / "order/said.json").read_text())
    assert {key: moved["out"]["documents"] for key, moved in said["tally"]["by"]["language"].items()} == {"en": 40, "zh": 40}
