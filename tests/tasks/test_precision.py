import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight import tasks
from rushlight.tasks import precision
from rushlight.tasks.precision import matched


def boxes_and_guesses(seed, images=8, slots=4, guesses=9, classes=3):
    """Guesses that scatter about true boxes, some of another class, some of no box."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, slots, 2, generator=generator) * 60
    there = (torch.rand(images, slots, 1, generator=generator) < 0.7).float()
    label = torch.randint(0, classes, (images, slots, 1), generator=generator).float()
    size = 5 + 30 * torch.rand(images, slots, 2, generator=generator)
    true = torch.cat([corner, corner + size, label, torch.ones_like(label)], -1) * there
    of = torch.randint(0, slots, (images, guesses, 1), generator=generator).expand(-1, -1, 6)
    found = true.gather(1, of) + torch.cat(
        [3 * torch.randn(images, guesses, 4, generator=generator), torch.zeros(images, guesses, 2)], -1
    )
    found[..., 2:4] = torch.maximum(found[..., 2:4], found[..., :2] + 1)
    found[..., 4] = torch.where(torch.rand(images, guesses, generator=generator) < 0.8, found[..., 4], 1.0)
    found[..., 5] = torch.rand(images, guesses, generator=generator).sort(1, descending=True).values
    return {"found": found, "true": true}


@given(st.integers(0, 30), st.integers(1, 4), st.booleans(), st.sampled_from(range(3)))
def test_the_score_without_each_block_is_faster_coco_evals(seed, blocks, tied, which):
    detect, parts = tasks.find("boxes"), boxes_and_guesses(seed)
    metric = (detect.metric, *detect.also)[which]
    if tied:
        parts["found"][..., 5] = (parts["found"][..., 5] * 4).ceil() / 4
    block = torch.arange(8) % (blocks + 1)
    slow = super(type(detect), detect).left_out(parts, block, metric)
    assert detect.left_out(parts, block, metric).tolist() == pytest.approx(slow.tolist(), abs=1e-9, nan_ok=True)


def test_blocks_without_which_nothing_is_true_have_no_score():
    parts = boxes_and_guesses(0, images=3)
    parts["true"][1:, :, 5] = 0
    found = tasks.find("boxes").left_out(parts, torch.arange(3))
    assert found.isnan().tolist() == [True, False, False]


@settings(max_examples=25)
@given(st.integers(0, 20), st.integers(1, 7))
def test_blocks_are_counted_in_parts_where_there_are_many_matches(seed, cells):
    parts, block = boxes_and_guesses(seed, images=12), torch.arange(12)
    whole = tasks.find("boxes").left_out(parts, block)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "CELLS", cells)
        assert torch.equal(tasks.find("boxes").left_out(parts, block), whole)


def test_each_true_object_is_found_once_and_of_equals_the_last():
    overlap = np.array([[0.9, 0.9], [0.6, 0.95], [0.7, 0.7]])
    assert matched(overlap, [0.5]).tolist() == [[True, True, False]]
    assert matched(overlap, [0.92]).tolist() == [[False, True, False]]
    assert matched(np.zeros((2, 0)), [0.5]).tolist() == [[False, False]]


@given(st.integers(0, 20))
def test_many_images_are_matched_at_once_as_one_by_one(seed):
    rng = np.random.default_rng(seed)
    overlap = rng.choice([0.0, 0.4, 0.55, 0.7, 0.9, 1.0], (5, 6, 3))
    assert np.array_equal(matched(overlap), np.stack([one_by_one(each) for each in overlap]))


def one_by_one(overlap):
    """Match in plain loops."""
    hit = np.zeros((len(precision.IOUS), len(overlap)), dtype=bool)
    for t, least in enumerate(precision.IOUS):
        free = set(range(overlap.shape[1]))
        for i, row in enumerate(overlap):
            best = max(free, key=lambda j: (row[j], j), default=None)
            if best is not None and row[best] >= least:
                hit[t, i] = True
                free.remove(best)
    return hit
