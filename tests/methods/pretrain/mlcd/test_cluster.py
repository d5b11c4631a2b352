"""Spherical k-means by faiss: groups that are there, centres of length 1, the same for the same seed."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from rushlight.core.errors import UserError
from rushlight.methods.pretrain.mlcd.cluster import nearest_centres, spherical_kmeans


def grouped(n: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    truth = torch.arange(n) % 6
    noise = torch.randn(n, 16, generator=torch.Generator().manual_seed(0))
    return (torch.eye(6, 16)[truth] + 0.05 * noise) * (1 + torch.arange(n)[:, None] % 5), truth


def test_it_finds_groups_whatever_the_lengths() -> None:
    features, truth = grouped()
    best = max(
        adjusted_rand_score(truth, nearest_centres(features, spherical_kmeans(features, 6, seed=s), 1)[:, 0])
        for s in range(3)
    )
    assert best > 0.99


def test_centres_have_length_one_and_depend_on_the_seed_alone() -> None:
    features, _ = grouped()
    one, again, other = (spherical_kmeans(features, 10, seed=seed) for seed in (4, 4, 5))
    torch.testing.assert_close(one.norm(dim=1), torch.ones(10))
    torch.testing.assert_close(one, again, rtol=0, atol=0)
    assert not torch.equal(one, other)


def test_nearest_centres_are_the_highest_cosines() -> None:
    features, _ = grouped(50)
    centres = torch.nn.functional.normalize(torch.randn(12, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    found = nearest_centres(features, centres, 4)
    for n in range(50):
        cosine = [float(features[n] @ centre / features[n].norm()) for centre in centres]
        assert found[n].tolist() == sorted(range(12), key=lambda c: -cosine[c])[:4]


def test_too_few_images_are_told() -> None:
    with pytest.raises(UserError, match="5 images cannot make 6 clusters"):
        spherical_kmeans(torch.randn(5, 4), 6)


def test_a_missing_faiss_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(UserError, match=r"rushlight\[cluster\]"):
        spherical_kmeans(torch.randn(8, 4), 2)
