import torch

from rushlight.data.columns import TEST
from rushlight.data.synthetic import figures


def test_the_discs_lie_where_the_keypoints_say():
    data = figures.compose(20, 5, size=48, most=2, seed=3)
    assert int((data["fold"] == TEST).sum()) == 5
    images, keypoints = data["image"].float() / 255, data["keypoints"]
    right = []
    for image, instances in zip(images, keypoints, strict=True):
        for joints in instances[instances[..., 2].amax(1) > 0]:
            for joint, (x, y, _) in enumerate(joints.tolist()):
                shown = image[:, int(y), int(x)]
                right.append(bool((shown - torch.tensor(figures.COLOURS[joint])).abs().max() < 0.01))
    assert sum(right) / len(right) > 0.95  # another disc may lie above


def test_boxes_hold_their_figures_and_empty_slots_are_empty():
    data = figures.compose(30, 0, most=3, size=64)
    there = data["boxes"][..., 5] > 0
    assert there[:, 0].all()
    assert not there.all()
    assert not data["keypoints"][~there].any()
    x, y = data["keypoints"][..., 0][there], data["keypoints"][..., 1][there]
    box = data["boxes"][there]
    assert (x >= box[:, :1]).all()
    assert (y <= box[:, 3:4]).all()


def test_the_same_seed_gives_the_same_figures():
    assert torch.equal(figures.compose(5, 0, seed=1)["image"], figures.compose(5, 0, seed=1)["image"])
    assert not torch.equal(figures.compose(5, 0, seed=1)["image"], figures.compose(5, 0, seed=2)["image"])
