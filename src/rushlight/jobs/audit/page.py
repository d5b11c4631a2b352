"""The page about an audit: how far a model can be trusted, where it errs, and which labels to look at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rushlight.jobs.audit.run import Audit
from rushlight.measure import judges
from rushlight.measure.mistakes import LIKELY
from rushlight.present import atlas, plots
from rushlight.present.page import (
    Block,
    Commands,
    FactSheet,
    Gallery,
    Listing,
    Notice,
    Plot,
    Plots,
    Report,
    Section,
    Strip,
    Table,
    Text,
    Thumb,
)
from rushlight.present.phrases import count, duration, footer, host, quarantine, versions
from rushlight.run.stage import Findings

SHOWN = 24
"""Thumbnails of a gallery."""
PAIRS = 12
"""Confusion pairs in the page; the audit itself holds more."""
ROWS = 40
"""Rows of a table of a judge that this page knows nothing of."""
OWN = ("accuracy", "calibration", "classes", "confusions", "label-mistakes", "fgsm-cw", "rankme")
"""Judges that have a place of their own on the page; any other gets its numbers, tables and notes."""


def audit_report(audit: Audit) -> Report:
    """The report of a finished audit."""
    others = [found for found in audit.findings if found.judge not in OWN]
    return Report(
        title=f"Audit on {plots.shorten(audit.data.info.source, 60)}",
        verdict=audit.verdict,
        about=_about(audit),
        figures=_figures(audit),
        sections=[
            Section("Class by class", _classes(audit), _how_judged(audit)),
            Section("Confidence", _confidence(audit)),
            Section("What it gets wrong", _errors(audit)),
            Section("Under attack", _attacks(audit)),
            Section("Labels that may be wrong", _mistakes(audit)),
            Section("Features", _features(audit)),
            Section("Atlas", atlas.blocks(audit.atlas, audit.data) if audit.atlas is not None else []),
            *(Section(found.judge, _other(found)) for found in others),
            Section("Left out", [FactSheet(dict(audit.left_out))] if audit.left_out else []),
            Section("Data", _data(audit)),
            Section("Repeat it", _repeat(audit)),
        ],
        footer=footer(),
    )


# --- the head ---


def _about(audit: Audit) -> str:
    recipe = f", trained by {audit.model.recipe}" if audit.model.recipe else ""
    judged = count(len(audit.findings), "judge")
    images = count(len(audit.data), "image")
    return f"{audit.encoder} with {_short(audit.parameters)} parameters{recipe}; {judged} on {images}."


def _figures(audit: Audit) -> list[tuple[str, str]]:
    wanted = [
        ("accuracy", audit.metric, audit.metric, _percent),
        ("calibration", "ECE", "points of calibration error", lambda x: f"{100 * x:.1f}"),
        ("fgsm-cw", "PGD accuracy at 8/255", "accuracy under PGD at 8/255", _percent),
        ("label-mistakes", "likely", "likely label mistakes", lambda x: f"{x:,.0f}"),
        ("rankme", "RankMe", f"RankMe, of {audit.number('rankme', 'width') or 0:.0f}", lambda x: f"{x:.1f}"),
    ]
    known = ((audit.number(judge, name), label, show) for judge, name, label, show in wanted)
    return [(show(value), label) for value, label, show in known if value is not None and math.isfinite(value)]


# --- class by class ---


def _how_judged(audit: Audit) -> str:
    return " ".join(audit.notes)


def _classes(audit: Audit) -> list[Block]:
    found, right = audit.of("classes"), audit.of("accuracy")
    blocks: list[Block] = []
    if right is not None:
        blocks += [FactSheet(_beside(right.numbers)), *(Text(note, quiet=True) for note in right.notes)]
    if found is None:
        return blocks
    table = found.tables["classes"]
    return [*blocks, _class_table(table) if "recall, low" in table else _columns(table, "Of each tag or class.")]


def _beside(numbers: dict[str, float]) -> dict[str, str]:
    """The metric with its interval, and what stands beside it, in per cent."""
    shown = {}
    for name, value in numbers.items():
        low, high = numbers.get(f"{name}, low"), numbers.get(f"{name}, high")
        if name != "images" and not name.endswith((", low", ", high")):
            between = (
                f" (95 % interval {_points(low)} to {_points(high)})" if low is not None and high is not None else ""
            )
            shown[name] = _percent(value) + between
    return shown


def _class_table(table: dict[str, list[Any]]) -> Table:
    rows = zip(*(table[key] for key in ("class", "n", "recall", "recall, low", "recall, high", "precision", "F1")))
    return Table(
        ["class", "images", "recall %", "95 % interval", "precision %", "F1 %"],
        [
            [name, f"{n:,}", _points(recall), _strip(recall, low, high), _points(precision), _points(f1)]
            for name, n, recall, low, high, precision, f1 in rows
        ],
        "Recall: the share of a class's images that are found. Precision: the share of its predictions that are right.",
        numeric=[1, 2, 4, 5],
    )


def _strip(value: float, low: float, high: float) -> Strip | str:
    if not math.isfinite(value):
        return "no image of it"
    return Strip(plots.strip(100 * value, 100 * low, 100 * high, (0, 100)))


# --- confidence ---


def _confidence(audit: Audit) -> list[Block]:
    found = audit.of("calibration")
    if found is None or audit.answers is None:
        return []
    p, y = judges.outcomes(audit.answers)
    drawing = Plot(
        plots.reliability(p.numpy(), y.double().numpy()),
        "Reliability",
        "Bars on the dashed line: what it says with 80 % confidence is right in 80 % of cases. Bars below it are "
        "over-confident. Above each bar: how many answers.",
    )
    return [Text(_sentence(judges.leaning(found.numbers))), Plots([drawing]), FactSheet(_calibration_facts(found))]


def _calibration_facts(found: Findings) -> dict[str, str]:
    numbers = found.numbers
    chance = numbers.get("ECE, 95 % of calibrated models below")
    by_chance = f" (a calibrated model stays below {100 * chance:.1f} in 95 % of cases)" if chance is not None else ""
    return {
        "expected calibration error": f"{100 * numbers['ECE']:.1f} points{by_chance}",
        "largest error of a bin": f"{100 * numbers['MCE']:.1f} points",
        "mean confidence": f"{_percent(numbers['mean confidence'])}, {_signed(numbers['confidence − truth'])} points "
        "from the truth",
        "negative log-likelihood": f"{numbers['NLL']:.3f} nats",
        "Brier score": f"{numbers['Brier score']:.3f}",
    }


# --- what it gets wrong ---


def _errors(audit: Audit) -> list[Block]:
    found = audit.of("confusions")
    if found is None or audit.answers is None:
        return []
    what = "pixels" if audit.task == "mask" else "images"
    counts, names = judges.matrix(audit.answers).numpy(), audit.answers.names
    drawing = Plot(
        plots.confusion(counts, names),
        "Confusion matrix",
        f"Per cent of the {what} of each true class (rows) by prediction (columns). Red is wrong; its shade is doubled "
        "to be seen." + (" The 20 most mistaken classes." if len(counts) > 20 else ""),
    )
    return [drawing, _pairs(found.tables["confusions"], what), *_confident(audit, found)]


def _pairs(table: dict[str, list[Any]], what: str) -> Table:
    rows = list(zip(table["true"], table["predicted"], table["count"], table["share"], strict=True))
    return Table(
        ["true", "taken for", what, "of the class %"],
        [[true, predicted, f"{n:,}", _points(share)] for true, predicted, n, share in rows[:PAIRS]],
        f"The {min(PAIRS, len(rows))} commonest of {count(len(rows), 'listed confusion')}."
        if len(rows) > PAIRS
        else "",
        numeric=[2, 3],
        title="What is taken for what",
    )


def _confident(audit: Audit, found: Findings) -> list[Block]:
    table = found.tables.get("confident errors")
    if not table or not table["row"]:
        return []
    columns = (table[key] for key in ("row", "image", "true", "predicted", "confidence"))
    rows = list(zip(*columns, strict=True))[:SHOWN]
    thumbs = [_thumb(audit, row, name, f"{said}, {100 * c:.0f} %", f"is {true}") for row, name, true, said, c in rows]
    caption = f"The {len(thumbs)} errors it is most sure of, of {found.numbers['errors']:,.0f}."
    return [Gallery(thumbs, f"{caption} Some may be mistakes of the labels.")]


def _thumb(audit: Audit, row: int, name: str, *lines: str) -> Thumb:
    return Thumb(plots.thumbnail(audit.data.read("image", row).numpy()), name, lines)


# --- under attack ---


def _attacks(audit: Audit) -> list[Block]:
    found = audit.of("fgsm-cw")
    if found is None:
        return []
    drawn = [_attack_plot(title, *curve) for title, curve in found.curves.items()]
    notes = [Notice(note) if "masking" in note else Text(note, quiet=True) for note in found.notes]
    return [*notes, Plots(drawn), *_attack_table(found)]


def _attack_plot(title: str, x_label: str, y_label: str, series: dict[str, tuple[list[float], list[float]]]) -> Plot:
    bounded = "L∞" in x_label
    scale = 255 if bounded else 1
    curves = {name: [(scale * x, y) for x, y in zip(*points)] for name, points in series.items()}
    colours = dict(zip(curves, ("s0", "s1") if bounded else ("s3",)))
    return Plot(
        plots.robustness(curves, colours=colours, strength="ε (of 255), L∞" if bounded else "distance, L2"),
        "Accuracy against " + ("a bounded attack" if bounded else "an attack that looks for the nearest error"),
        "Each pixel may change by at most ε." if bounded else "Images in [0, 1]; the share whose nearest error found "
        "lies further away.",
        list(colours.items()),
    )  # fmt: skip


def _attack_table(found: Findings) -> list[Block]:
    table = found.tables["attacks"]
    columns = (table[key] for key in ("attack", "norm", "strength", "accuracy", "low", "high", "mean L2"))
    rows = [
        [name, _strength(norm, strength), _points(accuracy), _strip(accuracy, low, high), _number(distance)]
        for name, norm, strength, accuracy, low, high, distance in zip(*columns, strict=True)
        if norm != "inf" or round(255 * strength, 6).is_integer()  # the curves show those between
    ]
    caption = "L2: the mean size of the changes that fooled the model. Images it gets wrong anyway count as errors."
    head = ["attack", "strength", "accuracy %", "95 % interval", "L2"]
    return [Table(head, rows, caption, "Attack by attack", numeric=[2, 4])]


def _strength(norm: str, strength: float) -> str:
    if strength == 0:
        return "none"
    return f"{255 * strength:.3g} / 255" if norm == "inf" and math.isfinite(strength) else "nearest"


# --- labels ---


def _mistakes(audit: Audit) -> list[Block]:
    found = audit.of("label-mistakes")
    if found is None:
        return []
    n = found.numbers
    said = (
        f"Of {n['labels']:,.0f} labels {n['suspected']:,.0f} are suspected and {n['likely']:,.0f} are likely wrong, by "
        "confident learning. A classifier on the encoder's features, which never saw the label that it judges, agrees "
        f"with {_percent(n['agreement'])} of all labels: the lower that is, the more right labels are suspected. "
        "Look before you change one."
    )
    return [Text(said), *(Text(note, quiet=True) for note in found.notes), *_suspects(audit, found)]


def _suspects(audit: Audit, found: Findings) -> list[Block]:
    table = found.tables["suspects"]
    tags = table.get("tag", [""] * len(table["row"]))
    columns = (table["row"], table["image"], tags, table["given"], table["suggested"], table["label quality"])
    rows = list(zip(*columns, strict=True))
    if not rows:
        return [Text("No label is suspected.")]
    thumbs = [
        _thumb(
            audit,
            row,
            name,
            f"{tag}: {given}" if tag else f"labelled {given}",
            f"looks like {suggested}" if not tag else f"looks {suggested}",
        )
        for row, name, tag, given, suggested, _ in rows[:SHOWN]
    ]
    listed = [
        (f"{name}: {f'{tag} ' if tag else ''}{given} → {suggested}", f"quality {quality:.3f}")
        for _, name, tag, given, suggested, quality in rows
        if quality < LIKELY
    ]
    blocks: list[Block] = [Gallery(thumbs, f"The {len(thumbs)} most suspect.")]
    return [*blocks, Listing(f"{count(len(listed), 'likely mistake')}, by file", listed)] if listed else blocks


# --- features and whatever else ---


def _features(audit: Audit) -> list[Block]:
    found = audit.of("rankme")
    if found is None:
        return []
    drawn = [
        Plot(plots.spectrum(_every(*points)), f"Spectrum of the {name}", "A curve that falls early is of features that "
             "use few directions; it bounds what any linear classifier can read from them.")
        for _, _, series in found.curves.values() for name, points in series.items()
    ]  # fmt: skip
    info = {name: _number(value) for name, value in found.numbers.items()}
    return [Plots(drawn), FactSheet(info), *(Text(note, quiet=True) for note in found.notes)]


def _every(k: Sequence[float], shares: Sequence[float]) -> np.ndarray:
    """The whole spectrum from the points that were drawn of it."""
    values = np.maximum(np.asarray(shares, dtype=float), 1e-12)
    return np.exp(np.interp(np.arange(1, int(k[-1]) + 1), k, np.log(values)))


def _other(found: Findings) -> list[Block]:
    """What a judge found that this page knows nothing of."""
    blocks: list[Block] = [FactSheet({name: _number(value) for name, value in found.numbers.items()})]
    blocks += [_columns(table, name) for name, table in found.tables.items()]
    return [*blocks, *(Text(note, quiet=True) for note in found.notes)]


def _columns(table: dict[str, list[Any]], caption: str = "") -> Table:
    names = list(table)
    rows = [[_cell(name, value) for name, value in zip(names, row)] for row in zip(*table.values())]
    numeric = [i for i, name in enumerate(names) if table[name] and not isinstance(table[name][0], str)]
    more = f" The first {ROWS} of {len(rows)} rows." if len(rows) > ROWS else ""
    return Table(names, rows[:ROWS], caption + more, numeric=numeric)


SHARES = ("AP", "IoU", "recall", "precision", "F1", "share of pixels")


def _cell(name: str, value: Any) -> str:
    if name in SHARES:
        return _percent(value) if math.isfinite(value) else "—"
    return _number(value) if isinstance(value, (int, float)) else str(value)


# --- data, and how to repeat ---


def _data(audit: Audit) -> list[Block]:
    data, info = audit.data, audit.data.info
    info = {
        "source": info.source,
        "images": f"{len(data):,} of {data.height} × {data.width} pixels",
        "labels known": ", ".join(f"{int(data.known(name).sum()):,} of {name}" for name in data.label_names) or "none",
    }
    if audit.answers is not None:
        info["measured on"] = count(len(audit.answers.rows), "labelled image")
        info["names"] = _listed(audit.answers.names)
    if info.licence:
        info["licence"] = info.licence
    return [FactSheet(info), *quarantine(info.quarantined)]


def _listed(names: Iterable[str], most: int = 30) -> str:
    names = list(names)
    return f"{len(names)}: {', '.join(names[:most])}" + (", …" if len(names) > most else "")


def _repeat(audit: Audit) -> list[Block]:
    info = {
        "model": f"{audit.encoder}, {_short(audit.parameters)} parameters, heads for {audit.task or 'nothing'}",
        "recipe": audit.model.recipe,
        "budget": audit.model.budget,
        "trained with": f"rushlight {audit.model.version}" if audit.model.version else "",
        "took": duration(audit.seconds),
        "device": audit.machine["device"],
        "machine": host(audit.machine),
        "data": f"SHA-256 {audit.data.content_hash[:16]}…",
        "versions": versions(audit.machine["python"], "cleanlab", "torchmetrics", "scikit-learn"),
    }
    return [Commands([audit.command]), FactSheet({name: value for name, value in info.items() if value})]


# --- figures as words ---


def _percent(x: float) -> str:
    return f"{100 * x:.1f} %"


def _points(x: float) -> str:
    return f"{100 * x:.1f}" if math.isfinite(x) else "—"


def _signed(x: float) -> str:
    return f"{100 * x:+.1f}".replace("-", "−")


def _number(x: float) -> str:
    if not math.isfinite(x):
        return "—"
    return f"{x:,.0f}" if float(x).is_integer() else f"{x:.3g}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _short(n: int) -> str:
    return f"{n / 1e6:.3g} million" if n >= 1e6 else f"{n:,}"
