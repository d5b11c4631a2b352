from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight import tasks
from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.data.edit import duplicates
from rushlight.data.edit.duplicates import equal
from rushlight.data.edit.split import blind, hold_out
from rushlight.data.synthetic import fashion


def made(rows: int, seed: int = 0, copies: int = 0, **columns: torch.Tensor) -> Dataset:
    """Images of noise, the last `copies` of them copies of the first."""
    g = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (rows, 3, 5, 7), generator=g, dtype=torch.uint8)
    image[rows - copies :] = image[:copies]
    return Dataset({"image": image, **columns})


@settings(deadline=None)
@given(st.lists(st.integers(-1, 4), min_size=2, max_size=80), st.floats(0.05, 0.9), st.integers(0, 99))
def test_each_class_keeps_its_share_on_both_sides(labels, share, seed):
    labels = torch.tensor(labels)
    data = made(len(labels), **{"class": labels})
    if (labels >= 0).sum() < 2:
        with pytest.raises(UserError):
            hold_out(data, share, seed)
        return
    fold = hold_out(data, share, seed)["fold"]
    assert set(fold.tolist()) == {TRAIN, TEST}
    assert (fold[labels < 0] == TRAIN).all()
    sizes = [int((labels == c).sum()) for c in range(5)]
    for c, n in enumerate(sizes):
        test = int(((labels == c) & (fold == TEST)).sum())
        assert n < 2 or 1 <= test <= n - 1
        assert n < 2 or abs(test - share * n) <= 1
        assert n != 1 or test == 0 or max(sizes) == 1
    assert torch.equal(fold, hold_out(data, share, seed)["fold"])


def test_the_seed_decides_and_an_own_fold_is_kept():
    data = made(200, **{"class": torch.arange(200) % 4})
    split = hold_out(data)
    assert int((split["fold"] == TEST).sum()) == 50
    assert not torch.equal(split["fold"], hold_out(data, seed=1)["fold"])
    assert hold_out(split, 0.5, seed=3) is split


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 99))
def test_equal_images_stay_on_one_side(copies, seed):
    labels = torch.arange(30) % 3
    labels[-5:] = -1  # a copy without a label follows its twin
    data = made(30, seed, copies, **{"class": labels})
    fold = hold_out(data, 0.3, seed)["fold"]
    assert torch.equal(fold[30 - copies :], fold[:copies])
    group = equal(data)
    same = group[:, None] == group
    pixels = data["image"].flatten(1)
    assert torch.equal(same, (pixels[:, None] == pixels).all(-1))


def test_images_that_differ_in_one_pixel_are_not_equal():
    image = torch.zeros(40, 3, 32, 32, dtype=torch.uint8)
    for row in range(1, 40):
        image[row].view(-1)[row * 70] = 1
    assert equal(Dataset({"image": image})).unique().numel() == 40


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 999))
def test_tags_keep_their_share(seed):
    g = torch.Generator().manual_seed(seed)
    rate = torch.tensor([0.5, 0.3, 0.1, 0.05])
    tags = (torch.rand(200, 4, generator=g) < rate).to(torch.int8)
    tags[torch.rand(200, 4, generator=g) < 0.1] = -1
    fold = hold_out(made(200, tags=tags), 0.25, seed)["fold"]
    assert abs(int((fold == TEST).sum()) - 50) <= 6
    for tag in range(4):
        positives = int((tags[:, tag] == 1).sum())
        test = int(((tags[:, tag] == 1) & (fold == TEST)).sum())
        assert abs(test - 0.25 * positives) <= 2.5, "rarer tags come first, so all keep their share"
        assert positives < 4 or 1 <= test < positives


@st.composite
def shown(draw):
    """Groups of rows, and which of a few classes each row shows, some of them rarely; None is unknown."""
    g = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    rows, classes = draw(st.integers(40, 160)), draw(st.integers(1, 5))
    rate = torch.rand(classes, generator=g) ** 3
    group = torch.randint(0, rows // draw(st.integers(1, 3)), (rows,), generator=g)
    return group, torch.rand(rows, classes, generator=g) < rate, torch.rand(rows, generator=g) < 0.9


def held(group, there, known, share, seed):
    """The fold of rows that show boxes of these classes."""
    boxes = torch.zeros(len(there), there.shape[1], 6)
    boxes[..., 2:4], boxes[..., 4] = 5.0, torch.arange(there.shape[1])
    boxes[..., 5] = torch.where(known[:, None], there.float(), -1.0)
    data = made(len(there), seed, boxes=boxes, group=group).with_info(box_names=tuple("abcde")[: there.shape[1]])
    return tasks.find("boxes").split(data, share, seed)["fold"] == TEST


@settings(deadline=None, max_examples=60)
@given(shown(), st.sampled_from([0.2, 0.25, 0.5]), st.integers(0, 99))
def test_what_images_show_is_on_both_sides(case, share, seed):
    group, there, known = case
    test = held(group, there, known, share, seed)
    for one in group.unique():
        assert len(test[group == one].unique()) == 1, "groups are whole"
    members = group[known].bincount()
    wanted = share * int(known.sum())
    assert abs(int((test & known).sum()) - wanted) <= int(members.max()), "the size is the share, to a group"
    for shows in there.T:
        of = group[known & shows].unique()
        if len(of) >= 2:
            assert 0 < len(group[known & shows & test].unique()) < len(of), "a class of two groups is on both sides"
    assert torch.equal(test, held(group, there, known, share, seed)), "the seed decides"


@pytest.mark.parametrize("task", ["mask", "boxes", "keypoints", "tags"])
def test_every_task_parts_what_is_rare(task):
    """Of 200 images two show the rare class (joint, tag): one is held out, whatever the seed."""
    rare = torch.zeros(200, dtype=torch.bool)
    rare[[3, 120]] = True
    mask = torch.zeros(200, 5, 7, dtype=torch.uint8)
    mask[rare, 2, 3] = 1
    joints = torch.ones(200, 1, 2, 3)
    joints[~rare, 0, 1] = 0
    boxes = torch.tensor([0, 0, 4, 4, 0, 1.0]).repeat(200, 2, 1)
    boxes[:, 1, 4], boxes[~rare, 1, 5] = 1, 0
    tags = torch.stack([torch.ones(200), rare.float()], 1).to(torch.int8)
    data = made(200, mask=mask, boxes=boxes, keypoints=joints, tags=tags)
    data = data.with_info(mask_names=("a", "b"), box_names=("a", "b"), keypoint_names=("a", "b"), tag_names=("a", "b"))
    for seed in range(5):
        test = tasks.find(task).split(data, 0.25, seed)["fold"] == TEST
        assert int(test.sum()) == 50
        assert int((test & rare).sum()) == 1


def test_masks_are_split_at_random_where_nobody_says_what_they_show():
    mask = torch.zeros(40, 5, 7, dtype=torch.uint8)
    mask[30:] = 255
    fold = hold_out(made(40, mask=mask), 0.2)["fold"]
    assert int((fold == TEST).sum()) == 6
    assert (fold[30:] == TRAIN).all()


def test_the_named_column_decides():
    data = made(40, **{"class": torch.full((40,), -1), "tags": torch.ones(40, 1, dtype=torch.int8)})
    assert int((hold_out(data)["fold"] == TEST).sum()) == 10
    with pytest.raises(UserError, match="known 'class'"):
        hold_out(data, column="class")


@pytest.mark.parametrize("share", [0, 1, -0.5, 2.0])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(UserError, match="share"):
        hold_out(made(4, **{"class": torch.arange(4)}), share)


def test_nothing_known_is_refused():
    with pytest.raises(UserError, match="no label is known"):
        hold_out(made(4))


def test_blind_hides_every_label_of_the_test_rows_only():
    data = fashion.load().select(torch.arange(11_990, 12_010))
    seen = blind(data)
    assert not seen.known("class")[data["fold"] == TEST].any()
    assert torch.equal(seen.fold(TRAIN)["class"], data.fold(TRAIN)["class"])
    assert torch.equal(seen["image"], data["image"])
    unlabelled = made(3)
    assert blind(unlabelled) is unlabelled


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 2)), min_size=4, max_size=60),
    st.floats(0.1, 0.6),
    st.integers(0, 99),
    st.integers(0, 2),
)
def test_no_group_is_on_both_sides(rows, share, seed, copies):
    groups, labels = (torch.tensor(values) for values in zip(*rows, strict=True))
    data = made(len(rows), seed, copies, **{"class": labels, "group": groups})
    try:
        fold = hold_out(data, share, seed)["fold"]
    except UserError:
        return  # nothing known, or all of it in one group
    assert set(fold.tolist()) == {TRAIN, TEST}
    for group in set(groups.tolist()) - {-1}:
        assert len(set(fold[groups == group].tolist())) == 1
    assert torch.equal(fold[len(rows) - copies :], fold[:copies])


def test_groups_of_several_classes_keep_their_shares():
    g = torch.Generator().manual_seed(0)
    groups = torch.randint(60, (900,), generator=g)
    labels = torch.randint(3, (900,), generator=g)
    split = hold_out(made(900, **{"class": labels, "group": groups}), 0.25)
    test = split["fold"] == TEST
    for label in range(3):
        assert abs(float(test[labels == label].float().mean()) - 0.25) < 0.05
    assert "60 groups" in split.info.settings["kept_together"]


def test_near_duplicates_move_together():
    data = fashion.load().without("fold").select(slice(0, 1500))
    pairs = duplicates.near(data)
    assert len(pairs) > 2
    for seed in range(3):
        fold = hold_out(data, 0.4, seed)["fold"]
        assert torch.equal(fold[pairs[:, 0]], fold[pairs[:, 1]])


def test_images_that_are_all_alike_are_not_one_thing():
    image = torch.randint(100, 104, (200, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image[:, :, :16] += 60
    image[:, :, :, ::4] += 30
    data = Dataset({"image": image, "class": torch.arange(200) % 2})
    assert len(duplicates.near(data)) > 200
    assert int((hold_out(data)["fold"] == TEST).sum()) == 50
