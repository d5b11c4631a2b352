"""The policies of the literature: in range, repeatable, and each what its name says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import generator, photo_bytes, share

from rushlight.augment import affine as m
from rushlight.augment import policy as p
from rushlight.augment import presets

FACTORIES = {
    "identity": presets.identity(24),
    "weak": presets.weak(24),
    "strong": presets.strong(24),
    "randaugment": presets.randaugment(24),
    "self_supervised": presets.self_supervised(24),
    "barlow_first": presets.barlow_pair(24)[0],
    "barlow_second": presets.barlow_pair(24)[1],
    "dense_weak": presets.dense_weak(24),
    "dense_strong": presets.dense_strong(24),
    "bent": p.Policy((24, 24), rotation=30.0, shear=0.2, scale=(0.8, 1.2), cutout=0.3),
}


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("source", [(24, 24), (40, 31)])
def test_every_policy_gives_images_in_range_and_repeats_itself(name, source):
    policy, images = FACTORIES[name], photo_bytes(8, source)
    kept = images.clone()
    seen, view = policy.with_view(images, generator=generator(3))
    assert seen.shape == (8, 3, 24, 24)
    assert seen.dtype == torch.float32
    assert 0 <= seen.min() <= seen.max() <= 1
    assert torch.equal(images, kept)
    assert torch.equal(policy(images, generator=generator(3)), seen)
    assert (view.size, view.source) == ((24, 24), source)
    if name != "identity":
        assert not torch.equal(policy(images, generator=generator(4)), seen)
    floats = policy(images.float() / 255, generator=generator(3))
    # Bytes and floats differ by rounding, which thresholds (posterize, solarize, equalize) may make visible.
    assert (floats - seen).abs().mean() < 0.01


def test_identity_is_exact():
    images = photo_bytes()
    assert torch.allclose(presets.identity(24)(images, generator=generator()), images / 255, atol=1e-7)
    assert torch.allclose(p.Policy((24, 24))(images, generator=generator()), images / 255, atol=1e-7)


def test_weak_is_reflect_pad_crop_and_flip_to_the_bit():
    images = photo_bytes(8).repeat(64, 1, 1, 1)
    seen, view = presets.weak(24).with_view(images, generator=generator())
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (3, 3), (3, 3)), mode="reflect")
    flipped = view.flipped.tolist()
    corner = m.apply(view.geometry, torch.tensor([[[0.5, 0.5]]]).expand(512, 1, 2))[:, 0]
    moves = set()
    for k, (x, y) in enumerate(corner.tolist()):
        x, y = math.floor(x), math.floor(y)
        rows = range(y + 3, y + 27)
        columns = range(x + 3, x - 21, -1) if flipped[k] else range(x + 3, x + 27)
        moves.add((x, y))
        assert np.array_equal((seen[k] * 255).round().numpy(), padded[k][:, rows][:, :, columns])
    assert len({y for _, y in moves}) == 7
    share(view.flipped, 0.5)
    assert not presets.weak(24, flip=False).sample(64, source=(24, 24), generator=generator()).flipped.any()


def test_barlow_twins_two_policies_differ_in_blur_and_solarize():
    first, second = presets.barlow_pair(24)
    assert (first.blur, first.solarize, second.blur, second.solarize) == (1.0, 0.0, 0.1, 0.2)
    assert first.hue == 0.1
    assert first.saturation == 0.2
    assert presets.barlow_pair(224)[0].sigma == (0.1, 2.0)


def test_randaugment_draws_its_operations_evenly():
    policy = presets.randaugment(24)
    slots = policy._slots(4000, generator())
    assert torch.equal(slots.drawn.sum(2), torch.ones(4000, 3, dtype=torch.long))
    for k in range(len(p.OPERATIONS)):
        share(slots.drawn[:, :, k], 1 / 14)
    half = presets.strong(24)._slots(4000, generator())
    share(half.drawn[:, :, p.OPERATIONS.index("identity")], 0.5 + 0.5 / 14)
    assert slots.levels.abs().max() <= 1


def test_a_strong_view_can_lie_on_a_weak_one():
    images = photo_bytes()
    _, weak = presets.dense_weak(24).with_view(images, generator=generator(1))
    seen, strong = presets.dense_strong(24).with_view(images, generator=generator(2), like=weak)
    assert torch.equal(strong.geometry, weak.geometry)
    assert not torch.equal(strong.colour, weak.colour)
    outside = ~weak.inside()[:, None].expand_as(seen)
    sharp = replace(presets.dense_strong(24), blur=0.0)
    assert sharp.with_view(images, generator=generator(2), like=weak)[0][outside].eq(0).all()
    slots = presets.randaugment(24).sample(8, source=(24, 24), generator=generator(), like=weak)
    assert torch.equal(slots.geometry, weak.geometry)
    with pytest.raises(ValueError, match="to be like"):
        presets.dense_strong(32).with_view(images, generator=generator(), like=weak)


@pytest.mark.parametrize("name", FACTORIES)
def test_sample_draws_the_same_matrices_as_with_view(name):
    policy, images = FACTORIES[name], photo_bytes()
    _, view = policy.with_view(images, generator=generator(1))
    drawn = policy.sample(8, source=(24, 24), generator=generator(1), tone=p.Tone.of(images))
    assert torch.equal(drawn.geometry, view.geometry)
    assert drawn.sampling == view.sampling
    if name != "dense_strong" and name in ("strong", "randaugment"):
        assert torch.allclose(drawn.colour, view.colour)


def test_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    for policy in FACTORIES.values():
        policy(photo_bytes(), generator=generator())
    assert torch.equal(torch.random.get_rng_state(), state)
