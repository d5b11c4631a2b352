"""The rounds against the official algorithm in plain Python, and what must hold of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rushlight.methods.curate.simcore import coreset
from rushlight.methods.curate.simcore.coreset import select


def features(n: int = 60, k: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 8, generator=generator), torch.randn(k, 8, generator=generator)


def official(
    candidates: torch.Tensor, centroids: torch.Tensor, budget: int, patience: int, factor: float | None
) -> tuple[list[set[int]], list[float]]:
    """Rounds of picks from whole sorted queues, with a stop; without the cut of the last round."""
    similar = F.normalize(candidates, dim=1) @ F.normalize(centroids, dim=1).T
    queues = [similar[:, c].argsort(descending=True).tolist() for c in range(len(centroids))]
    taken: set[int] = set()
    rounds, utilities, threshold = [], [], -2.0
    while len(taken) < budget:
        picks, worth = [], []
        for c, queue in enumerate(queues):
            while queue and queue[0] in taken:
                queue.pop(0)
            if queue:
                picks.append(queue[0])
                worth.append(float(similar[queue[0], c]))
        if not picks:
            break
        utilities.append(sum(worth) / len(worth))
        if factor is not None and len(utilities) == patience:
            threshold = factor * utilities[-1]
        if utilities[-1] < threshold:
            break
        rounds.append(set(picks) - taken)
        taken |= set(picks)
    return rounds, utilities


@pytest.mark.parametrize("block", [7, 1000])
@pytest.mark.parametrize(("budget", "patience", "factor"), [(60, 3, 0.8), (60, 5, 0.2), (25, 3, None), (60, 2, None)])
def test_it_is_the_official_algorithm(
    budget: int, patience: int, factor: float | None, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coreset, "BLOCK", block)
    candidates, centroids = features()
    found = select(candidates, centroids, budget=budget, patience=patience, factor=factor)
    rounds, utilities = official(candidates, centroids, budget, patience, factor)
    assert found.utilities == pytest.approx(utilities, abs=1e-6)
    everything = set().union(*rounds)
    whole = set().union(*rounds[:-1]) if len(everything) > budget else everything
    assert whole <= set(found.rows.tolist()) <= everything
    assert len(found.rows) == min(budget, len(everything))


def test_queues_that_run_short_are_filled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates, centroids = features(200, 4)
    whole = select(candidates, centroids, budget=150, factor=None)
    fill = coreset._Queues._fill
    depths = []

    def short(self, depth):  # type: ignore[no-untyped-def]
        depths.append(depth)
        fill(self, 5 if len(depths) == 1 else depth)

    monkeypatch.setattr(coreset._Queues, "_fill", short)
    again = select(candidates, centroids, budget=150, factor=None)
    assert len(depths) > 1
    assert again.rows.tolist() == whole.rows.tolist()


def test_one_centroid_takes_the_most_similar() -> None:
    candidates, centroids = features(50, 1)
    found = select(candidates, centroids, budget=12, factor=None)
    cosine = F.normalize(candidates, dim=1) @ F.normalize(centroids[0], dim=0)
    assert found.rows.tolist() == cosine.topk(12).indices.tolist()
    torch.testing.assert_close(found.similarity, cosine.topk(12).values.double().to(found.similarity.dtype))


def test_copies_of_the_target_come_first() -> None:
    candidates, centroids = features(60, 6)
    mixed = torch.cat([candidates, 3 * centroids])
    found = select(mixed, centroids, budget=6, factor=None)
    assert sorted(found.rows.tolist()) == list(range(60, 66))


def test_utilities_never_rise_and_nothing_is_taken_twice() -> None:
    found = select(*features(300, 7, 3), budget=300, factor=None)
    assert all(a >= b - 1e-6 for a, b in zip(found.utilities, found.utilities[1:], strict=False))
    assert len(set(found.rows.tolist())) == len(found.rows) == 300
    assert not found.stopped


def test_a_factor_of_nothing_never_stops_and_one_above_one_stops_at_once() -> None:
    candidates, centroids = features(300, 5)
    positive = candidates.abs(), centroids.abs()
    assert not select(*positive, budget=300, patience=4, factor=0.0).stopped
    early = select(*positive, budget=300, patience=4, factor=1.01)
    assert early.stopped
    assert len(early.utilities) == 4
    assert len(early.rows) <= 3 * 5


def test_the_last_round_is_cut_by_the_seed() -> None:
    candidates, centroids = features(300, 40)
    one, again, other = (select(candidates, centroids, budget=20, factor=None, seed=s) for s in (1, 1, 2))
    assert len(one.rows) == 20
    assert one.rows.tolist() == again.rows.tolist() != other.rows.tolist()


def test_more_is_asked_for_than_there_is() -> None:
    assert len(select(*features(10, 3), budget=500, factor=None).rows) == 10
