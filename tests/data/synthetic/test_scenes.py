from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN, decode_text
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import fashion, scenes
from rushlight.data.synthetic.scenes import config, materials
from rushlight.data.synthetic.scenes import paint as painting
from rushlight.data.synthetic.scenes.layout import arranged


@pytest.fixture(scope="module")
def data() -> Dataset:
    return scenes.compose(128, objects=(0, 5), seed=3, domain=range(7))


def objects(data: Dataset, row: int) -> list[list[float]]:
    return [box for box in data["boxes"][row].tolist() if box[5] > 0]


def test_everything_is_known_and_of_the_asked_size(data):
    assert data["image"].shape == (128, 3, 48, 48)
    for name in ("mask", "instance", "boxes", "depth", "domain", "tags", "caption"):
        assert data.known(name).all()
    assert data.info.mask_names == ("background", *data.info.class_names)
    for size in (32, 128):
        assert scenes.compose(2, size=size, objects=(1, 2))["image"].shape == (2, 3, size, size)
    assert len(scenes.compose(0)) == 0


def test_mask_boxes_tags_and_class_follow_from_the_instances(data):
    """A slow reading of each scene, object by object and pixel by pixel."""
    for row in range(len(data)):
        instance, mask, tags = data["instance"][row], data["mask"][row], set()
        found = objects(data, row)
        assert instance.unique().tolist() == sorted({0, *range(1, len(found) + 1)} & {0, *instance.unique().tolist()})
        assert instance.max() == len(found), "numbers run without gaps"
        areas = []
        for number, (x1, y1, x2, y2, label, _) in enumerate(found, start=1):
            ys, xs = (instance == number).nonzero(as_tuple=True)
            assert [x1, y1, x2, y2] == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert (mask[ys, xs] == label + 1).all()
            tags.add(int(label))
            areas.append(len(ys))
        assert (mask[instance == 0] == 0).all()
        assert data["tags"][row].nonzero().flatten().tolist() == sorted(tags)
        assert data["boxes"][row, len(found) :].count_nonzero() == 0
        largest = found[areas.index(max(areas))][4] if found else -1
        assert data["class"][row] == largest


def test_the_number_of_objects_is_as_asked():
    counts = (scenes.compose(250, objects=(2, 4))["boxes"][..., 5] > 0).sum(1)
    assert set(counts.tolist()) == {2, 3, 4}
    assert min(torch.bincount(counts)[2:]) > 55, "each as likely"


def test_depth_is_the_order_of_painting(data):
    for row in range(len(data)):
        depth, instance = data["depth"][row], data["instance"][row]
        assert (depth[instance == 0] == 1).all()
        levels = [depth[instance == number].unique().tolist() for number in range(1, int(instance.max()) + 1)]
        assert all(len(level) == 1 for level in levels), "objects are flat"
        assert levels == sorted(levels), "the first is in front"
        assert all(0 < level[0] < 1 for level in levels)


def test_painting_order_and_visibility_against_a_slow_painter():
    """The same layout painted from back to front, object by object."""
    wish = config.check(48, None, (1, 5), 0, TRAIN, (0.3, 0.6), 20.0, None, 0.3, None, None)
    layout, result = scenes._settled(wish, torch.Generator().manual_seed(5))
    for row in range(40):
        canvas = torch.zeros(48, 48, dtype=torch.uint8)
        alone = {}
        for slot in reversed(range(int(layout.present[row].sum()))):
            _, alpha = painting._cutouts(layout, torch.tensor([row]), slot, wish)
            canvas[alpha[0]] = slot + 1
            alone[slot] = int(alpha.sum())
        assert torch.equal(canvas, result.owner[row])
        for slot, full in alone.items():
            share = int((canvas == slot + 1).sum()) / full
            assert share == pytest.approx(float(result.visibility[row, slot]))
            assert share >= 0.3


def test_a_cut_out_is_the_photo_turned_scaled_and_placed():
    """Without a turn, and at its own scale, a photo arrives pixel by pixel where it was put."""
    wish = config.check(56, None, (1, 1), 0, TRAIN, (0.5, 0.5), 0, None, 0.3, None, None)
    layout = arranged(3, wish, torch.Generator().manual_seed(0))
    layout = layout._replace(centre=layout.centre.round())
    shade, alpha = painting._cutouts(layout, torch.arange(3), 0, wish)
    for row in range(3):
        x, y = (int(v) - 14 for v in layout.centre[row, 0])
        grey, solid = materials.photos(TRAIN).cutouts[layout.photo[row, 0]]
        assert torch.equal(alpha[row, y : y + 28, x : x + 28], solid > 0)
        assert alpha[row].sum() == solid.sum()
        assert torch.allclose(shade[row, y : y + 28, x : x + 28], grey, atol=1e-4)
    quarter = layout._replace(angle=torch.full((3, 1), torch.pi / 2))
    _, turned = painting._cutouts(quarter, torch.arange(3), 0, wish)
    x, y = (int(v) - 14 for v in layout.centre[0, 0])
    part = slice(y, y + 28), slice(x, x + 28)
    assert torch.equal(turned[0][part].rot90(1), alpha[0][part]) or torch.equal(
        turned[0][part].rot90(-1), alpha[0][part]
    )


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 150))
def test_the_seed_decides_and_a_longer_set_begins_with_the_shorter(seed, n):
    data = scenes.compose(n, size=32, objects=(1, 2), seed=seed)
    longer = scenes.compose(150, size=32, objects=(1, 2), seed=seed)
    for name in sorted(data.columns.keys()):
        width = data[name].shape[1:]
        assert torch.equal(data[name], longer[name][(slice(n), *(slice(w) for w in width))])
    assert not torch.equal(data["image"], scenes.compose(n, size=32, objects=(1, 2), seed=seed + 1)["image"])


def test_the_same_scene_in_two_domains():
    day, night = (scenes.compose(50, seed=4, domain=domain) for domain in ("day", "night"))
    assert not torch.equal(day["image"], night["image"])
    assert night["image"].float().mean() < 0.7 * day["image"].float().mean()
    for name in ("mask", "boxes", "instance", "depth", "class", "tags", "caption"):
        assert torch.equal(day[name], night[name])
    mixed = scenes.compose(50, seed=4, domain=["day", "negative"])
    kept = mixed["domain"] == 0
    assert set(mixed["domain"].tolist()) == {0, 3}
    assert torch.equal(mixed["image"][kept], day["image"][kept])
    flipped = 255 - day["image"][~kept].int()
    assert (mixed["image"][~kept].int() - flipped).abs().max() <= 1


def test_train_and_test_scenes_share_no_photo_and_no_ground():
    photos = fashion.load()
    for fold in (TRAIN, TEST):
        part = photos.fold(fold)
        assert len(materials.photos(fold).cutouts) == len(part)
        start, many = materials.photos(fold).start, materials.photos(fold).many
        assert many.tolist() == torch.bincount(part["class"]).tolist()
        assert start.tolist() == [int((part["class"] < c).sum()) for c in range(10)]
        assert (scenes.compose(5, fold=fold)["fold"] == fold).all()
    bright = {fold: {bytes(c.numpy().tobytes()) for c in (materials.photos(fold).cutouts[::7, 0] * 255).byte()}
              for fold in (TRAIN, TEST)}  # fmt: skip
    assert not bright[TRAIN] & bright[TEST]
    assert not torch.equal(materials.tiles(TRAIN), materials.tiles(TEST))


def test_captions_tell_the_truth(data):
    assert "nothing on grass" in decode_text(scenes.compose(20, objects=(0, 1), background="grass")["caption"])
    relations = r"in front of|behind|left of|right of|above|below"
    places = "|".join(scenes.GROUNDS.values())
    noun = rf"an? (?:{'|'.join(scenes.COLOURS)}) (?:{'|'.join(data.info.class_names)})"
    form = re.compile(rf"(?:nothing|({noun})(?: ({relations}) ({noun})((?:, and {noun})*),?)?) (?:{places})")
    for row, text in enumerate(decode_text(data["caption"])):
        match = form.fullmatch(text)
        assert match, text
        found = objects(data, row)
        told = sorted(re.findall("|".join(sorted(data.info.class_names, key=len, reverse=True)), text))
        assert told == sorted(data.info.class_names[int(box[4])] for box in found)
        if not match[2]:
            continue
        area = {i: int((data["instance"][row] == i + 1).sum()) for i in range(len(found))}
        a, b = sorted(area, key=lambda i: (-area[i], i))[:2]
        if match[2] in ("in front of", "behind"):
            assert (match[2] == "in front of") == (a < b), "lower numbers are in front"
            assert found[max(a, b)][5] < 1, "what is behind is covered in part"
        else:
            axis, sign = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}[match[2]]
            middle = [(found[i][axis] + found[i][axis + 2]) / 2 for i in (a, b)]
            assert sign * (middle[0] - middle[1]) >= 0


def test_the_told_colour_is_the_seen_colour():
    data = scenes.compose(100, objects=(1, 1), colours=("red", "green", "blue"), seed=8)
    for image, mask, text in zip(data["image"], data["mask"], decode_text(data["caption"])):
        seen = image[:, mask > 0].float().mean(1).argmax()
        assert text.split()[1] == ("red", "green", "blue")[seen]


def test_classes_grounds_and_kinship_are_as_asked():
    data = scenes.compose(60, classes=("bag", 1, "sneaker"), objects=(3, 3), same_class=False, background="haze")
    assert data.info.class_names == ("bag", "trouser", "sneaker")
    assert (data["tags"] == 1).all()
    assert all(text.endswith("in a haze") for text in decode_text(data["caption"]))
    alike = scenes.compose(60, objects=(2, 4), same_class=True)
    assert (alike["tags"].sum(1) == 1).all()
    assert alike["class"].unique().numel() == 10


def test_crammed_scenes_leave_the_hidden_out_and_stay_exact():
    data = scenes.compose(20, size=32, objects=(7, 7), scale=(0.6, 0.9), visible=0.9, seed=1)
    counts = (data["boxes"][..., 5] > 0).sum(1)
    assert (counts < 7).all()
    assert (counts >= 1).all()
    assert torch.equal(data["instance"].flatten(1).amax(1).long(), counts)
    visibility = data["boxes"][..., 5]
    assert (visibility[visibility > 0] >= 0.9).all()


def test_a_linear_look_tells_classes_apart():
    """The cut-outs carry their class: mean silhouettes of single objects recognise most test scenes."""

    def features(fold, n):
        data = scenes.compose(
            n, objects=(1, 1), scale=(0.8, 0.8), rotate=0, fold=fold, classes=("trouser", "bag", "sneaker")
        )
        crops = []
        for mask, box in zip(data["mask"], data["boxes"][:, 0]):
            x1, y1, x2, y2 = box[:4].int().tolist()
            crops.append(F.interpolate((mask > 0)[None, None, y1:y2, x1:x2].float(), (12, 12)).flatten())
        return torch.stack(crops), data["class"]

    x, y = features(TRAIN, 128)
    means = torch.stack([x[y == c].mean(0) for c in range(3)])
    x, y = features(TEST, 128)
    assert (torch.cdist(x, means).argmin(1) == y).float().mean() > 0.8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 16}, "32 to 128"),
        ({"objects": (3, 2)}, "fewest, most"),
        ({"classes": ["bags"]}, "Did you mean 'bag'"),
        ({"classes": []}, "at least one class"),
        ({"domain": "nigth"}, "Did you mean 'night'"),
        ({"domain": 99}, "no domain '99'"),
        ({"background": "gras"}, "Did you mean 'grass'"),
        ({"colours": ["rot"]}, "no colour 'rot'"),
        ({"scale": (0.5, 1.5)}, "scale"),
        ({"visible": 2}, "visible"),
        ({"fold": 2}, "fold"),
        ({"same_class": False, "classes": [1, 2]}, "5 objects of different classes"),
        ({"n": -1}, "-1 scenes"),
    ],
)
def test_a_wrong_wish_is_named(arguments, words):
    with pytest.raises(UserError, match=words):
        scenes.compose(**{"n": 1, **arguments})
