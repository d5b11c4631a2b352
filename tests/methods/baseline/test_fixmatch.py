"""FixMatch: its loss, image by image."""

from __future__ import annotations

import pytest
import torch

from rushlight.data.dataset import Dataset
from rushlight.methods.baseline.fixmatch import FixMatch
from rushlight.nets import encoders
from rushlight.run.model import Model
from rushlight.run.stage import RunContext

THRESHOLD = 0.128
"""Parts the pseudo-labels of an untrained model."""


def prepared(photos: Dataset, **settings) -> FixMatch:
    learner = FixMatch(**{"batch": 4, **settings})
    model = Model(encoders.create("conv16", image_size=28, seed=0))
    learner.prepare(photos.fold(0), model, RunContext(seed=1))
    return learner


@pytest.mark.parametrize("joint", [True, False])
def test_the_loss_is_the_papers(joint: bool, photos: Dataset) -> None:
    """ℓ_s over the labelled images, ℓ_u over all μB unlabelled ones, those below τ costing nothing."""
    learner = prepared(photos, threshold=THRESHOLD, unlabelled_weight=0.5, ratio=3, joint=joint)
    batch = learner.draw(4, 0)
    labelled, unlabelled, generator = batch["labelled"], batch["unlabelled"], learner.generator()
    weak = learner.weak(torch.cat([labelled["image"], unlabelled["image"]]), generator=generator)
    strong = learner.strong(unlabelled["image"], generator=generator)
    b, mu_b = len(labelled), len(unlabelled)
    assert (b, mu_b) == (4, 12)
    if joint:
        x, q, s = learner.model.logits(torch.cat([weak, strong])).log_softmax(1).split([b, mu_b, mu_b])
    else:
        q = learner.model.logits(weak[b:]).log_softmax(1)
        x, s = learner.model.logits(torch.cat([weak[:b], strong])).log_softmax(1).split([b, mu_b])
    loss_x = sum(-x[i, labelled["class"][i]] for i in range(b)) / b
    kept = [i for i in range(mu_b) if q[i].exp().max() >= THRESHOLD]
    assert 0 < len(kept) < mu_b, [float(row.exp().max().detach()) for row in q]
    loss_u = sum(-s[i, q[i].argmax()] for i in kept) / mu_b
    torch.testing.assert_close(learner.step(batch), loss_x + 0.5 * loss_u, atol=1e-5, rtol=1e-5)


def test_few_steps_take_fewer_unlabelled_images_unless_a_number_is_written() -> None:
    assert FixMatch().min_ratio == {"unlabelled": 3}
    assert FixMatch(ratio=7).parts == {"labelled": 1, "unlabelled": 7}


def test_the_average_is_handed_on(photos: Dataset) -> None:
    learner = prepared(photos)
    old = [parameter.clone() for parameter in learner.teacher.network.parameters()]
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter.add_(1)
    learner.after_step()
    for mine, before in zip(learner.finish().parameters(), old, strict=True):
        torch.testing.assert_close(mine.detach() - before, torch.full_like(before, 1 - 2 / 11), atol=1e-5, rtol=0)
