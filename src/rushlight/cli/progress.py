"""How far a command is: a bar on a terminal; elsewhere a plain line a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rushlight.jobs.trials import ComparisonState
    from rushlight.run.stage import Progress

EVERY = 60.0
"""Seconds between plain lines."""


def words(progress: Progress) -> str:
    """Return a stage and the values it logged last."""
    return "  ".join([progress.stage, *(f"{name} {value:.3g}" for name, value in progress.logged.items())])


def on_terminal() -> bool:
    """Return whether the output goes to a terminal."""
    return sys.stderr.isatty()


def plain() -> Callable[[str], None]:
    """Return a function that prints what it gets, at most once a minute."""
    last = time.monotonic()

    def tell(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            print(line, file=sys.stderr, flush=True)

    return tell


@contextmanager
def bar(what: str) -> Iterator[Callable[[float, str], None]]:
    """Show how far something is; the caller yields the share that is done, and a few words."""
    if not on_terminal():
        tell = plain()
        yield lambda share, said: tell(f"{what}: {share:.0%}  {said}".rstrip())
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"),
               TimeRemainingColumn(), TextColumn("{task.fields[words]}"))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=1.0, words="")
        yield lambda share, said: shown.update(task, completed=share, words=said)


@contextmanager
def comparison() -> Iterator[Callable[[ComparisonState], None]]:
    """Show a comparison as it runs: its trials, the leaderboard so far, the time left."""
    if not on_terminal():
        tell = plain()
        yield lambda state: tell(head(state))
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), transient=True, refresh_per_second=2) as live:
        yield lambda state: live.update(panel(state))


def head(state: ComparisonState) -> str:
    """Return in a line how far a comparison is."""
    share, seconds = state.share, time.monotonic() - state.started
    here = share - state.resumed / max(len(state.trials), 1)
    passes = sum(result.spent.passes for result in state.results)
    said = f"{len(state.results)} of {len(state.trials)} trials  {share:.0%}  {passes:,.0f} image passes spent"
    left = f"  about {seconds * (1 - share) / here / 60:.0f} min left" if here > 0 and seconds > 5 else ""
    return said + left


def panel(state: ComparisonState) -> Any:
    """Return what a terminal shows: the line, a bar, one line per trial under way, and the leaderboard so far."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    from rushlight.jobs.compare.result import so_far
    from rushlight.present.table import terminal

    under_way = [f"  {progress.done:4.0%}  {words(progress)}" for progress in state.under_way.values()]
    shown = [Text(line, no_wrap=True, overflow="ellipsis") for line in under_way]
    board = so_far(state)
    tables = [terminal(board, heading=False)] if board is not None else []
    bar = Padding(ProgressBar(total=1.0, completed=state.share, width=60), 0)
    return Group(Text(head(state)), bar, *shown, *tables)
