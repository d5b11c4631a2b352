"""Bags, pooling, areas under curves, and intervals over slides."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from margins import Margin
from sklearn.metrics import roc_auc_score

from rushlight.methods.pretrain.histopath_ssl import slides


def planted(count: int = 60, patches: int = 12, seed: int = 0) -> slides.Bags:
    """A sick slide has two instances that stand out in one direction; means hardly tell."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, patches, 6, generator=generator)
    labels = torch.arange(count) % 2
    features[labels == 1, :2, 0] += 4
    return slides.Bags(features, torch.ones(count, patches, dtype=torch.bool), labels)


def test_attention_finds_the_instances_that_decide(margin: Margin) -> None:
    bags = planted(160)
    train, test = bags.select(torch.arange(100)), bags.select(torch.arange(100, 160))
    found = slides.scores(train, test, 2, pooling="attention")
    margin("AUC, attention", slides.macro_auc(found, test.labels), 0.9)
    torch.testing.assert_close(found.sum(1), torch.ones(60))
    mean = slides.scores(train, test, 2, pooling="mean")
    margin("AUC, mean", slides.macro_auc(mean, test.labels), 0.6)


def test_bags_hold_each_slides_patches() -> None:
    features, slide = torch.arange(10.0).view(5, 2), torch.tensor([7, 2, 7, 2, 7])
    bags = slides.Bags.of(features, slide, torch.tensor([1, 0, 1, -1, 1]))
    assert bags.labels.tolist() == [0, 1]
    assert bags.there.tolist() == [[True, True, False], [True, True, True]]
    torch.testing.assert_close(bags.features[0, :2], features[[1, 3]])
    with pytest.raises(ValueError, match="one label, the slide's"):
        slides.Bags.of(features, slide, torch.tensor([1, 0, 0, 0, 1]))


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    shares=st.lists(st.floats(0.001, 1.0), min_size=2, max_size=2),
    seed=st.integers(0, 99),
)
def test_labelled_slides_are_a_share_of_each_label_and_nest(counts: list[int], shares: list[float], seed: int) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    few, many = (set(slides.labelled(labels, share, seed=seed).tolist()) for share in sorted(shares))
    assert few <= many
    for label, count in enumerate(counts):
        found = sum(int(labels[row]) == label for row in many)
        assert found == max(round(max(shares) * count), 1)
    assert torch.equal(slides.labelled(labels, 1.0, seed=seed), torch.arange(len(labels)))


def test_labelled_slides_depend_on_the_seed_alone() -> None:
    labels = torch.arange(60) % 3
    one, again, other = (slides.labelled(labels, 0.3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_the_macro_auc_is_scikit_learns_and_knows_order_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    p, labels = torch.rand(50, 3, generator=generator).softmax(1), torch.randint(3, (50,), generator=generator)
    expected = roc_auc_score(labels.numpy(), p.numpy(), multi_class="ovr")
    assert slides.macro_auc(p, labels) == pytest.approx(expected)
    assert slides.macro_auc(p**3 * 5, labels) == pytest.approx(expected)


def test_intervals_over_slides_are_wider_than_over_patches() -> None:
    generator = torch.Generator().manual_seed(1)
    slide = torch.arange(20).repeat_interleave(30)
    labels = (torch.arange(20) % 2)[slide]
    score = labels + (2 * torch.randn(20, generator=generator))[slide] + 0.1 * torch.randn(600, generator=generator)
    p = torch.stack([-score, score], 1)
    wide, narrow = (slides.bootstrap(p, labels, groups, draws=200) for groups in (slide, None))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])
    assert wide[0] < slides.macro_auc(p, labels) < wide[1]
