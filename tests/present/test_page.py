"""The page is whole, silent, and shows what users named as text and nothing else."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from rushlight.core.errors import UserError
from rushlight.present import plots
from rushlight.present.page import (
    Commands,
    FactSheet,
    Gallery,
    Listing,
    Named,
    Notice,
    Plot,
    Plots,
    Report,
    Section,
    Strip,
    Table,
    Text,
    Thumb,
    render,
    write,
)

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "{{ 7 * 7 }}{% raw %}",
    "$\\frac{1}{0}$ </svg></style>",
    "javascript:alert(1)",
    "line\nbreak\x00\x1b[31m\u202e",
    "日本語 📷",
]
VOID = {"meta", "img", "link", "br", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; complains of tags that do not nest."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def assert_silent(page: Page) -> None:
    """Nothing runs, and nothing is fetched."""
    assert not {"script", "iframe", "object", "embed", "link", "form", "base"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "action", "srcset"):
            assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value)
        assert "url(" not in value or "url(#" in value
    policy = next(value for tag, name, value in page.attributes if tag == "meta" and "default-src" in value)
    assert policy.startswith("default-src 'none'")


def sample(name: str) -> Report:
    strip = Strip(plots.strip(1, 0, 2, (0, 3)))
    drawing = Plot(plots.learning_curves({name: [[(0, 0.1), (9, 0.4)]]}), name, name, [(name, "s0")])
    picture = "data:image/png;base64,iVBORw0KGgo="
    blocks = [
        Text(name),
        Text(name, quiet=True),
        Notice(name),
        Table([name, name, ""], [[Named(name, "s1", name), name, strip]], name, name, numeric=[1], lead=[0]),
        drawing,
        Plots([drawing, drawing]),
        Gallery([Thumb(picture, name, [name, name])], name),
        FactSheet({name: name}),
        Listing(name, [(name, name)]),
        Commands([name]),
    ]
    return Report(name, name, [Section(name, blocks, name)], name, [(name, name)], name)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_as_text_and_nothing_else(name):
    page = Page(render(sample(name)))
    assert_silent(page)
    assert page.text.count(plots.printable(name)) >= 25
    tame = Page(render(sample("tame")))
    assert page.tags == tame.tags, "a name made or swallowed an element"
    assert not any(c in page.text for c in "\x00\x1b")


def test_empty_sections_are_left_out():
    page = render(Report("t", "v", [Section("here", [Text("x")]), Section("nowhere", [])]))
    assert "here" in page
    assert "nowhere" not in page


def test_ids_are_unique_and_links_lead_somewhere():
    page = Page(render(sample("x")))
    here = [value for tag, name, value in page.attributes if name == "id" and tag in ("section", "h2")]
    assert len(here) == len(set(here))
    targets = {v[1:] for tag, name, v in page.attributes if tag == "a" and name == "href"}
    assert targets
    assert targets <= set(here)


def test_pictures_and_drawings_have_words():
    page = Page(render(sample("x")))
    assert page.tags.count("img") == sum(tag == "img" and name == "alt" and v != "" for tag, name, v in page.attributes)
    drawings = page.tags.count("svg")
    assert drawings == sum(tag == "svg" and name == "aria-label" and v != "" for tag, name, v in page.attributes)


def test_it_follows_light_dark_paper_and_phone():
    page = render(sample("x"))
    for part in (
        "prefers-color-scheme: dark",
        "@media print",
        "max-width: 40rem",
        'name="viewport"',
        '<html lang="en">',
    ):
        assert part in page


def test_the_same_report_is_the_same_page():
    assert render(sample("x")) == render(sample("x"))


def test_write_replaces_whole(tmp_path: Path):
    path = tmp_path / "deep" / "report.html"
    write(sample("first"), path)
    write(sample("second"), path)
    assert path.read_text() == render(sample("second"))
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"report\.html"):
        write(sample("x"), tmp_path / "file" / "report.html")
