"""Encoders that nobody trains: statistics, random features, MOSAIKS."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rushlight.nets import baselines


def test_statistics_of_a_constant_image():
    found = baselines.statistics(torch.full((1, 2, 5, 5), 0.3))
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.3, 0, 0, 0.3, 0.3, 0.3, 0.3]]), atol=1e-7, rtol=1e-6)
    image = torch.rand(1, 1, 4, 4)
    pixels = image.flatten().numpy()
    expected = [pixels.mean(), pixels.std(ddof=1), pixels.max(), pixels.min()]
    np.testing.assert_allclose(baselines.statistics(image)[0].numpy(), expected, rtol=1e-5)


def test_random_features_are_torchgeos():
    """The formula of torchgeo.models.RCF: the second half is the ReLU of the negative, its bias negated with it."""
    model, images = baselines.rcf(3, 16, seed=1), torch.rand(4, 3, 9, 9)
    found = model(images)
    for n, image in enumerate(images.double()):
        for k, weight in enumerate(model.weight.double()):
            cells = [float((image[:, y : y + 3, x : x + 3] * weight).sum()) - 1 for y in range(7) for x in range(7)]
            assert float(found[n, k]) == pytest.approx(np.mean(np.maximum(cells, 0)), rel=1e-4, abs=1e-6)
            assert float(found[n, 16 + k]) == pytest.approx(np.mean(np.maximum(np.negative(cells), 0)), rel=1e-4)


def test_whitening_is_the_official_one_and_leaves_the_stated_covariance():
    patches = torch.rand(500, 12, generator=torch.Generator().manual_seed(0)).double()
    values = patches.numpy() - patches.numpy().mean(1, keepdims=True)
    values = values / np.linalg.norm(values, axis=1, keepdims=True)
    covariance = values.T @ values / len(values)
    size, vectors = np.linalg.eigh(covariance)
    root = vectors @ np.diag((size + 0.001) ** -0.5) @ vectors.T
    found = baselines.whiten(patches).numpy()
    np.testing.assert_allclose(found, values @ root @ root.T, atol=1e-8)
    inverse = np.linalg.inv(covariance + 0.001 * np.eye(12))
    np.testing.assert_allclose(found.T @ found / len(found), inverse @ covariance @ inverse, atol=1e-6)
    assert np.isfinite(baselines.whiten(torch.zeros(5, 27)).numpy()).all()


def test_mosaiks_filters_are_patches_of_the_images():
    images = torch.rand(6, 3, 8, 8)
    model = baselines.mosaiks(images, 10, seed=3)
    assert model.weight.shape == (10, 3, 3, 3)
    assert torch.equal(model.weight, baselines.mosaiks(images, 10, seed=3).weight)
    assert not torch.equal(model.weight, baselines.mosaiks(images, 10, seed=4).weight)
    assert model(images).shape == (6, 20)
