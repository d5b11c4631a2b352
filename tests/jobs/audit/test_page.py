"""The page about an audit says what the audit says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rushlight.core.findings import Findings, Measure, Table
from rushlight.data.columns import encode_text
from rushlight.data.dataset import Dataset, Quarantined
from rushlight.data.synthetic import fashion
from rushlight.data.synthetic import scenes as composed
from rushlight.jobs.audit.page import audit_report
from rushlight.jobs.audit.result import Audit
from rushlight.jobs.audit.run import audit
from rushlight.nets import encoders
from rushlight.nets.heads import Linear
from rushlight.present.page import Gallery, Named, Notice, Plot, Plots, render
from rushlight.present.page import Table as Block
from rushlight.run.budget import Budget
from rushlight.run.model import Model, ModelInfo
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext

LEFT_OUT = (Quarantined("holiday/IMG_0042.jpg", "the file ends early"),)


def model_of(data: Dataset, task: str) -> Model:
    encoder = encoders.create("conv16", image_size=data.height, seed=0)
    names = data.info.class_names if task == "class" else data.info.tag_names
    head = Linear(width=encoder.width, outputs=len(names))
    return Model(encoder, {task: head}, ModelInfo.of(data.info, (data.height, data.width), task)).eval()


def photos(n: int = 150, **changes: object) -> Dataset:
    data = fashion.load().select(torch.arange(n))
    return data.with_info(quarantined=LEFT_OUT, **changes)


@pytest.fixture(scope="module")
def found() -> Audit:
    data = photos()
    return audit(model_of(data, "class"), data, attack_images=4, command="rushlight audit model/ 'my photos'")


def section(report, title):
    return next(s for s in report.sections if s.title == title)


def blocks(report, title, kind):
    return [block for block in section(report, title).blocks if isinstance(block, kind)]


def test_the_page_holds_what_was_found(found):
    report = audit_report(found)
    page = render(report)
    for text in ("IMG_0042.jpg", "the file ends early", "rushlight audit model/ &#39;my photos&#39;", "cleanlab"):
        assert text in page
    assert torch.__version__.partition("+")[0] in page
    assert report.verdict == found.verdict
    for title in ("Class by class", "Confidence", "What it gets wrong", "Under attack", "Labels that may be wrong"):
        assert section(report, title).blocks
    assert page.count('<svg class="plot"') == 6  # reliability, confusion, two of attacks, spectrum, atlas
    assert len(page) < 400_000
    assert "mathdefault" not in page
    assert "://" not in page.replace("http://www.w3.org", "")


def test_the_class_table_is_the_audits(found):
    table = blocks(audit_report(found), "Class by class", Block)[0]
    wanted = found.table("classes", "classes")
    assert [row[0].name for row in table.rows] == list(wanted["class"])
    assert [row[3] for row in table.rows] == [f"{100 * x:.1f}" for x in wanted["recall"]]


def test_galleries_show_errors_and_suspects(found):
    report = audit_report(found)
    errors = blocks(report, "What it gets wrong", Gallery)[0].thumbs
    table = found.of("confusions").table("confident errors")
    assert [thumb.name for thumb in errors] == table["image"][: len(errors)]
    assert errors[0].lines == (
        f"{table['predicted'][0]}, {100 * table['confidence'][0]:.0f} %",
        f"is {table['true'][0]}",
    )
    suspects = found.of("label-mistakes").table("suspects")
    shown = blocks(report, "Labels that may be wrong", Gallery)[0].thumbs
    assert shown[0].lines == (f"labelled {suspects['given'][0]}", f"looks like {suspects['suggested'][0]}")
    listed = blocks(report, "Labels that may be wrong", Block)[0]
    assert (listed.folded, len(listed.rows)) == (True, len(suspects))


def test_attacks_are_drawn_and_listed(found):
    report = audit_report(found)
    table = blocks(report, "Under attack", Block)[0]
    assert [table.rows[row][0].name for row in (0, 1, -1)] == ["clean", "FGSM", "Carlini–Wagner"]
    assert len(blocks(report, "Under attack", Plots)[0].plots) == 2


def test_a_hidden_gradient_is_a_notice(found):
    masked = replace(found.of("fgsm-cw"), warnings=("Gradient masking: FGSM fools 3%.",))
    others = [f for f in found.findings if f.judge != "fgsm-cw"]
    report = audit_report(replace(found, findings=[*others, masked]))
    assert blocks(report, "Under attack", Notice)[0].text.startswith("Gradient masking")


def test_a_judge_that_nobody_knows_has_its_place(found):
    table = Table.of("members", {"image": ["a"], "score": [0.5]})
    new = Findings(
        "privacy",
        (Measure("leak", 0.25),),
        (table,),
        notes=("Mind it.",),
    )
    report = audit_report(replace(found, findings=[*found.findings, new]))
    page = render(report)
    assert "0.25" in page
    assert "Mind it." in page
    assert blocks(report, "privacy", Block)[0].rows == [[Named("a"), "0.5"]]


def test_a_tagger_has_a_page():
    data = composed.compose(60, size=32, seed=3)
    found = audit(model_of(data, "tags"), data)
    report = audit_report(found)
    table = blocks(report, "Class by class", Block)[0]
    assert [row[0].name for row in table.rows] == list(data.info.tag_names)
    assert section(report, "Confidence").blocks
    assert section(report, "Left out").blocks[0].info["fgsm-cw"] == "predicts class, not tags"
    assert "mAP" in render(report)


def test_a_segmenter_has_a_page():
    data = composed.compose(40, size=32, seed=3)
    bare = Model(encoders.create("conv16", image_size=32, seed=0), {}, ModelInfo.of(data.info, (32, 32), "mask"))
    ctx = RunContext(task="mask")
    model = Recipe.parse("supervised(batch=16)").run(data, bare, replace(ctx, budget=Budget(passes=100))).model
    report = audit_report(audit(model, data))
    assert blocks(report, "What it gets wrong", Plot)[0].title == "Confusion matrix"
    assert "IoU %" in blocks(report, "Class by class", Block)[0].columns
    assert report.verdict.startswith("mIoU ")


def test_unlabelled_images_have_a_page():
    data = photos(40).hide()
    report = audit_report(audit(model_of(data, "class"), data))
    assert "Features" in [s.title for s in report.sections if s.blocks]
    assert "needs" in render(report)


def test_hostile_names_stay_text():
    names = tuple(f"<img src=x onerror=alert({i})>" for i in range(10))
    data = photos(80, class_names=names)
    files = encode_text([f"<script>alert({i})</script>.png" for i in range(80)])
    data = Dataset({**dict(data.columns.items()), "name": files}, data.info)
    page = render(audit_report(audit(model_of(data, "class"), data, attack_images=2)))
    assert "<img src=x" not in page
    assert "<script" not in page
    assert "&lt;script" in page
