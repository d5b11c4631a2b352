"""The page about an audit: how far a model can be trusted, where it errs, and which labels to look at."""

from __future__ import annotations

from rushlight import tasks
from rushlight.jobs.audit.result import Audit
from rushlight.present import atlas, dataset, findings, plots
from rushlight.present.page import Block, Commands, FactSheet, Report, Section
from rushlight.present.phrases import count, duration, footer, host, versions


def audit_report(audit: Audit) -> Report:
    """Return the report of a finished audit."""
    return Report(
        title=f"Audit on {plots.shorten(audit.data.info.source, 60)}",
        verdict=audit.verdict,
        about=_about(audit),
        figures=findings.figures(audit.findings),
        sections=[
            *findings.sections(audit.findings),
            Section("Atlas", atlas.blocks(audit.atlas, audit.data) if audit.atlas is not None else []),
            Section("Left out", [FactSheet(dict(audit.left_out))] if audit.left_out else []),
            Section("Data", _data(audit)),
            Section("Repeat it", _repeat(audit)),
        ],
        footer=footer(),
    )


def _about(audit: Audit) -> str:
    recipe = f", trained by {audit.model.recipe}" if audit.model.recipe else ""
    judged = count(len(audit.findings), "judge")
    images = count(len(audit.data), "image")
    said = f"{audit.encoder} with {_short(audit.parameters)} parameters{recipe}; {judged} on {images}."
    return " ".join([said, *audit.notes])


def _data(audit: Audit) -> list[Block]:
    names = tasks.find(audit.task).names(audit.model) if audit.task else ()
    return dataset.blocks(audit.data, {"names": dataset.listed(names)} if names else {})


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


def _short(n: int) -> str:
    return f"{n / 1e6:.3g} million" if n >= 1e6 else f"{n:,}"
