"""An audit under attack: its table, its sizes and its findings, by a model and attacks that are known exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import binomtest

from rushlight.data.dataset import Dataset
from rushlight.methods.robust.fgsm_cw import evasion, perturb
from rushlight.nets import encoders
from rushlight.run.model import Model, ModelInfo
from rushlight.run.stage import Attack, Threat


class Bright(Model):
    """Class 1 where an image is brighter than the middle."""

    def logits(self, images: torch.Tensor, *heads: Any) -> torch.Tensor:
        score = images.flatten(1).mean(1) - 0.5
        return torch.stack([-score, score], 1)


class Darken(Attack):
    """An attack that takes as much from each pixel as it may; unbounded, half."""

    def perturb(self, classifier, images, labels, threat, generator):
        return (images - min(threat.strength, 0.5)).clamp(min=0)


LEVELS = torch.tensor([26, 140, 166, 230, 230, 128])  # right: 0 of class 0, and the next three


@pytest.fixture
def audit() -> evasion.Audit:
    images = LEVELS.to(torch.uint8)[:, None, None, None].expand(6, 3, 4, 4).contiguous()
    labels = torch.tensor([0, 1, 1, 1, 0, -1])
    model = Bright(encoders.create("conv16", image_size=4, seed=0), {}, ModelInfo(image_size=(4, 4)))
    return evasion.Audit(model, Dataset({"image": images, "class": labels}))


def test_sizes_are_norms() -> None:
    change = torch.zeros(2, 3, 2, 2)
    change[0, 0, 0, 0], change[0, 1, 1, 1], change[1, 2, 0, 1] = 0.3, -0.4, -0.1
    assert evasion.size(change, "2").tolist() == pytest.approx([0.5, 0.1])
    assert evasion.size(change, "inf").tolist() == pytest.approx([0.4, 0.1])


def test_only_what_is_known_and_right_is_attacked(audit: evasion.Audit) -> None:
    assert audit.right.tolist() == [True, True, True, True, False]
    seen = []

    class Watched(Darken):
        def perturb(self, classifier, images, labels, threat, generator):
            seen.extend((images[:, 0, 0, 0] * 255).round().int().tolist())
            return super().perturb(classifier, images, labels, threat, generator)

    audit.attacked(Watched(), Threat("inf", 0.1))
    assert seen == [26, 140, 166, 230]


def test_a_curve_is_the_accuracy_at_each_strength(audit: evasion.Audit) -> None:
    audit.curve("darken", Darken(), [0.1, 0.2])
    assert audit.curves["darken"] == ([0.0, 0.1, 0.2], [pytest.approx(0.8), pytest.approx(0.6), pytest.approx(0.4)])
    row = audit.table[-1]
    assert (row["images"], row["attacked"], row["success"], row["strength"]) == (5, 4, 0.5, 0.2)
    assert row["mean L∞"] == pytest.approx(0.2, abs=1e-6)
    assert row["mean L2"] == pytest.approx(0.2 * math.sqrt(48), abs=1e-5)
    wilson = binomtest(2, 5).proportion_ci(method="wilson")
    assert (row["low"], row["high"]) == (pytest.approx(wilson.low), pytest.approx(wilson.high))
    assert row["top-5 error"] == 0.0


def test_the_nearest_error_is_nought_where_the_model_errs_and_infinite_where_none_is_found(audit) -> None:
    audit.nearest("half", Darken())
    distances = audit.distances["half"].tolist()
    assert distances[4] == 0
    assert distances[1] == pytest.approx(0.5 * math.sqrt(48), abs=1e-4)

    class Rest(Attack):
        def perturb(self, classifier, images, labels, threat, generator):
            return images

    audit.nearest("rest", Rest())
    assert audit.distances["rest"].tolist() == [math.inf] * 4 + [0.0]
    assert audit.table[-1]["success"] == 0


def test_batches_of_a_diagnosis_count_by_their_images() -> None:
    parts = [perturb.Masking(1.0, 0.0, 0.6, 0.0, True), perturb.Masking(0.0, 0.4, 0.4, 0.4, False)]
    joined = evasion._together(parts, [1, 3])
    assert (joined.zero, joined.plain) == (pytest.approx(0.25), pytest.approx(0.3))
    assert (joined.scaled, joined.precise) == (pytest.approx(0.45), pytest.approx(0.3))
    assert joined.masked
    assert not evasion._together(parts, [1, 9]).masked


def test_findings_name_the_model_where_there_are_several(audit: evasion.Audit) -> None:
    audit.curve("darken", Darken(), [8 / 255])
    one, two = evasion.findings("judge", {"a": audit}), evasion.findings("judge", {"a": audit, "b": audit})
    assert one.numbers["clean accuracy"] == two.numbers["b: clean accuracy"] == pytest.approx(0.8)
    assert one.numbers["darken accuracy at 8/255"] == pytest.approx(0.8)
    assert one.headline.startswith("80 % under attack")
    assert two.headline == ""
    assert set(two.table("attacks")["model"]) == {"a", "b"}
