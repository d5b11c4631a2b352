from __future__ import annotations

import pytest
import torch

from rushlight.data.dataset import Dataset
from rushlight.methods.semi.cw_bass.reliable import label_reliable, stability
from rushlight.nets import encoders
from rushlight.nets.heads import Linear
from rushlight.run.model import Model


def image_iou(one, other, classes):
    scores = []
    for k in range(classes):
        mine, theirs = one == k, other == k
        if bool((mine | theirs).any()):
            scores.append(float((mine & theirs).sum()) / float((mine | theirs).sum()))
    return sum(scores) / len(scores)


def test_stability_is_the_mean_iou_of_earlier_predictions_with_the_last():
    generator = torch.Generator().manual_seed(0)
    early, middle, last = (torch.randint(0, 3, (5, 6, 7), generator=generator) for _ in range(3))
    want = [(image_iou(early[i], last[i], 3) + image_iou(middle[i], last[i], 3)) / 2 for i in range(5)]
    got = stability([early, middle, last], 3)
    torch.testing.assert_close(got, torch.tensor(want, dtype=got.dtype))
    torch.testing.assert_close(stability([last, last], 3), torch.ones(5, dtype=torch.float64))


def test_a_single_checkpoint_has_nothing_to_agree_with():
    with pytest.raises(ValueError, match="two checkpoints"):
        stability([torch.zeros(2, 3, 3, dtype=torch.long)], 3)


class Says(Model):
    """A model that predicts what it is told to."""

    def __init__(self, masks, classes):
        super().__init__(encoders.create("conv16", seed=0))
        self.masks, self.classes = masks, classes

    def predict(self, images, **settings):
        return {"mask": torch.nn.functional.one_hot(self.masks, self.classes).movedim(-1, 1).float()}

    def head(self, name):
        return Linear(width=1, outputs=self.classes)


def test_the_stable_half_gets_the_last_checkpoints_labels():
    images = torch.zeros(5, 3, 4, 4, dtype=torch.uint8)
    masks = torch.full((5, 4, 4), 255, dtype=torch.uint8)
    masks[0] = 1
    data, rows = Dataset({"image": images, "mask": masks}), torch.arange(1, 5)
    last = torch.randint(0, 3, (4, 4, 4), generator=torch.Generator().manual_seed(0))
    earlier = last.clone()
    earlier[0], earlier[2, :2] = (earlier[0] + 1) % 3, (earlier[2, :2] + 1) % 3
    labelled, kept = label_reliable(data, [Says(earlier, 3), Says(last, 3)], rows, share=0.5)
    assert sorted(kept.tolist()) == [2, 4]
    assert torch.equal(labelled["mask"][2].long(), last[1])
    assert torch.equal(labelled["mask"][[0, 1, 3]], data["mask"][[0, 1, 3]])
    assert bool((data["mask"][1:] == 255).all())
