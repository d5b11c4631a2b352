"""`rushlight claims`: the ledger, and its claims run again."""

from __future__ import annotations

from typing import Annotated

import typer

from rushlight.cli import options, progress
from rushlight.cli.show import show

claims_app = typer.Typer(help="The ledger: does each paper's headline claim hold in a small experiment?")


@claims_app.callback(invoke_without_command=True)
def claims(context: typer.Context) -> None:
    """Show the ledger, or `run` one claim again."""
    if context.invoked_subcommand is None:
        import rushlight

        show(rushlight.claims())


@claims_app.command("run")
def run_claim(
    name: Annotated[str, typer.Argument(metavar="ID", help="The method whose claim is run.")],
    workers: options.Workers = None,
) -> None:
    """Run a claim over all its seeds and write its entry into the ledger."""
    from rushlight.jobs.claims import run as ledger

    claim = ledger.load(name)
    with progress.bar(f"{claim.id}, {claim.seeds} seeds") as tell:
        done: list[int] = []

        def count(seed: int, outcome: dict[str, float]) -> None:
            done.append(seed)
            tell(len(done) / claim.seeds, ", ".join(f"{e.name} {outcome[e.name]:+.3g}" for e in claim.effects))

        entry = ledger.run(name, workers=workers, on_seed=count)
    for effect in entry["effects"]:
        interval = f"{effect['mean']:+.3g} {effect['unit']} ({effect['low']:+.3g} … {effect['high']:+.3g})"
        show(f"{effect['verdict']:>8}: {effect['says']}: {interval}")


@claims_app.command("judge")
def judge_claims() -> None:
    """Judge all recorded values again, by the claims as they stand: for notes written after a run."""
    from rushlight.jobs.claims import run as ledger

    for name in ledger.ledger():
        show(f"{ledger.judge_again(name)['verdict']:>8}: {name}")
