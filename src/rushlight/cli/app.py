"""The command line: each command is one call of the public functions.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rushlight.cli.commands.audit import audit
from rushlight.cli.commands.claims import claims_app
from rushlight.cli.commands.compare import compare
from rushlight.cli.commands.curate import curate
from rushlight.cli.commands.export import export
from rushlight.cli.commands.fit import fit
from rushlight.cli.commands.judge import judge
from rushlight.cli.commands.look import look
from rushlight.cli.commands.methods import methods
from rushlight.cli.commands.predict import predict
from rushlight.cli.commands.replay import replay

app = typer.Typer(
    help="Teach vision models to see from few, partial, noisy or missing labels; and know how far to trust them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for one in (look, compare, fit, predict, audit, judge, curate, export, methods, replay):
    app.command()(one)
app.command("systems", hidden=True)(methods)  # the name of the first edition
app.add_typer(claims_app, name="claims", invoke_without_command=True)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        from rushlight import __version__

        print(f"rushlight {__version__}")
        raise typer.Exit


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
        print("rushlight: interrupted; run the same command to resume", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if debug:
            raise
        first = str(error).splitlines()[0] if str(error) else ""
        print(
            f"rushlight: {type(error).__name__}: {first} (this should not happen; --debug shows where)",
            file=sys.stderr,
        )
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
