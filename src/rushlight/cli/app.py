"""The command line: each command is one call of the public functions.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rushlight.jobs.trials import ComparisonState
    from rushlight.run.stage import Progress

app = typer.Typer(
    help="Teach vision models to see from few, partial, noisy or missing labels; and know how far to trust them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
claims_app = typer.Typer(help="The ledger: does each paper's headline claim hold in a small experiment?")
app.add_typer(claims_app, name="claims", invoke_without_command=True)

Source = Annotated[
    str, typer.Argument(metavar="PATH", help="A folder of images, a COCO file, `hf:NAME`, or `fashion`.")
]
Labels = Annotated[str | None, typer.Option(help="A CSV, Parquet or COCO JSON file with the labels.")]
Masks = Annotated[str | None, typer.Option(help="The folder with a PNG mask for each image.")]
Size = Annotated[int | None, typer.Option(help="Side of the packed images in pixels; by default chosen from them.")]
Fit = Annotated[str, typer.Option(help="How images are brought to that size: squash, crop or pad.")]
Cache = Annotated[str | None, typer.Option(help="Folder for packed images; by default the user's cache folder.")]
Task = Annotated[str | None, typer.Option(help="What to learn: class, tags or mask; by default what is known.")]
BudgetText = Annotated[str, typer.Option("--budget", help="Image passes (200k) or time (10m) for each training.")]
EncoderName = Annotated[str, typer.Option("--encoder", help="conv16, conv32, vit96, any timm model, or auto.")]
Weights = Annotated[str | None, typer.Option(help="A safetensors file with the encoder's weights.")]
Pretrained = Annotated[bool, typer.Option("--pretrained", help="Fetch the encoder's pretrained weights from the Hub.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")]


def main() -> None:
    """Run a command; the user's errors end it with one sentence and exit code 2."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    from rushlight.core.errors import UserError

    try:
        app(arguments, standalone_mode=True)
    except UserError as error:
        if debug:
            raise
        print(f"rushlight: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("rushlight: stopped; the same command goes on where this one was", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if debug:
            raise
        print(
            f"rushlight: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} "
            "(this should not happen; --debug shows where)",
            file=sys.stderr,
        )
        raise SystemExit(1) from None


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        from rushlight import __version__

        print(f"rushlight {__version__}")
        raise typer.Exit


def _load(source: str, labels: str | None, masks: str | None, size: int | None, fit: str, cache: str | None) -> Any:
    import rushlight

    if fit not in ("squash", "crop", "pad"):
        from rushlight.core.errors import UserError

        raise UserError(f"--fit {fit}: it is squash, crop or pad")
    with _progress("reading") as tell:
        return rushlight.load(
            source,
            labels=labels,
            masks=masks,
            size=size,
            fit=fit,
            cache=cache,
            progress=lambda done, n: tell(done / n, ""),
        )


def _small(source: str, size: int | None, device: str) -> int | None:
    """On a CPU, trainings read images of at most 64 pixels unless the user names a size."""
    from rushlight.run import hardware

    return 64 if size is None and hardware.device(device) == "cpu" and Path(source).exists() else size


@app.command()
def look(
    source: Source,
    labels: Labels = None,
    masks: Masks = None,
    size: Size = None,
    fit: Fit = "squash",
    cache: Cache = None,
) -> None:
    """Show what is known, unknown, odd and corrupt in a folder of images, and which systems fit it."""
    import rushlight

    _print(rushlight.look(_load(source, labels, masks, size, fit, cache)))


@app.command()
def compare(
    source: Source,
    labels: Labels = None,
    masks: Masks = None,
    methods: Annotated[str, typer.Option(help="Recipes separated by commas, or auto: every one that fits.")] = "auto",
    budget: BudgetText = "200k",
    seeds: Annotated[int, typer.Option(help="How many seeds; each gives every recipe the same start.")] = 5,
    keep: Annotated[int | None, typer.Option(help="Keep this many labels a class, to see what few labels do.")] = None,
    test_share: Annotated[float, typer.Option(help="Share of the labelled images held out for the test.")] = 0.25,
    out: Annotated[str, typer.Option(help="Folder for trials, models and the report.")] = "rushlight-out",
    encoder: EncoderName = "auto",
    weights: Weights = None,
    pretrained: Pretrained = False,
    task: Task = None,
    size: Size = None,
    fit: Fit = "squash",
    cache: Cache = None,
    device: Device = "auto",
    workers: Annotated[int | None, typer.Option(help="Trials side by side; by default one a core.")] = None,
    unlabelled_only: Annotated[
        bool, typer.Option("--unlabelled-only", help="Look at no label: pretrain, and rank encoders without labels.")
    ] = False,
) -> None:
    """Run every fitting recipe at an equal budget, rank them, and write a report and the best model."""
    import rushlight
    from rushlight.run.budget import Budget

    Budget.parse(budget)
    if unlabelled_only:
        from rushlight.core.errors import UserError

        if task is not None or keep is not None:
            raise UserError("--unlabelled-only looks at no label: leave --task and --keep away")
    data = _load(source, labels, masks, _small(source, size, device), fit, cache)
    labelled = {} if unlabelled_only else {"keep": keep, "task": task}
    with _live() as watch:
        board = rushlight.compare(
            data,
            methods,
            unlabelled_only=unlabelled_only,
            budget=budget,
            seeds=seeds,
            test_share=test_share,
            out=out,
            encoder=encoder,
            weights=weights,
            pretrained=pretrained,
            device=device,
            workers=workers,
            command=_command(),
            on_update=watch,
            **labelled,
        )
    _print(board)
    _print(f"report: {board.out / 'report.html'}")


@app.command()
def fit(
    source: Source,
    recipe: Annotated[
        str, typer.Argument(help="Stages in a row, such as 'barlow-twins > iomatch(closed_threshold=0.7)'.")
    ],
    out: Annotated[str, typer.Option(help="Folder for the model.")] = "model",
    labels: Labels = None,
    masks: Masks = None,
    budget: BudgetText = "200k",
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    encoder: EncoderName = "auto",
    weights: Weights = None,
    pretrained: Pretrained = False,
    task: Task = None,
    size: Size = None,
    fit: Fit = "squash",
    cache: Cache = None,
    device: Device = "auto",
) -> None:
    """Train one recipe and save the model."""
    import rushlight
    from rushlight.run.budget import Budget
    from rushlight.run.recipe import Recipe

    Budget.parse(budget)
    Recipe.parse(recipe)
    data = _load(source, labels, masks, _small(source, size, device), fit, cache)
    with _progress("training") as tell:
        rushlight.fit(
            data,
            recipe,
            budget=budget,
            seed=seed,
            out=out,
            encoder=encoder,
            weights=weights,
            pretrained=pretrained,
            task=task,
            device=device,
            on_progress=lambda progress: tell(progress.done, _words(progress)),
        )
    _print(f"model: {out}")


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="The folder of a model.")],
    images: Annotated[str, typer.Argument(help="A folder of images.")],
    out: Annotated[str, typer.Option(help="A .csv or .parquet file; for masks also a folder.")] = "predictions.csv",
    device: Device = "auto",
    cache: Cache = None,
) -> None:
    """Predict every image of a folder: probabilities as CSV or Parquet; masks as PNG, in the images' own pixels."""
    from rushlight.jobs.predict import run, write

    if write.is_table(out):
        table = run.predict(model, images, device=device, cache=cache)
        write.write_table(table, out)
        _print(f"{len(table):,} predictions: {out}")
    else:
        _print(f"{len(write.write_files(model, images, out, device=device, cache=cache)):,} files: {out}")


@app.command()
def audit(
    model: Annotated[str, typer.Argument(help="The folder of a model.")],
    source: Source,
    labels: Labels = None,
    masks: Masks = None,
    out: Annotated[str, typer.Option(help="Folder for audit.html.")] = "rushlight-audit",
    fit: Fit = "squash",
    cache: Cache = None,
) -> None:
    """Run every judge that fits a model: calibration, confusions, attacks, rank, label mistakes."""
    import rushlight

    trained = rushlight.Model.load(model)
    data = rushlight.load(
        source,
        labels=labels,
        masks=masks,
        size=trained.info.image_size,
        fit=trained.info.packing.get("fit", fit),
        cache=cache,
    )
    with _progress("auditing") as tell:
        found = rushlight.audit(
            trained,
            data,
            out=out,
            command=_command(),
            on_progress=lambda progress: tell(progress.done, progress.stage),
        )
    _print(found)
    _print(f"report: {Path(out) / 'audit.html'}")


@app.command()
def judge(
    recipe: Annotated[str, typer.Argument(help="A judge with its arguments, such as 'backbones(shots=5)'.")],
    source: Source,
    models: Annotated[
        str | None,
        typer.Option(help="Folders of models, encoders or timm models, separated by commas: 'model/, resnet18@64'."),
    ] = None,
    out: Annotated[str, typer.Option(help="Folder for judge.html and a CSV file of each table.")] = "judged",
    labels: Labels = None,
    masks: Masks = None,
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    encoder: EncoderName = "auto",
    pretrained: Pretrained = False,
    task: Task = None,
    size: Size = None,
    fit: Fit = "squash",
    cache: Cache = None,
    device: Device = "auto",
) -> None:
    """Run one judge on one model, on several side by side, or on none, and write what it found."""
    import rushlight
    from rushlight.jobs.judge import run as judging
    from rushlight.run import recipe as recipes

    recipes.judge(recipe)
    judging.check(models)
    data = _load(source, labels, masks, _small(source, size, device), fit, cache)
    with _progress("judging") as tell:
        done = rushlight.judge(
            recipe,
            data,
            models=models,
            out=out,
            seed=seed,
            encoder=encoder,
            pretrained=pretrained,
            task=task,
            device=device,
            command=_command(),
            on_progress=lambda progress: tell(progress.done, _words(progress)),
        )
    _print(done)
    _print(f"report: {Path(out) / 'judge.html'}")


@app.command()
def curate(
    source: Source,
    recipe: Annotated[str, typer.Argument(help="Curators in a row, such as 'pass(cap=20)'.")],
    out: Annotated[
        str, typer.Option(help="Folder for curation.csv, audit.json, review.csv and curation.html.")
    ] = "kept",
    copy: Annotated[bool, typer.Option("--copy", help="Put the kept files there too, byte for byte.")] = False,
    labels: Labels = None,
    masks: Masks = None,
    budget: Annotated[
        str | None, typer.Option(help="Image passes (200k) or time (10m), for curators that train.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    encoder: EncoderName = "auto",
    weights: Weights = None,
    pretrained: Pretrained = False,
    size: Size = None,
    fit: Fit = "squash",
    cache: Cache = None,
    device: Device = "auto",
) -> None:
    """Keep the images that may be used and are wanted: a reason for each one that is gone, and an account."""
    import rushlight
    from rushlight.jobs.curate.run import curators

    curators(recipe, budget)
    data = _load(source, labels, masks, _small(source, size, device), fit, cache)
    with _progress("curating") as tell:
        done = rushlight.curate(
            data,
            recipe,
            out=out,
            copy=copy,
            budget=budget,
            seed=seed,
            encoder=encoder,
            weights=weights,
            pretrained=pretrained,
            device=device,
            command=_command(),
            on_progress=lambda progress: tell(progress.done, _words(progress)),
        )
    _print(done)
    _print(f"report: {Path(out) / 'curation.html'}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="The folder of a model.")],
    out: Annotated[str | None, typer.Option(help="The file; by default model.onnx in the model's folder.")] = None,
    format: Annotated[str, typer.Option(help="onnx.")] = "onnx",
) -> None:
    """Write a model as ONNX, checked against PyTorch."""
    from rushlight import api
    from rushlight.core.errors import UserError

    if format != "onnx":
        raise UserError(f"--format {format}: onnx is the one that is known")
    target = Path(out) if out else Path(model) / "model.onnx"
    difference = api.export(model, target)
    _print(f"{target}: differs from PyTorch by at most {difference:.1g}")


@app.command("systems", hidden=True)
@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(metavar="[ID]", help="A method, for its whole card.")] = None,
    taxonomy: Annotated[
        bool, typer.Option("--taxonomy", help="Show how methods without labels are related, family by family.")
    ] = False,
) -> None:
    """List the methods, or show one."""
    import rushlight

    if taxonomy:
        from rushlight.jobs.catalogue.run import taxonomy as families
        from rushlight.present.table import terminal

        _print(terminal(families()))
    elif name is None:
        _print(rushlight.catalogue())
    else:
        _print(_card(name))


@app.command()
def replay(file: Annotated[str, typer.Argument(help="The replay.json that a failed trial left.")]) -> None:
    """Run again the one step of a trial whose loss was not finite, and say where it began."""
    from rushlight import api

    _print(api.replay(file))


@claims_app.callback(invoke_without_command=True)
def claims(context: typer.Context) -> None:
    """Show the ledger, or `run` one claim again."""
    if context.invoked_subcommand is None:
        import rushlight

        _print(rushlight.claims())


@claims_app.command("run")
def run_claim(
    name: Annotated[str, typer.Argument(metavar="ID", help="The system whose claim is run.")],
    workers: Annotated[int | None, typer.Option(help="Seeds side by side; by default one a core.")] = None,
) -> None:
    """Run a claim over all its seeds and write its entry into the ledger."""
    from rushlight.jobs.claims import run as ledger

    claim = ledger.load(name)
    with _progress(f"{claim.id}, {claim.seeds} seeds") as tell:
        done: list[int] = []

        def count(seed: int, outcome: dict[str, float]) -> None:
            done.append(seed)
            tell(len(done) / claim.seeds, ", ".join(f"{e.name} {outcome[e.name]:+.3g}" for e in claim.effects))

        entry = ledger.run(name, workers=workers, on_seed=count)
    for effect in entry["effects"]:
        interval = f"{effect['mean']:+.3g} {effect['unit']} ({effect['low']:+.3g} … {effect['high']:+.3g})"
        _print(f"{effect['verdict']:>8}: {effect['says']}: {interval}")


@claims_app.command("judge")
def judge_claims() -> None:
    """Judge all recorded values again, by the claims as they stand: for notes written after a run."""
    from rushlight.jobs.claims import run as ledger

    for name in ledger.ledger():
        _print(f"{ledger.judge_again(name)['verdict']:>8}: {name}")


# What is shown --------------------------------------------------------------------------------------------------------


def _print(what: Any) -> None:
    from rich.console import Console

    Console(soft_wrap=isinstance(what, str), markup=not isinstance(what, str), highlight=False).print(what)


def _command() -> str:
    import shlex

    return "rushlight " + shlex.join(argument for argument in sys.argv[1:] if argument != "--debug")


def _words(progress: Progress) -> str:
    return f"{progress.stage}  " + "  ".join(f"{name} {value:.3g}" for name, value in progress.logged.items())


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    """A bar on the terminal; `tell(share, words)` moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, TextColumn("{task.fields[words]}"), console=console, transient=True) as bar:
        task = bar.add_task(what, total=1.0, words="")
        yield lambda share, words: bar.update(task, completed=share, words=words)


@contextmanager
def _live() -> Iterator[Any]:
    """The comparison as it runs: trial i of n, the leaderboard so far, time left."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live(console=console, transient=True, refresh_per_second=2) as live:
        yield lambda state: live.update(_panel(state))


def _panel(state: ComparisonState) -> Any:
    import time

    from rich.console import Group
    from rich.padding import Padding
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    share, seconds = state.share, time.monotonic() - state.started
    here = share - state.resumed / max(len(state.trials), 1)
    passes = sum(result.spent.passes for result in state.results)
    head = f"{len(state.results)} of {len(state.trials)} trials  {share:.0%}  {passes:,.0f} image passes spent"
    head += f"  about {seconds * (1 - share) / here / 60:.0f} min left" if here > 0 and seconds > 5 else ""
    shown = [Text(line, no_wrap=True, overflow="ellipsis") for line in _under_way(state)]
    return Group(Text(head), Padding(ProgressBar(total=1.0, completed=share, width=60), 0), *shown, *_so_far(state))


def _under_way(state: ComparisonState) -> list[str]:
    """A line a trial: its stage, how far it is, and what it logged last."""
    return [f"  {progress.done:4.0%}  {_words(progress)}" for progress in state.under_way.values()]


def _so_far(state: ComparisonState) -> list[Any]:
    """The leaderboard over the seeds that every recipe has finished."""
    from rushlight.jobs.compare.result import so_far
    from rushlight.present.table import terminal

    table = so_far(state)
    return [] if table is None else [terminal(table, heading=False)]


def _card(name: str) -> Any:
    from rushlight.core.catalogue import load_method
    from rushlight.jobs.catalogue.result import Method

    kind: Any = load_method(name)
    return Method(kind.card)


if __name__ == "__main__":
    main()
