"""Drawings: well-formed, themed, and true to their numbers."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rushlight.present import plots

HOSTILE = "<b>&\"'$x^2$\x00 日本"
RNG = np.random.default_rng(0)
DRAWINGS = {
    "curves": lambda: plots.learning_curves({HOSTILE: [[(0, 0.1), (50, 0.5)], [(0, 0.2), (60, 0.4)]], "empty": [[]]}),
    "no curves": lambda: plots.learning_curves({"a": []}),
    "lines": lambda: plots.curves({HOSTILE: ([0, 2, 8], [0.9, 0.5, 0.1])}, HOSTILE, "y", percent=(False, True)),
    "spectrum": lambda: plots.spectrum({HOSTILE: ([1, 2, 3], [1.0, 0.6, 0.0])}),
    "reliability": lambda: plots.reliability([0.1, 0.5, 0.9], [0.2, 0.5, 0.6], [3, 4, 5000]),
    "one bin": lambda: plots.reliability([0.5], [0.2], [3]),
    "cost": lambda: plots.cost({HOSTILE: (60.0, 0.8, 0.7, 0.85), "b": (0.0, 0.7, 0.6, 0.8)}),
    "no cost": lambda: plots.cost({}),
    "confusion": lambda: plots.confusion(np.arange(9).reshape(3, 3), [HOSTILE, "b"]),
    "empty confusion": lambda: plots.confusion(np.zeros((2, 2), dtype=int), ["a", "b"]),
    "strip": lambda: plots.strip(1.0, 0.0, 2.0, (-1.0, 3.0), zero=True),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawings_are_well_formed_and_take_the_pages_colours(name):
    svg = DRAWINGS[name]()
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label")
    if name != "strip":
        assert "var(--" in svg
    left = set(re.findall(r"#[0-9a-f]{6}(?![0-9a-f])", svg)) - set(re.findall(r'href="(#[^"]*)"', svg))
    assert not left, "a colour that no theme changes"
    assert "font-family" not in svg
    assert svg == DRAWINGS[name](), "the same numbers give the same drawing"


def test_names_in_drawings_are_text():
    root = ElementTree.fromstring(DRAWINGS["confusion"]())
    words = " ".join(e.text or "" for e in root.iter() if e.tag.endswith("text"))
    assert plots.shorten(HOSTILE, 14) in words


def test_curves_are_drawn_over_the_passes_that_all_seeds_share():
    x, y = plots._aligned([[(0, 0.0), (10, 1.0)], [(2, 0.2), (8, 0.8), (12, 1.2)]])
    assert x.min() == 2
    assert x.max() == 10
    np.testing.assert_allclose(y, np.stack([x / 10] * 2))


def test_confusion_shares_are_those_of_the_rows():
    root = ElementTree.fromstring(plots.confusion(np.array([[3, 1], [0, 5]]), ["a", "b"]))
    words = [e.text for e in root.iter() if e.tag.endswith("text")]
    assert {"75", "25", "100"} <= set(words)


def test_many_classes_show_the_most_mistaken():
    counts = np.eye(30, dtype=int) * 9
    counts[3, 17] = 5
    shown = plots._most_mistaken(counts, 4)
    assert {3, 17} <= set(shown)
    assert len(shown) == 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=3, max_size=3), st.booleans())
def test_strips_keep_the_order_of_their_numbers(values, zero):
    low, mean, high = sorted(values)
    svg = plots.strip(mean, low, high, plots.span_of([low, high], zero=zero), zero=zero)
    start = float(re.search(r'class="range" x1="([\d.]+)%', svg)[1])
    stop = float(re.search(r'class="range" x1="[\d.]+%" x2="([\d.]+)%', svg)[1])
    middle = float(re.search(r'cx="([\d.]+)%', svg)[1])
    assert 0 <= start <= middle <= stop <= 100
    assert ('class="zero"' in svg) == zero


@pytest.mark.parametrize("shape", [(3, 8, 9), (1, 8, 9), (8, 9), (8, 9, 3), (3, 8, 3)])
def test_thumbnails_are_the_image(shape):
    image = RNG.integers(0, 256, shape).astype(np.uint8)
    uri = plots.thumbnail(image)
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))
    expected = np.moveaxis(image, 0, -1) if shape in ((3, 8, 9), (1, 8, 9)) else image
    np.testing.assert_array_equal(decoded, expected.squeeze())


def test_large_images_become_small():
    uri = plots.thumbnail(np.zeros((3, 200, 400), dtype=np.uint8), largest=64)
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (64, 32)


@given(st.text(max_size=60))
@settings(max_examples=50, deadline=None)
def test_shortened_names_are_printable(text):
    short = plots.shorten(text, 20)
    assert len(short) <= 20
    short.encode()
    assert not any(ord(c) < 32 for c in short)
