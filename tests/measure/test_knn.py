"""Nearest neighbours beside scikit-learn and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from rushlight.measure import knn


def clusters(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    centres = torch.randn(4, 6, generator=torch.Generator().manual_seed(9))
    return centres[labels] + 0.9 * torch.randn(n, 6, generator=generator), labels


def test_euclidean_neighbours_are_scikit_learns():
    bank, labels = clusters(120)
    queries, _ = clusters(300, 1)
    expected = KNeighborsClassifier(5).fit(bank.numpy(), labels.numpy()).predict(queries.numpy())
    assert np.array_equal(knn.euclidean(bank, labels, queries, k=5).numpy(), expected)


def test_a_bank_that_asks_itself_leaves_each_image_out():
    bank, labels = clusters(40)
    for row in range(40):
        others = torch.arange(40) != row
        expected = knn.euclidean(bank[others], labels[others], bank[row : row + 1], k=3)
        assert knn.euclidean(bank, labels, k=3)[row] == expected[0]
    assert knn.tag_shares(bank[:3], torch.ones(3, 2, dtype=torch.int8), k=5).tolist() == [[1, 1]] * 3


def test_tags_of_the_nearest_are_counted_where_they_are_known():
    bank, _ = clusters(40)
    queries, _ = clusters(10, 1)
    tags = torch.randint(-1, 2, (40, 3), generator=torch.Generator().manual_seed(0))
    found = knn.tag_shares(bank, tags, queries, k=5)
    for query, row in zip(queries, found, strict=True):
        near = (bank.double() - query.double()).norm(dim=1).argsort()[:5]
        for tag in range(3):
            known = [int(tags[i, tag]) for i in near if tags[i, tag] >= 0]
            assert row[tag] == pytest.approx(sum(known) / max(len(known), 1))


def test_cosine_votes_are_those_of_plain_loops():
    bank, labels = clusters(30)
    queries, _ = clusters(5, 1)
    votes = knn.votes(bank, labels, queries, k=7, temperature=0.1)
    for query, row in zip(queries.double(), votes, strict=True):
        cosine = [float(F.cosine_similarity(query, value.double(), dim=0)) for value in bank]
        expected = np.zeros(4)
        for i in sorted(range(30), key=lambda i: -cosine[i])[:7]:
            expected[labels[i]] += np.exp(cosine[i] / 0.1)
        np.testing.assert_allclose(row.numpy(), expected, rtol=1e-4)


def test_purity_is_the_share_of_neighbours_of_the_same_group():
    generator = torch.Generator().manual_seed(0)
    features, groups = torch.randn(1100, 5, generator=generator), torch.randint(3, (1100,), generator=generator)
    unit = F.normalize(features, dim=1)
    shares = []
    for i in range(1100):
        others = sorted((j for j in range(1100) if j != i), key=(-(unit @ unit[i])).tolist().__getitem__)[:20]
        shares.append(np.mean([int(groups[j] == groups[i]) for j in others]))
    assert knn.purity(3 * features, groups) == pytest.approx(np.mean(shares), abs=1e-4)
    assert knn.purity(features[:4], torch.zeros(4, dtype=torch.long)) == 1.0
