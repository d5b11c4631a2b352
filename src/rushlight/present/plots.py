"""Drawings for the report: small SVG strings that live inside the page and follow its light or dark theme.

Matplotlib draws with stand-in colours, which become the page's CSS variables (`--ink`, `--s0` … `--s7`), so one
drawing serves both themes. Text stays text and takes the page's font. Names that users gave are never read as
mathematics or markup.
"""

from __future__ import annotations

import base64
import html
import io
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

SERIES = 8
"""Colours there are; more lines than this repeat them with dashes."""

_STAND_IN = {
    "ink": "#010101",
    "muted": "#020202",
    "grid": "#030303",
    "paper": "#040404",
    "good": "#050505",
    "bad": "#060606",
    **{f"s{i}": f"#0a0b{i:02x}" for i in range(SERIES)},
}

Number = float | int
Curve = Sequence[tuple[Number, Number]]


# --- drawn by hand: one row of a table ---


def strip(
    mean: Number, low: Number, high: Number, span: tuple[Number, Number], *, colour: str = "s0", zero: bool = False
) -> str:
    """Return an interval and its mean on an axis that all rows of a table share; `zero` marks 0 on it."""
    left, right, middle = (round(_along(x, span), 2) for x in (low, high, mean))
    mark = f'<line class="zero" x1="{_along(0, span):.2f}%" x2="{_along(0, span):.2f}%" y1="0" y2="22"/>'
    return (
        f'<svg class="strip" height="22" width="100%" role="img" aria-label="{low:.1f} to {high:.1f}" '
        f'style="color:var(--{colour})">{mark if zero and span[0] <= 0 <= span[1] else ""}'
        f'<line class="rail" x1="0%" x2="100%" y1="11" y2="11"/>'
        f'<line class="range" x1="{left}%" x2="{right}%" y1="11" y2="11"/>'
        f'<circle cx="{middle}%" cy="11" r="5"/></svg>'
    )


def span_of(values: Sequence[Number], *, zero: bool = False) -> tuple[Number, Number]:
    """Return a common axis for strips: the range of finite values (and 0), with a margin."""
    finite = [v for v in (*values, *([0.0] if zero else [])) if np.isfinite(v)] or [0.0]
    room = 0.06 * (max(finite) - min(finite)) or 1.0
    return min(finite) - room, max(finite) + room


def _along(x: Number, span: tuple[Number, Number]) -> float:
    return float(np.clip(100 * (x - span[0]) / (span[1] - span[0]), 0, 100))


# --- lines ---


def learning_curves(
    curves: Mapping[str, Sequence[Curve]], *, metric: str = "accuracy", colours: Mapping[str, str] | None = None
) -> str:
    """Return a plot of the metric (%), mean and range over seeds, by image passes; `curves`: one curve per seed."""
    with _figure("curves") as (figure, axes):
        for i, (name, seeds) in enumerate(curves.items()):
            x, y = _aligned(seeds)
            if len(x):
                colour = _of(name, i, colours)
                axes.fill_between(x, 100 * y.min(0), 100 * y.max(0), color=colour, alpha=0.14, linewidth=0)
                axes.plot(x, 100 * y.mean(0), "-o", color=colour, markersize=3.5)
        axes.set(xlabel="image passes", ylabel=f"{metric} (%)")
        axes.xaxis.set_major_formatter(_short)
    return _svg(figure)


def _aligned(seeds: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Return several seeds' curves on common passes: (points,), (seeds, points)."""
    curves = [np.asarray(curve, dtype=float) for curve in seeds if len(curve)]
    if not curves:
        return np.empty(0), np.empty((0, 0))
    start, stop = max(c[0, 0] for c in curves), min(c[-1, 0] for c in curves)
    if start > stop:
        return np.empty(0), np.empty((0, 0))
    longest = max(curves, key=len)[:, 0]
    x = np.unique(np.clip(longest, start, stop))
    return x, np.stack([np.interp(x, c[:, 0], c[:, 1]) for c in curves])


def curves(
    lines: Mapping[str, tuple[Sequence[Number], Sequence[Number]]],
    x_label: str,
    y_label: str,
    *,
    colours: Mapping[str, str] | None = None,
    percent: tuple[bool, bool] = (False, False),
) -> str:
    """Return a plot of lines: name → (x, y). `percent` says whether x and y are shares, to be drawn times 100."""
    scale = [100 if share else 1 for share in percent]
    labels = [printable(label) + (" (%)" if share else "") for label, share in zip((x_label, y_label), percent)]
    with _figure("lines") as (figure, axes):
        for i, (name, points) in enumerate(lines.items()):
            x, y = (s * np.asarray(values, dtype=float) for s, values in zip(scale, points))
            style = "-o" if i < SERIES else "--o"
            axes.plot(x, y, style, color=_of(name, i, colours), markersize=3.5 if len(x) < 50 else 0)
        axes.set(xlabel=labels[0], ylabel=labels[1], **({"ylim": (-2, 102)} if percent[1] else {}))
        axes.xaxis.set_major_formatter(_short)
        axes.yaxis.set_major_formatter(_short)
    return _svg(figure)


def spectrum(
    lines: Mapping[str, tuple[Sequence[Number], Sequence[Number]]], *, colours: Mapping[str, str] | None = None
) -> str:
    """Return a plot of singular values as shares of the largest, on a log axis: name → (number by size, share)."""
    with _figure("spectrum") as (figure, axes):
        for i, (name, (k, values)) in enumerate(lines.items()):
            shares, colour = np.maximum(np.asarray(values, dtype=float), 1e-12), _of(name, i, colours)
            axes.fill_between(k, shares, shares.min(), color=colour, alpha=0.14 / len(lines), linewidth=0)
            axes.plot(k, shares, color=colour)
        axes.set(xlabel="singular value, by size", ylabel="share of the largest", yscale="log")
        axes.yaxis.set_major_formatter(_short)  # the usual one writes mathematics, which is not parsed here
        axes.minorticks_off()
    return _svg(figure)


def reliability(confidence: Sequence[Number], right: Sequence[Number], counts: Sequence[int]) -> str:
    """Return a plot of how often the model is right (%) per bin of confidence; below the diagonal: over-confidence."""
    x, heights = 100 * np.asarray(confidence, dtype=float), 100 * np.asarray(right, dtype=float)
    width = 0.92 * min(10.0, *np.diff(np.sort(x))) if len(x) > 1 else 9.0
    with _figure("reliability") as (figure, axes):
        axes.bar(x, heights, width, color=_c("s0"), alpha=0.55, linewidth=0)
        axes.plot([0, 100], [0, 100], color=_c("muted"), linestyle=(0, (4, 4)), linewidth=1)
        for at, y, n in zip(x, heights, counts):
            axes.text(at, min(y + 2, 96), _short(int(n)), ha="center", fontsize=6.5, color=_c("muted"))
        axes.set(xlabel="confidence (%)", ylabel="right (%)", xlim=(0, 100), ylim=(0, 104))
    return _svg(figure)


# --- points and squares ---


def cost(
    points: Mapping[str, tuple[Number, Number, Number, Number]],
    *,
    metric: str = "accuracy",
    unit: str = "seconds a trial",
    colours: Mapping[str, str] | None = None,
) -> str:
    """Return a plot of cost against the metric (%), with its interval. `points`: name → (cost, mean, low, high)."""
    with _figure("cost") as (figure, axes):
        for i, (name, (spent, mean, low, high)) in enumerate(points.items()):
            colour = _of(name, i, colours)
            axes.plot([spent, spent], [100 * low, 100 * high], color=colour, linewidth=2, alpha=0.5)
            axes.plot([spent], [100 * mean], "o", color=colour, markersize=7)
        axes.set(xlabel=unit, ylabel=f"{metric} (%)")
        axes.set_xlim(left=0, right=1.12 * max((p[0] for p in points.values()), default=1) or 1)
        axes.xaxis.set_major_formatter(_short)
    return _svg(figure)


def confusion(counts: Int[np.ndarray, "classes classes"], names: Sequence[str], *, most: int = 20) -> str:
    """Return a confusion matrix: rows are true classes, columns predictions; the shade is the share of the row. Beyond
    `most` classes, the most mistaken ones are shown."""
    counts = np.asarray(counts)
    shown = _most_mistaken(counts, most)
    share = counts[np.ix_(shown, shown)] / np.maximum(counts[shown].sum(1, keepdims=True), 1)
    labels = [shorten(names[i] if i < len(names) else str(i), 14) for i in shown]
    k, side = len(shown), max(3.6, 0.34 * len(shown) + 1.2)
    with _figure("confusion", size=(side + 0.35, side)) as (figure, axes):
        for row, column in np.ndindex(k, k):
            _cell(axes, row, column, float(share[row, column]), small=k > 12)
        axes.set(xlim=(0, k), ylim=(k, 0), xlabel="predicted", ylabel="true", aspect="equal")
        axes.set_xticks(np.arange(k) + 0.5, labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(np.arange(k) + 0.5, labels)
        axes.grid(False)
        axes.tick_params(length=0, pad=3)
        axes.spines[:].set_visible(False)
    return _svg(figure)


def _cell(axes: Any, row: int, column: int, share: float, *, small: bool) -> None:
    from matplotlib.patches import Rectangle

    colour = _c("s0" if row == column else "bad")
    strength = share if row == column else min(1.0, 2 * share)
    axes.add_patch(Rectangle((column + 0.03, row + 0.03), 0.94, 0.94, facecolor=_c("grid"), alpha=0.35, linewidth=0))
    if share > 0:
        axes.add_patch(
            Rectangle((column + 0.03, row + 0.03), 0.94, 0.94, facecolor=colour, alpha=float(strength), linewidth=0)
        )
    if share >= 0.005:
        ink = _c("paper" if strength > 0.55 else "ink")
        axes.text(
            column + 0.5,
            row + 0.53,
            f"{100 * share:.0f}",
            ha="center",
            va="center",
            fontsize=6 if small else 7.5,
            color=ink,
        )


def _most_mistaken(counts: np.ndarray, most: int) -> np.ndarray:
    if len(counts) <= most:
        return np.arange(len(counts))
    wrong = counts.sum(1) + counts.sum(0) - 2 * np.diag(counts)
    return np.sort(np.argsort(-wrong, kind="stable")[:most])


# --- pictures ---


def thumbnail(image: UInt8[np.ndarray, "..."], *, largest: int = 96) -> str:
    """Return a PNG data URI of an image, channels first (3×H×W or 1×H×W), channels last, or grey (H×W)."""
    from PIL import Image

    image = np.asarray(image)
    if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[-1] not in (1, 3):
        image = np.moveaxis(image, 0, -1)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim == 3 and (image[..., :1] == image).all():
        image = image[..., 0]
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


MAP = (1000, 720)
"""Width and height of an atlas."""
PICTURE, LARGEST = 30, 72
"""The side of a picture on it, at least and at most."""


def side(places: int) -> int:
    """Return the side of a picture among this number of places: the fewer, the larger."""
    return int(np.clip(np.sqrt(MAP[0] * MAP[1] / max(4 * places, 1)), PICTURE, LARGEST))


def on_map(places: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Return where places (x and y in [0, 1]) are drawn on a map, its pictures inside."""
    size = side(len(places))
    return size * 0.6 + places * (np.array(MAP) - size * 1.2)


def atlas(
    places: Float[np.ndarray, "n 2"],
    pictures: Mapping[int, UInt8[np.ndarray, "3 height width"]],
    colours: Sequence[str],
    names: Sequence[str] = (),
) -> str:
    """Return a map: a dot at each place (x and y in [0, 1]), or a framed picture where there is one; one colour per
    place, and a name that shows when the pointer is on it. On a narrow page the map scrolls sideways."""
    from markupsafe import escape

    def title(i: int) -> str:
        return f"<title>{escape(names[i])}</title>" if names else ""

    at, size = on_map(places), side(len(places))
    marks = [
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4" fill="var(--{colours[i]})" opacity=".6">{title(i)}</circle>'
        for i, (x, y) in enumerate(at)
        if i not in pictures
    ]
    for i, image in pictures.items():
        x, y = at[i] - size / 2
        place = f'x="{x:.0f}" y="{y:.0f}" width="{size}" height="{size}"'
        frame = f'<rect {place} rx="4" fill="none" stroke="var(--{colours[i]})" stroke-width="2.5"/>'
        marks.append(f'<g>{title(i)}<image {place} href="{thumbnail(image, largest=size)}"/>{frame}</g>')
    opening = f'<svg class="plot" role="img" aria-label="atlas" viewBox="0 0 {MAP[0]} {MAP[1]}">'
    return '<div class="scroll map" tabindex="0">' + opening + "".join(marks) + "</svg></div>"


# --- how they are made ---


def shorten(text: str, most: int = 40) -> str:
    """Return the text printable, on one line, and no longer than `most` characters."""
    text = printable(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def printable(text: str) -> str:
    """Return the text without control, private and unpaired characters, which a page cannot hold."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in {"Cc", "Cs", "Co", "Cn"} else c for c in text
    )


def series(names: Sequence[str]) -> dict[str, str]:
    """Return one colour per name, the same in every drawing of a report."""
    return {name: f"s{i % SERIES}" for i, name in enumerate(names)}


def _of(name: str, index: int, colours: Mapping[str, str] | None) -> str:
    return _c((colours or {}).get(name, f"s{index % SERIES}"))


def _c(name: str) -> str:
    return _STAND_IN[name]


def _short(x: Number, _: object = None) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:.3g}{unit}"
    return f"{x:.3g}"


_LOOK: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": _STAND_IN["grid"],
    "axes.labelcolor": _STAND_IN["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": _STAND_IN["grid"],
    "grid.linewidth": 0.6,
    "text.color": _STAND_IN["ink"],
    "xtick.color": _STAND_IN["grid"],
    "ytick.color": _STAND_IN["grid"],
    "xtick.labelcolor": _STAND_IN["muted"],
    "ytick.labelcolor": _STAND_IN["muted"],
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}


@contextmanager
def _figure(name: str, size: tuple[float, float] = (4.4, 3.0)) -> Iterator[tuple[Any, Any]]:
    """Yield a figure in the report's look, without a window or global state (pyplot is not used)."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**_LOOK, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        figure.set_label(name)
        yield figure, figure.subplots()
        figure._rushlight_svg = _drawn(figure)  # type: ignore[attr-defined]


def _svg(figure: Any) -> str:
    return figure._rushlight_svg


def _drawn(figure: Any) -> str:
    file = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _themed(file.getvalue(), str(figure.get_label()))


def _themed(svg: str, name: str) -> str:
    """Return the bare <svg> element, with CSS variables for colours, without what repeats from figure to figure."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r' id="(?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib\.axis|[A-Za-z]*Collection)_\d+"', "", svg
    )
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    for variable, stand_in in _STAND_IN.items():
        svg = svg.replace(stand_in, f"var(--{variable})")
    width = float(re.findall(r'viewBox="0 0 ([\d.]+)', svg)[0]) * 1.34
    opening = f'<svg class="plot" role="img" aria-label="{html.escape(name)}" style="max-width:{width:.0f}px"'
    svg = re.sub(r'<svg( xmlns:xlink="[^"]*") width="[^"]*" height="[^"]*"', rf"{opening}\1", svg, count=1)
    return re.sub(r"\n\s*", "\n", svg).strip()
