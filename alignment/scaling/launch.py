"""A plan as a folder of recipes that can be run: the preparation of another folder, and the plan's pre-training."""

from __future__ import annotations

from pathlib import Path

from alignment import recipe
from alignment.errors import RecipeError
from alignment.recipe import Recipe
from alignment.run import write_text
from alignment.scaling.plan import Plan

BEFORE = ("curriculum", "corpus", "tokenizer", "shards")


def preparation(like: Path) -> tuple[dict[str, str], str, int]:
    """Texts of the recipes in a folder that come before pre-training; the name of its shards; the vocabulary."""
    if not like.is_dir():
        raise RecipeError(f"--like {like}: no such folder. Name one with the recipes of a tokenizer and its shards.")
    texts: dict[str, str] = {}
    found: dict[str, dict[str, Recipe]] = {}
    for file in sorted(like.glob("*.yaml")):
        words = recipe.load(file)
        found.setdefault(words.stage, {})[file.stem] = words
        if words.stage in BEFORE:
            texts[file.name] = file.read_text(encoding="utf-8")
    read = {getattr(words, "data", "") for words in found.get("pretrain", {}).values()}
    shards = found.get("shards", {})
    names = sorted(shards.keys() & read if len(shards) > 1 else shards)
    if len(names) != 1 or len(found.get("tokenizer", {})) != 1:
        raise RecipeError(
            f"--like {like}: one tokenizer recipe and one shards recipe are needed (or one that is pre-trained on)."
        )
    (vocabulary,) = found["tokenizer"].values()
    assert isinstance(vocabulary, recipe.Tokenizer), "keyed by stage"
    return texts, names[0], vocabulary.padded_vocab_size or vocabulary.vocab_size


def write(out: Path, plan: Plan, profile: str, like: Path) -> Path:
    """Write the folder; return its pre-training recipe. Raises RecipeError where something lies there already."""
    if out.exists() and any(out.iterdir()):
        raise RecipeError(f"--write {out}: is not empty, and nothing is overwritten. Choose another folder.")
    texts, shards, _ = preparation(like)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(out / name, text)
    shape = plan.shape
    model = ", ".join(f"{name}: {getattr(shape, name)}" for name in ("layers", "width", "heads", "kv_heads", "ffn"))
    write_text(
        out / "pretrain.yaml",
        f"""# {out / "pretrain.yaml"} -- planned for {plan.flops:.4g} FLOPs without embeddings (paper 3)
stage: pretrain
data: {shards}
model: {{{model}, tie: {str(shape.tie).lower()}}}  # M = {plan.scale:.4g} FLOPs a token; the law: {plan.scale_law:.4g}
optim:
  learning_rate: {plan.learning_rate:g}  # equation 1
  warmup_steps: {plan.warmup}  # the paper: 2000; here no more than a twentieth
tokens: {plan.tokens}  # {plan.updates:,} updates; the law: {plan.tokens_law:.4g} tokens
batch_size: {plan.batch_size}  # equation 1: {plan.batch_law:,.0f} tokens
sequence_length: {plan.sequence}
checkpoint_minutes: 5  # paper 2.4
fits: [{profile}]
""",
    )
    return out / "pretrain.yaml"
