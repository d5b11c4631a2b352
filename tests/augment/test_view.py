"""Views against slow references: SciPy, PIL and torchvision, one image at a time, and plain loops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data as photos
from torch.nn import functional as F

from rushlight.augment import affine as m
from rushlight.augment.view import View, concatenate, paint

from torchvision.transforms.v2 import functional as tv  # isort: skip

sizes = st.tuples(st.integers(2, 17), st.integers(2, 17))
seeds = st.integers(0, 2**31)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_bytes(n: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=generator(seed))


def random_geometry(n: int, seed: int, spread: float = 0.5) -> torch.Tensor:
    """Affine maps whose linear part is far from singular."""
    noise = torch.rand(n, 2, 3, generator=generator(seed)) * 2 - 1
    noise[:, :, 2] *= 10
    noise[:, :, :2] *= spread * 0.9
    return torch.eye(2, 3) + noise


def view_of(geometry: torch.Tensor, source, size=None, **settings) -> View:
    return View(geometry, m.identity_colour(len(geometry)), size or source, source, **settings)


def photo(size: int = 48) -> torch.Tensor:
    image = torch.from_numpy(photos.astronaut()).permute(2, 0, 1)[None]
    return F.interpolate(image.float(), size=(size, size), mode="area").round().to(torch.uint8)


# Sampling.


def test_the_identity_changes_nothing():
    images = random_bytes(3, (9, 7))
    assert torch.allclose(View.identity(3, (9, 7)).images(images), images.float() / 255, atol=1e-7)
    assert torch.allclose(view_of(m.identity(3), (9, 7)).images(images), images.float() / 255, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, seeds, st.sampled_from([("reflect", "mirror"), ("border", "nearest")]))
def test_bilinear_sampling_is_that_of_scipy(source, size, seed, padding):
    images, geometry = random_bytes(2, source, seed), random_geometry(2, seed)
    seen = view_of(geometry, source, size, padding=padding[0]).images(images)
    for image, matrix, result in zip(images, geometry.double().numpy(), seen):
        # SciPy counts (row, column) from the centre of the first pixel.
        linear, shift = matrix[::-1, 1::-1], matrix[::-1, 2]
        offset = linear @ [0.5, 0.5] + shift - 0.5
        for channel in range(3):
            expected = scipy.ndimage.affine_transform(
                image[channel].numpy().astype(float) / 255, linear, offset, size, order=1, mode=padding[1]
            )
            np.testing.assert_allclose(result[channel].numpy(), expected, atol=2e-4)


def test_outside_of_the_image_zeros_are_black_exactly_where_masks_are_unknown():
    images = random_bytes(16, (8, 12)).clamp(min=1)
    view = View(random_geometry(16, 0), m.invert_colour(torch.zeros(16).bool()), (10, 9), (8, 12), "zeros")
    view.colour[:, :, 3] = 0.25  # black must stay black whatever the colour matrix adds
    outside = view.masks(torch.zeros(16, 8, 12, dtype=torch.uint8)) == 255
    assert 0 < outside.float().mean() < 1
    assert torch.equal(view.images(images).amax(1) == 0, outside)


@pytest.mark.parametrize("size", [(5, 20), (16, 16), (30, 9)])
def test_resizing_is_that_of_interpolate(size):
    images = random_bytes(2, (16, 11))
    expected = F.interpolate(images.float() / 255, size=size, mode="bilinear", align_corners=False)
    seen = View.identity(2, (16, 11), size).images(images)
    assert torch.allclose(seen, expected, atol=1e-5)


def test_reducing_by_whole_blocks_is_their_mean():
    images = random_bytes(2, (24, 36))
    seen = View.identity(2, (24, 36), (6, 9)).images(images, reduce=4)
    assert torch.allclose(seen, F.avg_pool2d(images.float() / 255, 4), atol=1e-5)


def test_reducing_keeps_a_crop_in_its_place():
    ramp = torch.linspace(0, 1, 64)
    images = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), ramp.flip(0).expand(64, 64)])[None]
    crop = view_of(m.crop(torch.tensor([[10.0, 5, 50, 60]]), (16, 16)), (64, 64), (16, 16))
    assert torch.allclose(crop.images(images, reduce=2), crop.images(images), atol=1e-5)


def test_crops_are_those_of_torchvision():
    images = photo(48)
    for box in ([8, 4, 40, 28], [0, 0, 48, 48], [13, 20, 29, 44]):
        x1, y1, x2, y2 = box
        view = view_of(m.crop(torch.tensor([box]).float(), (20, 32)), (48, 48), (20, 32))
        expected = tv.resized_crop(images.float() / 255, y1, x1, y2 - y1, x2 - x1, [20, 32], antialias=False)
        # torchvision crops first, and so repeats the crop's edge where a view sees the pixel beyond.
        assert torch.allclose(view.images(images)[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-4)


@pytest.mark.parametrize("degrees", [-70.0, -10.0, 25.0, 90.0])
def test_rotations_are_those_of_torchvision(degrees):
    images = photo(33)
    seen = view_of(m.rotate(torch.tensor([degrees]), (33, 33)), (33, 33)).images(images)
    expected = tv.rotate(images.float() / 255, degrees, tv.InterpolationMode.BILINEAR)
    middle = (..., slice(8, 25), slice(8, 25))
    assert torch.allclose(seen[middle], expected[middle], atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1])
def test_shears_are_those_of_pil_about_the_centre(axis):
    tangent = torch.zeros(1, 2)
    tangent[0, axis] = 0.3
    seen = view_of(m.shear(tangent, (32, 32)), (32, 32)).images(photo(32))
    matrix = [1, 0.3, -0.3 * 16, 0, 1, 0] if axis == 0 else [1, 0, 0, 0.3, 1, -0.3 * 16]
    picture = Image.fromarray(photo(32)[0].permute(1, 2, 0).numpy())
    expected = np.asarray(picture.transform((32, 32), Image.AFFINE, matrix, Image.BILINEAR)) / 255
    inner = slice(6, 26)
    np.testing.assert_allclose(seen[0].permute(1, 2, 0).numpy()[inner, inner], expected[inner, inner], atol=0.01)


def test_scaling_translating_and_flipping_move_the_content_as_one_sees_it():
    images = torch.zeros(1, 3, 8, 10)
    images[..., 3, 2] = 1
    moved = view_of(m.translate(torch.tensor([[4.0, 2.0]])), (8, 10)).images(images)
    assert moved[0, 0, 5, 6] > 0.999
    flipped = view_of(m.flip(torch.tensor([True]), 10), (8, 10)).images(images)
    assert torch.allclose(flipped, images.flip(-1), atol=1e-4)
    grown = m.scale(torch.tensor([2.0]), (8, 10))
    assert torch.allclose(
        m.apply(m.invert(grown), torch.tensor([[[5.0, 4.0], [7.0, 4.0]]])), torch.tensor([[[5.0, 4], [9, 4]]])
    )


def test_nearest_sampling_of_whole_shifts_is_exact():
    images = random_bytes(64, (7, 9))
    shift = torch.randint(-3, 4, (64, 2), generator=generator())
    flips = torch.rand(64, generator=generator()) < 0.5
    geometry = m.compose(m.flip(flips, 9), m.translate(shift.float()))
    seen = view_of(geometry, (7, 9), sampling="nearest").images(images)
    for image, (dx, dy), flip, result in zip(images.numpy(), shift.tolist(), flips.tolist(), seen):
        image = image[..., ::-1] if flip else image
        padded = np.pad(image, ((0, 0), (3, 3), (3, 3)), mode="reflect")
        expected = padded[:, 3 - dy : 10 - dy, 3 - dx : 12 - dx]
        assert np.array_equal((result * 255).round().numpy(), expected)


def test_images_of_one_pixel_can_be_seen():
    seen = view_of(random_geometry(2, 0), (1, 1), (3, 3)).images(torch.full((2, 3, 1, 1), 51, dtype=torch.uint8))
    assert torch.allclose(seen, torch.full((2, 3, 3, 3), 0.2), atol=1e-6)


def test_bytes_and_floats_are_seen_alike_and_the_output_type_is_chosen():
    images, view = random_bytes(4, (8, 8)), view_of(random_geometry(4, 1), (8, 8))
    assert torch.allclose(view.images(images), view.images(images.float() / 255), atol=1e-5)
    seen = view.images(images, dtype=torch.bfloat16, memory_format=torch.channels_last)
    assert seen.dtype == torch.bfloat16
    assert seen.is_contiguous(memory_format=torch.channels_last)


def test_a_view_refuses_images_it_is_not_of():
    view = View.identity(2, (8, 8))
    with pytest.raises(ValueError, match="of 2 images, not of 3"):
        view.images(random_bytes(3, (8, 8)))
    with pytest.raises(ValueError, match=r"\(8, 8\), not of \(8, 9\)"):
        view.masks(torch.zeros(2, 8, 9))


# Labels.


@settings(max_examples=25, deadline=None)
@given(sizes, sizes, seeds)
def test_masks_are_those_of_a_loop(source, size, seed):
    masks = torch.randint(0, 5, (2, *source), dtype=torch.uint8, generator=generator(seed))
    geometry = random_geometry(2, seed)
    seen = view_of(geometry, source, size).masks(masks)
    for b in range(2):
        for row in range(size[0]):
            for column in range(size[1]):
                x, y = (geometry[b] @ torch.tensor([column + 0.5, row + 0.5, 1.0])).tolist()
                if min(abs(x - round(x)), abs(y - round(y))) < 1e-4:
                    continue  # on an edge between pixels, rounding decides
                inside = 0 <= x < source[1] and 0 <= y < source[0]
                expected = masks[b, math.floor(y), math.floor(x)].item() if inside else 255
                assert seen[b, row, column].item() == expected


def test_depth_and_instances_keep_their_type_and_are_unknown_outside():
    view = view_of(m.translate(torch.tensor([[2.0, 0.0]])), (4, 6))
    depth = torch.arange(24.0).view(1, 4, 6)
    seen = view.depth(depth)
    assert seen[..., :2].isnan().all()
    assert torch.equal(seen[..., 2:], depth[..., :-2])
    instance = view.instance(torch.ones(1, 4, 6, dtype=torch.int16))
    assert instance.dtype == torch.int16
    assert instance[..., :2].eq(-1).all()
    assert instance[..., 2:].eq(1).all()
    scores = view.nearest(torch.rand(1, 5, 4, 6), 0.0)
    assert scores.shape == (1, 5, 4, 6)


def test_masks_come_back_by_the_inverse():
    masks = torch.randint(0, 5, (32, 12, 12), dtype=torch.uint8, generator=generator())
    geometry = m.compose(
        m.flip(torch.arange(32) % 2 == 0, 12),
        m.translate(torch.randint(-4, 5, (32, 2), generator=generator()).float()),
    )
    view = view_of(geometry, (12, 12))
    back = view.inverse_masks(view.masks(masks))
    known = back != 255
    assert 0.3 < known.float().mean() < 1
    assert torch.equal(back[known], masks[known])


@settings(max_examples=25, deadline=None)
@given(sizes, sizes, seeds)
def test_points_come_back_by_the_inverse(source, size, seed):
    view = view_of(random_geometry(3, seed), source, size)
    points = torch.rand(3, 5, 2, generator=generator(seed)) * 10
    assert torch.allclose(view.inverse_points(view.points(points)), points, atol=1e-2)
    assert torch.allclose(view.inverse().points(points), view.inverse_points(points), atol=1e-2)


def test_keypoints_follow_the_pixels_they_mark():
    view = view_of(m.rotate(torch.tensor([30.0, -45.0]), (41, 41)), (41, 41))
    images = torch.zeros(2, 3, 41, 41)
    images[..., 12:15, 25:28] = 1
    keypoints = torch.tensor([26.5, 13.5, 2.0]).expand(2, 1, 1, 3)
    moved = view.keypoints(keypoints)
    for image, (x, y, visible) in zip(view.images(images), moved[:, 0, 0].tolist()):
        weight = image[0] / image[0].sum()
        grid = torch.arange(41) + 0.5
        assert abs((weight.sum(0) * grid).sum() - x) < 0.05
        assert abs((weight.sum(1) * grid).sum() - y) < 0.05
        assert visible == 2
    assert torch.allclose(view.inverse_keypoints(moved), keypoints, atol=1e-4)


def test_keypoints_outside_are_not_visible_and_unknown_ones_stay_unknown():
    view = view_of(m.translate(torch.tensor([[5.0, 0.0]])), (8, 8))
    keypoints = torch.tensor([[[[1.0, 1, 2], [6, 1, 1], [0, 0, -1], [3, 3, 0]]]])
    expected = torch.tensor([[[[6.0, 1, 2], [0, 0, 0], [0, 0, -1], [0, 0, 0]]]])
    assert torch.equal(view.keypoints(keypoints), expected)


def test_boxes_are_those_around_the_pixels_they_hold():
    geometry = torch.cat([random_geometry(40, 3, 0.3), m.rotate(torch.linspace(-60, 60, 8), (40, 40))])
    geometry = torch.cat([geometry[:, :, :2], m.about_centre(geometry, (40, 40))[:, :, 2:]], -1)
    view = view_of(geometry, (40, 40), sampling="bilinear")
    masks = torch.zeros(48, 40, 40, dtype=torch.uint8)
    masks[:, 12:26, 15:22] = 1
    boxes = torch.tensor([15.0, 12, 22, 26, 7, 1]).expand(48, 1, 6)
    moved, seen = view.boxes(boxes, visible=0.0), view.masks(masks, fill=0)
    checked = 0
    for (x1, y1, x2, y2, name, visibility), mask in zip(moved[:, 0].tolist(), seen):
        rows, columns = mask.nonzero().unbind(1)
        if visibility == 0 or len(rows) == 0:
            continue
        assert name == 7
        around = (columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1)
        assert around[0] >= x1 - 1
        assert around[1] >= y1 - 1
        assert around[2] <= x2 + 1
        assert around[3] <= y2 + 1
        if x1 > 2 and y1 > 2 and x2 < 38 and y2 < 38:
            assert max(abs(a - b) for a, b in zip(around, (x1, y1, x2, y2))) < 2.6
            checked += 1
    assert checked > 10


def test_boxes_mostly_outside_are_not_visible_and_unknown_ones_stay_unknown():
    view = view_of(m.translate(torch.tensor([[6.0, 0.0]])), (10, 10))
    boxes = torch.tensor(
        [
            [
                [0.0, 0, 2, 2, 3, 1],
                [0, 0, 10, 4, 1, 1],
                [3, 0, 8, 2, 2, 1],
                [0, 0, 0, 0, 0, -1],
                [0, 0, 0, 0, 0, 0],
            ]
        ]
    )
    moved = view.boxes(boxes)
    assert torch.equal(moved[0, 0], torch.tensor([6.0, 0, 8, 2, 3, 1]))
    assert torch.equal(moved[0, 1], torch.tensor([6.0, 0, 10, 4, 1, 1]))  # four tenths are left
    assert moved[0, 2].tolist() == [0, 0, 0, 0, 2, 0]  # a fifth is left
    assert moved[0, 3:, 5].tolist() == [-1, 0]


def test_boxes_come_back_from_a_flipped_crop():
    geometry = m.compose(m.crop(torch.tensor([[4.0, 2, 28, 30]]), (16, 20)), m.flip(torch.tensor([True]), 20))
    view = view_of(geometry, (32, 32), (16, 20))
    boxes = torch.tensor([[[6.0, 5, 20, 19, 1, 1]]])
    assert torch.allclose(view.inverse_boxes(view.boxes(boxes)), boxes, atol=1e-4)
    assert view.flipped.tolist() == [True]


def test_crop_boxes_are_shares_of_the_input():
    boxes = torch.tensor([[4.0, 2, 28, 30], [-8, 0, 16, 32]])
    geometry = m.compose(m.crop(boxes, (16, 20)), m.flip(torch.tensor([True, False]), 20))
    view = view_of(geometry, (32, 64), (16, 20))
    expected = torch.tensor([[4 / 64, 2 / 32, 28 / 64, 30 / 32], [0, 0, 16 / 64, 1]])
    assert torch.allclose(view.crop_boxes(), expected, atol=1e-6)


# Composition.


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_composed_views_are_views_in_a_row(seed):
    one, two = (
        view_of(random_geometry(3, seed), (9, 8), (7, 6)),
        view_of(random_geometry(3, seed + 1), (7, 6), (5, 4)),
    )
    one.colour[:], two.colour[:] = torch.rand(2, 3, 3, 4, generator=generator(seed))
    both = one.compose(two)
    assert (both.source, both.size) == ((9, 8), (5, 4))
    points = torch.rand(3, 4, 2, generator=generator(seed)) * 8
    assert torch.allclose(both.inverse_points(points), one.inverse_points(two.inverse_points(points)), atol=1e-3)
    pixels = torch.rand(3, 3, 4, generator=generator(seed))
    in_a_row = m.chain(two.colour, one.colour)
    by_hand = two.colour[:, :, :3] @ (one.colour[:, :, :3] @ pixels + one.colour[:, :, 3:]) + two.colour[:, :, 3:]
    assert torch.allclose(in_a_row[:, :, :3] @ pixels + in_a_row[:, :, 3:], by_hand, atol=1e-5)
    assert torch.allclose(both.colour, in_a_row)


def test_between_maps_what_one_view_sees_to_where_another_sees_it():
    masks = torch.randint(0, 9, (16, 14, 14), dtype=torch.uint8, generator=generator())
    shifts = torch.randint(-3, 4, (2, 16, 2), generator=generator()).float()
    one = view_of(m.compose(m.flip(torch.arange(16) % 2 == 0, 14), m.translate(shifts[0])), (14, 14))
    two = view_of(m.translate(shifts[1]), (14, 14))
    moved, direct = one.between(two).masks(one.masks(masks)), two.masks(masks)
    known = moved != 255
    assert known.float().mean() > 0.4
    assert torch.equal(moved[known], direct[known])
    points = torch.rand(16, 3, 2) * 14
    assert torch.allclose(one.between(two).points(one.points(points)), two.points(points), atol=1e-4)


def test_views_that_do_not_fit_are_not_composed():
    with pytest.raises(ValueError, match="second view is of"):
        View.identity(1, (8, 8)).compose(View.identity(1, (9, 9)))
    with pytest.raises(ValueError, match="different inputs"):
        View.identity(1, (8, 8)).between(View.identity(1, (9, 9), (8, 8)))


def test_views_are_concatenated_and_cut():
    one, two = (
        view_of(random_geometry(2, 0), (8, 8)),
        view_of(random_geometry(3, 1), (8, 8), sampling="nearest"),
    )
    both = concatenate([one, two])
    assert len(both) == 5
    assert both.sampling == "bilinear"
    assert torch.equal(both[2:].geometry, two.geometry)
    assert both.to("cpu").size == (8, 8)
    with pytest.raises(ValueError, match="one size"):
        concatenate([one, View.identity(2, (8, 8))])


def test_painting_clips():
    seen = paint(torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1), m.brightness(torch.tensor([1.5])))
    assert torch.allclose(seen.flatten(), torch.tensor([0.3, 0.75, 1.0]))


def test_a_mirrored_and_shifted_view_gives_back_what_it_saw_of_each_raster() -> None:
    generator = torch.Generator().manual_seed(0)
    images, depth = torch.rand(2, 3, 6, 8, generator=generator), torch.rand(2, 6, 8, generator=generator)
    instance = torch.randint(0, 5, (2, 6, 8), generator=generator, dtype=torch.int16)
    geometry = m.flip(torch.tensor([True, False]), 8)
    geometry[1, 0, 2] += 2  # the second image loses its two leftmost columns
    view = replace(View.identity(2, (6, 8)), geometry=geometry, sampling="nearest")
    seen = torch.ones(2, 6, 8, dtype=torch.bool)
    seen[1, :, :2] = False
    back = view.inverse_images(view.images(images))
    torch.testing.assert_close(back.movedim(1, -1)[seen], images.movedim(1, -1)[seen])
    again = view.inverse_depth(view.depth(depth))
    torch.testing.assert_close(again[seen], depth[seen])
    assert again[~seen].isnan().all()
    numbers = view.inverse_instance(view.instance(instance))
    assert torch.equal(numbers[seen], instance[seen])
    assert (numbers[~seen] == -1).all()
