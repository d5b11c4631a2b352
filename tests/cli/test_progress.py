"""What is said of a command under way: on a terminal at once, elsewhere a plain line a minute."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from rushlight.cli import progress
from rushlight.jobs.trials import ComparisonState
from rushlight.run.budget import Spent
from rushlight.run.stage import Progress
from rushlight.run.trial import Result, Trial

TRIALS = [Trial(recipe="supervised", seed=seed, budget="1k", data="", task="class") for seed in range(2)]


def state(seconds: float = 0.0, resumed: int = 0) -> ComparisonState:
    """One of two trials is done, and half of the other."""
    parts = {"predicted": torch.tensor([0, 1]), "true": torch.tensor([0, 0])}
    done = Result(TRIALS[0], 0.5, parts, [], Spent(passes=1234.0))
    under_way = {TRIALS[1].key: Progress("supervised", 0.5, {"loss": 0.25})}
    return ComparisonState(TRIALS, [done], under_way, time.monotonic() - seconds, resumed)


def test_a_stage_is_told_with_its_latest_values() -> None:
    assert progress.words(Progress("fixmatch", 0.1, {"loss": 0.123456, "kept": 1.0})) == "fixmatch  loss 0.123  kept 1"


def test_without_a_terminal_a_line_a_minute_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(progress, "on_terminal", lambda: False)
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.bar("training") as tell:
        for now in (1030.0, 1060.0, 1090.0, 1121.0):
            tell((now - 1000) / 200, "")
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["training: 30%", "training: 60%"]
    assert printed.out == ""


def test_on_a_terminal_a_bar_moves(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with progress.bar("training") as tell:
        tell(0.25, "loss 0.5")
    shown = capsys.readouterr().err
    assert "25 %" in shown
    assert "loss 0.5" in shown


def test_a_comparison_says_what_is_done_and_what_it_cost() -> None:
    assert progress.head(state()) == "1 of 2 trials  75%  1,234 image passes spent"


@pytest.mark.parametrize(("resumed", "minutes"), [(0, 2), (1, 6)])
def test_the_time_left_follows_from_what_this_run_has_done(resumed: int, minutes: int) -> None:
    """In 6 minutes three quarters were done, or one quarter where an earlier run had done the rest."""
    assert progress.head(state(360, resumed)).endswith(f"about {minutes} min left")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_comparison_is_shown_as_it_runs(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(progress, "on_terminal", lambda: terminal)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with progress.comparison() as tell:
        tell(state())
    assert "1 of 2 trials" in capsys.readouterr().err


def test_the_panel_has_a_line_a_trial_under_way_and_the_leaderboard_so_far() -> None:
    lines = shown(state())
    assert lines[0].startswith("1 of 2 trials")
    assert "   50%  supervised  loss 0.25" in lines
    assert any({"supervised", "50.0"} <= set(line.split()) for line in lines), lines
    nothing_yet = replace(state(), results=[])
    assert shown(nothing_yet)[-1] == "   50%  supervised  loss 0.25"


def shown(now: ComparisonState) -> list[str]:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(progress.panel(now))
    return [line.rstrip() for line in captured.get().splitlines()]
