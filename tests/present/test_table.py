"""One table in four places: the same words in each."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from rushlight.core.findings import Findings, Measure, Table
from rushlight.present import table as tables
from rushlight.present.findings import figures, overview, sections, verdict
from rushlight.present.page import Named, Report, Strip, render
from rushlight.present.shown import Shown

TABLE = Table.of(
    "scores",
    {
        "recipe": ["a[b] > c", "<b>d</b>"],
        "recall": [0.9, 0.25],
        "low": [0.8, float("nan")],
        "high": [0.95, 0.3],
        "seeds": [5, 1234],
        "row": [3, 4],
    },
    kinds={"recall": "share", "low": "share", "high": "share"},
    intervals={"recall": ("low", "high")},
    hidden=("row",),
    lead=frozenset({0}),
)


def on_terminal(what: object, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(what)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0.5, "share", "50.0"),
        (-0.012, "points", "−1.2"),
        (1234, "count", "1,234"),
        (0.123456, "number", "0.1235"),
        (float("nan"), "share", "—"),
        (None, "number", ""),
        (True, "text", "yes"),
        ("x", "share", "x"),
    ],
)
def test_values_are_written_by_their_kind(value: object, kind: str, text: str) -> None:
    assert tables.written(value, kind) == text


def test_terminal_notebook_and_page_say_the_same() -> None:
    page = render(Report("t", "v", sections=[sections([Findings("j", tables=(TABLE,))])[0]]))
    for shown in (on_terminal(tables.terminal(TABLE)), tables.html(TABLE), page):
        for text in ("recall %", "95 % interval", "80.0 … 95.0", "25.0", "1,234"):
            assert text in shown
    assert "<b>d</b>" not in tables.html(TABLE)
    assert "<b>d</b>" not in page
    assert "a[b] > c" in on_terminal(tables.terminal(TABLE))


def test_a_page_draws_intervals_on_one_axis() -> None:
    block = tables.page(TABLE, colours={"<b>d</b>": "s3"}, badges={"a[b] > c": "best"})
    assert block.columns == ["recipe", "recall %", "", "95 % interval", "seeds"]
    assert block.rows[0][0] == Named("a[b] > c", "", "best")
    assert isinstance(block.rows[0][2], Strip)
    assert block.rows[1][2:4] == ["", ""]  # one end is not known
    assert block.numeric == [1, 3, 4]
    assert block.lead == [0]


def test_a_page_shows_the_first_rows_and_a_file_all() -> None:
    long = Table.of("long", {"x": list(range(100))}, shown=7)
    block = tables.page(long)
    assert len(block.rows) == 7
    assert "first 7 of 100 rows" in block.caption
    rows = list(csv.DictReader(io.StringIO(tables.csv(long))))
    assert [row["x"] for row in rows] == [str(i) for i in range(100)]


def test_a_file_holds_hidden_columns_and_whole_numbers() -> None:
    rows = list(csv.DictReader(io.StringIO(tables.csv(TABLE))))
    assert rows[0]["row"] == "3"
    assert float(rows[0]["recall"]) == 0.9


def test_a_table_too_wide_for_a_terminal_is_a_sentence() -> None:
    wide = Table.of("wide", {str(i): [i] for i in range(40)})
    assert "too wide" in on_terminal(tables.terminal(wide))


@pytest.mark.parametrize("width", [120, 80, 60, 40])
def test_a_narrow_terminal_breaks_no_interval_and_names_what_it_leaves_out(width: int) -> None:
    recipe = "barlow-twins(batch=64) > supervised(layer_decay=0.65)"
    values = {"recipe": [recipe], "accuracy": [0.5], "low": [0.4], "high": [0.612], "gain": [0.1], "gain_low": [-0.02]}
    shares = dict.fromkeys(("accuracy", "low", "high"), "share") | dict.fromkeys(("gain", "gain_low", "top"), "points")
    ends = {"accuracy": ("low", "high"), "gain": ("gain_low", "top")}
    table = Table.of("t", {**values, "top": [0.2], "seconds": [1234]}, kinds=shares, intervals=ends)
    said = on_terminal(tables.terminal(table), width)
    assert all(len(line) <= width for line in said.splitlines())
    assert ("40.0 … 61.2" in said) == (width > 40)
    assert ("−2.0 … +20.0" in said) == (width >= 80)
    assert ("no room here for" in said) == (width < 120)
    assert ("1,234" in said) != ("seconds" in said.partition("no room")[2])


@pytest.mark.parametrize(
    ("measure", "text"),
    [
        (Measure("a", 0.5, 0.4, 0.6, kind="share"), "50.0 % (95 % interval 40.0 to 60.0)"),
        (Measure("a", 0.1, high=0.3, kind="share"), "10.0 % (at most 30.0)"),
        (Measure("a", -0.1, kind="points"), "−10.0 points"),
        (Measure("a", 2.5, unit="nats", remark="per image"), "2.5 nats (per image)"),
    ],
)
def test_measures_are_said_with_their_interval(measure: Measure, text: str) -> None:
    assert tables.said(measure) == text


FOUND = [
    Findings("b", (Measure("y", 3.0, figure="of y"),), headline="mIoU 3 % here", priority=2),
    Findings("a", (Measure("x", 0.5, kind="share", figure="of x"),), headline="x is half", title="T", priority=5),
    Findings("c", notes=("Note.",), warnings=("Mind this.",), title="T", priority=9),
]


def test_a_verdict_joins_headlines_by_priority() -> None:
    assert verdict(FOUND) == "mIoU 3 % here; x is half."
    assert verdict([]) == ""
    many = [Findings(str(i), headline=f"part {i}", priority=-i) for i in range(9)]
    assert verdict(many) == "Part 8; part 7; part 6; part 5."


def test_sections_go_by_title_and_priority() -> None:
    found = sections(FOUND)
    assert [section.title for section in found] == ["b", "T"]
    assert [block.kind for block in found[1].blocks] == ["facts", "notice", "text"]
    assert figures(FOUND) == [("3", "of y"), ("50.0 %", "of x")]
    assert overview(FOUND)["what"] == ["y", "x"]


class Result(Shown):
    verdict = "It is <good>."

    def parts(self):
        return [TABLE, self.verdict, FOUND[2], Table.of("none", {})]


def test_a_result_shows_itself_alike_in_terminal_and_notebook() -> None:
    terminal, notebook = on_terminal(Result()), Result()._repr_html_()
    assert "It is <good>." in terminal
    assert "It is &lt;good&gt;." in notebook
    for shown in (terminal, notebook):
        assert "Mind this." in shown
        assert "recall %" in shown
        assert "none" not in shown
