from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST
from rushlight.data.edit import hide
from rushlight.data.synthetic import fashion
from rushlight.nets import encoders
from rushlight.nets.heads import Linear
from rushlight.run.evaluate import evaluate
from rushlight.run.model import Model, ModelInfo
from rushlight.tasks import open_set
from rushlight.tasks.classify import AUROC, OPEN, UNSEEN, Classify


def case(seed: int, n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores with ties, and which images are unseen (some and some not)."""
    generator = torch.Generator().manual_seed(seed)
    unseen = torch.rand(n, generator=generator) < 0.4
    unseen[0], unseen[1] = True, False
    return (torch.rand(n, generator=generator) * 10 + 2 * unseen).round() / 10, unseen


@given(st.integers(0, 50))
def test_auroc_is_scikit_learns_and_the_share_of_ordered_pairs(seed):
    scores, unseen = case(seed)
    pairs = [float(a > b) + 0.5 * float(a == b) for a in scores[unseen] for b in scores[~unseen]]
    got = open_set.rejection_auroc(scores, unseen)
    assert got == pytest.approx(sum(pairs) / len(pairs))
    assert got == pytest.approx(roc_auc_score(unseen.numpy(), scores.numpy()))


@given(st.integers(0, 50), st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_unseen_recall_is_the_best_over_all_thresholds_that_accept_enough(seed, share):
    scores, unseen = case(seed)
    best = 0.0
    for limit in scores.tolist():
        accepted = sum(score <= limit for score in scores[~unseen].tolist()) / int((~unseen).sum())
        if accepted >= share:
            best = max(best, sum(score > limit for score in scores[unseen].tolist()) / int(unseen.sum()))
    assert open_set.unseen_recall(scores, unseen, seen_recall=share) == pytest.approx(best)


def test_an_open_head_rejects_and_a_closed_classifier_does_not():
    closed = torch.tensor([[4.0, 0.0], [0.1, 0.0], [0.0, 3.0]])
    opened = torch.tensor([[4.0, 0.0, 0.0], [0.0, 0.0, 5.0], [0.0, 3.0, 0.0]])
    true = torch.tensor([0, 2, 1])
    assert open_set.decisions(closed, opened).tolist() == [0, 2, 1]
    assert open_set.decisions(closed).tolist() == [0, 0, 1]
    assert open_set.rejection_scores(closed).argmax() == open_set.rejection_scores(closed, opened).argmax() == 1
    assert open_set.open_balanced_accuracy(open_set.decisions(closed, opened), true) == 1
    assert open_set.open_balanced_accuracy(open_set.decisions(closed), true) == pytest.approx(2 / 3)


@pytest.mark.parametrize("unseen", [[True, True], [False, False]])
def test_without_both_kinds_of_images_there_is_no_score(unseen):
    for score in (open_set.rejection_auroc, open_set.unseen_recall):
        with pytest.raises(UserError, match="seen"):
            score(torch.tensor([0.1, 0.2]), torch.tensor(unseen))


# --- as the class task reads them ---


def classified(opened: bool) -> dict[str, torch.Tensor]:
    """Two seen images, rightly classified, and an unseen one that the open head alone rejects."""
    outputs = {"class": torch.tensor([[6.0, 0.0], [0.0, 6.0], [1.0, 0.0]])}
    if opened:
        outputs["open"] = torch.tensor([[6.0, 0.0, 0.0], [0.0, 6.0, 0.0], [0.0, 0.0, 6.0]])
    return Classify().parts(outputs, {"class": torch.tensor([0, 1, 2])})


@pytest.mark.parametrize(("opened", "balanced"), [(True, 1.0), (False, 2 / 3)])
def test_unseen_classes_are_scored_by_the_open_head_or_by_confidence(opened, balanced):
    values = Classify().measured(classified(opened))
    assert (values[AUROC], values[UNSEEN]) == (1, 1)
    assert values[OPEN] == pytest.approx(balanced)
    assert values[Classify.metric] == pytest.approx(2 / 3)


def test_without_unseen_images_there_are_no_open_set_scores():
    parts = {name: values[:2] for name, values in classified(True).items()}
    assert not {AUROC, UNSEEN, OPEN} & set(Classify().measured(parts))
    for metric in (AUROC, UNSEEN, OPEN):
        with pytest.raises(UserError, match="unseen"):
            Classify().value(parts, metric)


def test_a_model_with_an_open_head_is_judged_by_it():
    photos = fashion.load().select(torch.cat([torch.arange(100), torch.arange(12_000, 12_100)]))
    data = hide.open_set(photos, ["bag", "sandal"])
    encoder = encoders.create("conv16", image_size=28, seed=0)
    heads = {"class": Linear(width=64, outputs=8), "open": Linear(width=64, outputs=9)}
    torch.nn.init.zeros_(heads["open"].linear.weight)
    heads["open"].linear.bias.data[:] = torch.arange(9.0)  # it rejects everything
    model = Model(encoder, heads, ModelInfo(image_size=(28, 28), task="class")).eval()
    test = data.fold(TEST)
    found = evaluate(model, test, "class")
    assert Classify().value(found.parts, OPEN) == pytest.approx(1 / 9)
    assert int(found.parts["unseen"].sum()) == int((test["class"] == 8).sum()) > 0
    by_name = {each.judge: each for each in Classify().findings(found.parts, test, torch.arange(len(test)))}
    assert [measure.name for measure in by_name["open-set"].measures] == [AUROC.name, UNSEEN.name, OPEN.name]
    assert by_name["classes"].tables[0]["class"][-1] == "unseen"
