"""Retrieval scores beside torchmetrics and the official code's formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

from rushlight.methods.evaluate.backbones import retrieval


def plain_ap(order: list[bool], oxford: bool) -> float:
    """The two forms as loops over the ranking; the second as in `compute_ap` of the official code."""
    wanted, total, seen = sum(order), 0.0, 0
    for rank, hit in enumerate(order):
        if hit:
            before = 1.0 if rank == 0 else seen / rank
            after = (seen + 1) / (rank + 1)
            total += (before + after) / 2 if oxford else after
            seen += 1
    return total / wanted


def test_average_precision_in_both_forms():
    from torchmetrics.retrieval import RetrievalMAP

    generator = torch.Generator().manual_seed(0)
    gallery, queries = torch.randn(50, 8, generator=generator), torch.randn(12, 8, generator=generator)
    positive = torch.rand(12, 50, generator=generator) < 0.2
    positive[3] = False
    found = retrieval.retrieve(gallery, queries, positive)
    cosine = F.normalize(queries, dim=1) @ F.normalize(gallery, dim=1).T
    kept = [i for i in range(12) if i != 3]
    orders = [positive[i][cosine[i].argsort(descending=True)].tolist() for i in kept]
    assert found.mean_ap == pytest.approx(np.mean([plain_ap(order, False) for order in orders]))
    assert found.oxford == pytest.approx(np.mean([plain_ap(order, True) for order in orders]))
    assert found.oxford < found.mean_ap
    per_query = [average_precision_score(positive[i].numpy(), cosine[i].numpy()) for i in kept]
    assert found.mean_ap == pytest.approx(np.mean(per_query))
    metric = RetrievalMAP(empty_target_action="skip")  # it passes over what scores no more than 0
    indexes = torch.arange(12)[:, None].expand(-1, 50)
    assert found.mean_ap == pytest.approx(float(metric(cosine + 1, positive, indexes=indexes)), abs=1e-6)
    first = [order.index(True) for order in orders]
    assert found.recall == {k: pytest.approx(np.mean([f < k for f in first])) for k in (1, 5, 10)}
    assert found.mrr == pytest.approx(np.mean([1 / (f + 1) for f in first]))
    assert found.official_mrr == pytest.approx(np.sum([1 / (f + 1) for f in first]) / 12)
    assert found.queries == 11


def test_junk_leaves_the_ranking_but_not_the_official_mrr():
    gallery = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]])
    positive = torch.tensor([[False, False, True, False]])
    junk = torch.tensor([[True, False, False, False]])
    found = retrieval.retrieve(gallery, torch.tensor([[1.0, 0.0]]), positive, junk)
    assert (found.mean_ap, found.oxford) == (pytest.approx(1 / 2), pytest.approx(1 / 4))
    assert (found.mrr, found.official_mrr) == (pytest.approx(1 / 2), pytest.approx(1 / 3))
    with pytest.raises(ValueError, match="no query"):
        retrieval.retrieve(gallery, torch.rand(2, 2), torch.zeros(2, 4, dtype=torch.bool))
