import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rushlight import tasks
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


@given(st.integers(0, 30))
def test_the_score_of_any_images_is_faster_coco_evals(seed):
    detect, parts = tasks.find("boxes"), boxes_and_guesses(seed)
    for rows in (torch.arange(8), torch.tensor([1, 2, 5, 7])):
        part = {name: values[rows] for name, values in parts.items()}
        if (part["true"][..., 5] > 0).any():
            assert detect.scorer(parts)(rows) == pytest.approx(detect.value(part), abs=1e-9)


def test_each_true_object_is_found_once_and_of_equals_the_last():
    overlap = np.array([[0.9, 0.9], [0.6, 0.95], [0.7, 0.7]])
    assert matched(overlap, [0.5]).tolist() == [[True, True, False]]
    assert matched(overlap, [0.92]).tolist() == [[False, True, False]]
    assert matched(np.zeros((2, 0)), [0.5]).tolist() == [[False, False]]
