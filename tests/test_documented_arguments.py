"""Every argument that the docs name is one that the method has: `name(argument=value)` is read, and a learner steps."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rushlight.core.arguments import checked, described
from rushlight.core.catalogue import entries, load_method
from rushlight.data.dataset import Dataset
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model, ModelInfo
from rushlight.run.recipe import Recipe, Step
from rushlight.run.stage import Judge, RunContext, Stage
from rushlight.train.learner import Learner

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "generated" not in path.parts)]


def calls(text: str) -> Iterator[str]:
    """Every `id(…)` of the catalogue with its arguments, brackets balanced; not what is left open by an ellipsis."""
    names = "|".join(sorted(map(re.escape, entries()), key=len, reverse=True))
    for match in re.finditer(rf"(?<![\w.-])({names})\((?=\w+\s*=)", text):
        depth, end = 1, match.end()
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        call = text[match.start() : end]
        if "…" not in call and "..." not in call:
            yield " ".join(call.split())


def arguments(call: str) -> tuple[str, dict[str, Any]]:
    name, _, inner = call.partition("(")
    keywords = ast.parse(f"f({inner}", mode="eval").body.keywords  # type: ignore[attr-defined]
    return name, {each.arg: ast.literal_eval(each.value) for each in keywords}


DOCUMENTED = sorted({call for page in PAGES for call in calls(page.read_text(encoding="utf-8"))})
LEARNERS = [call for call in DOCUMENTED if issubclass(load_method(call.partition("(")[0]), Learner)]


def test_the_docs_name_arguments() -> None:
    assert len(DOCUMENTED) > 40
    assert "iomatch(alignment=0)" in list(calls("it takes `iomatch(alignment=0)` and more"))
    assert list(calls("bss(base='dino(local=2)') and x.mae(ratio=0.5), mae(ratio=…)")) == [
        "bss(base='dino(local=2)')",
        "dino(local=2)",
    ]


@pytest.mark.parametrize("name", sorted(entries()))
def test_every_setting_has_a_type_in_words(name: str) -> None:
    described(load_method(name))  # what its annotations name is there


@pytest.mark.parametrize("call", DOCUMENTED)
def test_a_documented_argument_is_accepted(call: str) -> None:
    name, given = arguments(call)
    kind = load_method(name)
    if issubclass(kind, Stage):
        Recipe.parse(call)
    elif issubclass(kind, Judge):
        Step(name, given).judge()
    else:
        kind(**checked(name, kind, given))


@pytest.mark.slow
@pytest.mark.parametrize("call", LEARNERS)
def test_a_learner_steps_with_a_documented_argument(call: str, photos: Dataset, scenes: Dataset) -> None:
    stage: Any = Recipe.parse(call).steps[0].stage()
    deep = photos.with_columns(depth=photos["image"][:, 0].float() + 1)
    pairs = [(photos, "class"), (scenes, "tags"), (scenes, "mask"), (deep, "class")]
    data, task = next(pair for pair in pairs if not (stage.card.lacks(*pair) or stage.lacks(pair[0])))
    name = f"vit64-p{data.height // 4}" if stage.card.encoder == "vit" else "conv16"
    size = (data.height, data.width)
    start = Model(encoders.create(name, image_size=data.height, seed=0), {}, ModelInfo(image_size=size))
    budget = Budget(passes=5e5)
    stage.prepare(data, start, RunContext(task=task, budget=budget))
    stage.plan = stage.plan_for(budget, 8)
    loss = stage.step(stage.draw(8, 0))
    loss.backward()
    assert bool(torch.isfinite(loss))
