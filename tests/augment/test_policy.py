"""What policies draw: ranges, shares, repeatability."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import generator, photo_bytes, share
from PIL import Image, ImageOps

from rushlight.augment import affine as m
from rushlight.augment import policy as p
from rushlight.augment import presets
from rushlight.augment.view import View, paint


def test_shifts_are_even_over_their_range():
    view = presets.weak(24, flip=False).sample(7000, source=(24, 24), generator=generator())
    for axis in (0, 1):
        for shift in range(-3, 4):
            share(view.geometry[:, axis, 2] == shift, 1 / 7)


def test_resized_crops_lie_in_the_image_with_area_and_ratio_in_range():
    policy = presets.self_supervised(24, scale=(0.08, 0.5))
    view = policy.sample(4000, source=(40, 30), generator=generator())
    seen = view.geometry[:, :, :2] * torch.tensor([24.0, 24.0])
    width, height = seen[:, 0, 0].abs(), seen[:, 1, 1]
    area, ratio = width * height / 1200, width / height
    assert 0.079 < area.min() < 0.1
    assert 0.45 < area.max() < 0.501
    assert ratio.min() > 0.749
    assert ratio.max() < 4 / 3 + 1e-3
    share(area < 0.29, 0.5)
    share(ratio < 1, 0.5)
    corners = torch.tensor([[0.0, 0], [24, 24]]).expand(4000, 2, 2)
    inside = m.apply(view.geometry, corners)
    assert inside.min() > -1e-3
    assert (inside <= torch.tensor([30.001, 40.001])).all()


def test_zoom_windows_hold_the_image_or_lie_in_it():
    view = presets.dense_weak(24).sample(2000, source=(24, 24), generator=generator())
    factor = 1 / view.geometry[:, 0, 0].abs()
    assert 0.5 <= factor.min() < 0.51
    assert 1.98 < factor.max() <= 2.001
    box = view.crop_boxes()
    small = factor < 1
    assert torch.allclose(box[small], torch.tensor([0.0, 0, 1, 1]).expand_as(box[small]), atol=1e-5)
    assert ((box[:, 2] - box[:, 0]) - (1 / factor).clamp(max=1)).abs().max() < 1e-4


def test_jitter_and_grey_come_at_their_shares_and_strengths():
    policy = replace(presets.self_supervised(24), blur=0.0)
    view = policy.sample(6000, source=(24, 24), generator=generator())
    grey = (view.colour[:, 0, :3] - view.colour[:, 1, :3]).abs().amax(1) < 1e-6
    share(grey, 0.2)
    still = (view.colour[~grey] - torch.eye(3, 4)).abs().flatten(1).amax(1) < 1e-5
    share(still, 0.2)
    # A constant grey of 0.5 feels brightness b and then contrast c about 0.5·b: it becomes 0.5·b.
    level = view.colour[:, 0, :3].sum(1) * 0.5 + view.colour[:, 0, 3]
    assert 0.3 - 1e-4 <= level.min() < 0.31
    assert 0.69 < level.max() <= 0.7 + 1e-4


def test_contrast_moves_about_the_images_own_grey():
    policy = p.Policy((24, 24), jitter=1.0, contrast=0.9)
    images = photo_bytes()
    seen = policy(images, generator=generator())
    before, after = ((x.float() / unit).mean((2, 3)) for x, unit in ((images, 255), (seen, 1)))
    assert (m.grey_level(before) - m.grey_level(after)).abs().max() < 0.05
    assert ((images / 255).std((1, 2, 3)) - seen.std((1, 2, 3))).abs().max() > 0.05


def test_solarize_and_blur_touch_their_share_of_the_images():
    images = torch.full((3000, 3, 6, 6), 200, dtype=torch.uint8)
    solarized = p.Policy((6, 6), solarize=0.2)(images, generator=generator())
    share(solarized[:, 0, 0, 0] < 0.5, 0.2)
    checks = torch.zeros(3000, 3, 6, 6)
    checks[..., ::2] = 1
    blurred = p.Policy((6, 6), blur=0.3, sigma=(0.8, 1.0))(checks, generator=generator())
    share((blurred != checks).flatten(1).any(1), 0.3)


def test_cutout_is_a_grey_square_of_the_given_side():
    images = torch.full((500, 3, 20, 20), 255, dtype=torch.uint8)
    hole = p.Policy((20, 20), cutout=0.5)(images, generator=generator())[:, 0] == 0.5
    rows, columns = hole.any(2).sum(1), hole.any(1).sum(1)
    assert rows.max() == columns.max() == 10
    assert torch.equal(hole.flatten(1).sum(1), rows * columns)
    assert rows.min() >= 4  # a centre at the border leaves half of it
    random = p.Policy((20, 20), cutout=0.5, cutout_random=True)(images, generator=generator())[:, 0] == 0.5
    assert random.any(2).sum(1).min() == 0


def one_operation(name: str, level: float, n: int = 1) -> p.Slots:
    drawn = torch.zeros(n, 1, len(p.OPERATIONS), dtype=torch.bool)
    drawn[:, :, p.OPERATIONS.index(name)] = True
    return p.Slots(drawn, drawn * level)


@pytest.mark.parametrize("name", p.OPERATIONS)
def test_each_randaugment_operation_does_what_its_name_says(name):
    """Against the same operation alone, as matrix or effect; `identity` must change nothing."""
    policy, images, level = p.Policy((24, 24), operations=1), photo_bytes(4), 0.8
    slots, tone = one_operation(name, level, 4), p.Tone.of(images)
    view = policy._view(4, (24, 24), generator(), tone, slots, None)
    seen = policy._slot_effects(view.images(images), slots)
    size, many = (24, 24), torch.ones(4)
    geometry = {
        "rotate": m.rotate(30 * level * many, size),
        "shear_x": m.shear(torch.tensor([[0.3 * level, 0]]).expand(4, 2), size),
        "shear_y": m.shear(torch.tensor([[0, 0.3 * level]]).expand(4, 2), size),
        "translate_x": m.translate(torch.tensor([[-7.2 * level, 0]]).expand(4, 2)),
        "translate_y": m.translate(torch.tensor([[0, -7.2 * level]]).expand(4, 2)),
    }.get(name, m.identity(4))
    factor = (0.95 - 0.9 * level) * many
    colour = {
        "brightness": m.brightness(factor),
        "contrast": m.contrast(factor, tone.grey),
        "saturation": m.saturation(factor),
    }.get(name, m.identity_colour(4))
    expected = View(geometry, colour, size, size).images(images)
    if name == "autocontrast":
        pictures = [Image.fromarray(i.permute(1, 2, 0).numpy()) for i in images]
        stretched = [np.asarray(ImageOps.autocontrast(picture)) for picture in pictures]
        expected = torch.from_numpy(np.stack(stretched)).permute(0, 3, 1, 2) / 255
    if name in p.EFFECT_OPERATIONS:
        effect = getattr(p.effects, name)
        parameter = {
            "solarize": [1 - level * many],
            "posterize": [torch.full((4,), 5)],
            "sharpness": [factor],
        }
        expected = effect(expected, *parameter.get(name, []))
    assert (seen - expected).abs().mean() < 0.003
    changed = (seen - images / 255).abs().max() > 0.02
    assert changed == (name != "identity")


def test_tone_is_measured_and_follows_a_colour_matrix():
    images = photo_bytes()
    tone = p.Tone.of(images)
    unit = images.float() / 255
    expected = torch.stack([unit.mean((2, 3)), unit.amin((2, 3)), unit.amax((2, 3))], 2)
    assert torch.allclose(tone.levels, expected, atol=1e-6)
    colour = m.contrast(torch.full((8,), 0.5), tone.grey)
    painted = paint(unit, colour)
    after = torch.stack([painted.mean((2, 3)), painted.amin((2, 3)), painted.amax((2, 3))], 2)
    assert torch.allclose(tone.painted(colour).levels, after, atol=1e-5)
    assert p.Tone.of(images, extremes=False).levels[..., 1:].flatten(0, 1).unique(dim=0).tolist() == [[0, 1]]


def test_large_sources_are_averaged_before_they_are_sampled():
    assert presets.identity(24).reduction((24, 24)) == 1
    assert presets.identity(24).reduction((100, 120)) == 4
    assert presets.self_supervised(24).reduction((100, 100)) == 2
    noise = torch.randint(0, 256, (4, 3, 96, 96), dtype=torch.uint8, generator=generator())
    assert presets.identity(24)(noise, generator=generator()).std() < 0.1  # of 0.29: sixteen pixels' mean


def test_autocontrast_stretches_what_the_slots_before_it_left():
    policy, images = p.Policy((24, 24), operations=2), photo_bytes(4)
    parts = [one_operation("brightness", 0.8, 4), one_operation("autocontrast", 0.5, 4)]
    slots = p.Slots(torch.cat([s.drawn for s in parts], 1), torch.cat([s.levels for s in parts], 1))
    seen = policy._view(4, (24, 24), generator(), p.Tone.of(images), slots, None).images(images)
    assert torch.allclose(seen.amin((2, 3)), torch.zeros(4, 3), atol=0.02)
    assert torch.allclose(seen.amax((2, 3)), torch.ones(4, 3), atol=0.02)
