"""Keypoints: decoding, PCK by loops, OKS-AP on hand-made cases, files, and learning."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hostile import save
from margins import Margin

from rushlight import tasks
from rushlight.augment import affine
from rushlight.augment.view import View
from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset, Info
from rushlight.data.sources.read import load
from rushlight.data.synthetic import figures
from rushlight.nets import encoders
from rushlight.run.evaluate import evaluate
from rushlight.run.model import Model, ModelInfo
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext
from rushlight.tasks.draw import lines_on
from rushlight.tasks.keypoints import MOST, decode, extents, instances, nearby, pairs_by_name, sigmas, similarity

KEYPOINTS = tasks.find("keypoints")


def output(centres, heat, joints=2, side=8, stride=4):
    """A head's output: instances (row, column, logit, joints' places), and Gaussian peaks of heat (joint, x, y)."""
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    made = torch.full((1, 3 + 3 * joints, side, side), -9.0)
    made[0, 0], made[0, 1] = stride * x, stride * y
    made[0, 3 : 3 + 2 * joints] = 0
    for row, column, logit, places in centres:
        made[0, 2, row, column] = logit
        made[0, 3 : 3 + 2 * joints, row, column] = torch.tensor(places).flatten()
    for joint, at_x, at_y in heat:
        apart = (stride * x - at_x) ** 2 + (stride * y - at_y) ** 2
        p = 0.9 * (-apart / (2 * 5.0**2)).exp()
        made[0, 3 + 2 * joints + joint] = torch.maximum(made[0, 3 + 2 * joints + joint], (p / (1 - p)).log())
    return made


def test_a_peak_is_found_between_the_cells():
    made = output([(3, 3, 2.0, [[10.0, 10.0], [20.0, 22.0]])], [(0, 9.3, 11.1), (1, 21.7, 22.4)])
    found, scores = decode(made)
    assert found.shape == (1, MOST, 2, 3)
    assert scores[0, 0] == torch.tensor(2.0).sigmoid()
    assert torch.allclose(found[0, 0, :, :2], torch.tensor([[9.3, 11.1], [21.7, 22.4]]), atol=0.01)


def test_where_there_is_no_heat_the_place_pointed_to_stands():
    found, _ = decode(output([(3, 3, 2.0, [[10.0, 11.0], [20.0, 22.0]])], [(0, 10.0, 10.0)]))
    assert found[0, 0, 1, :2].tolist() == [20, 22]


def test_each_instance_takes_the_heat_near_where_it_points():
    left, right = [[6.0, 8.0], [6.0, 24.0]], [[26.0, 8.0], [26.0, 24.0]]
    peaks = [(0, 7.0, 8.0), (0, 27.0, 9.0), (1, 5.0, 24.0), (1, 25.0, 23.0)]
    found, scores = decode(output([(4, 1, 2.0, left), (4, 6, 1.0, right)], peaks))
    assert (scores[0] > 0.2).sum() == 2
    assert torch.allclose(found[0, 0, :, 0], torch.tensor([7.0, 5.0]), atol=0.3)
    assert torch.allclose(found[0, 1, :, 0], torch.tensor([27.0, 25.0]), atol=0.3)


def test_an_instance_is_as_large_as_its_box_else_as_its_labelled_joints():
    true = torch.tensor([[[[2.0, 3.0, 2], [8.0, 5.0, 1], [90.0, 90.0, 0]], [[1.0, 1.0, 2], [0, 0, 0], [0, 0, 0]]]])
    floor = torch.tensor(4.0)
    there, centre, side = instances(true, floor=floor)
    assert there.tolist() == [[True, True]]
    assert centre[0, 0].tolist() == [5, 4]
    assert side.tolist() == [[6, 4]]  # a single joint gives no size
    alone = extents(true, None, floor=floor)
    assert alone[0].tolist() == [[6, 4]]
    assert alone[1][0].tolist() == pytest.approx([0.53 * 6 * 4, 0.53 * 4 * 4])
    boxes = torch.tensor([[[0.0, 0, 10, 20, 0, 1], [0, 0, 0, 0, 0, 0]]])
    side, area = extents(true, boxes, floor=floor)
    assert side.tolist() == [[20, 4]]
    assert float(area[0, 0]) == pytest.approx(0.53 * 200)


def made_up(seed, images=6, slots=2, guesses=3, joints=4):
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(images, slots, joints, 2, generator=generator) * 40
    seen = (torch.rand(images, slots, joints, 1, generator=generator) < 0.8) * 2.0
    true = torch.cat([places, seen], -1) * (seen > 0)
    of = torch.randint(0, slots, (images, guesses), generator=generator)
    found = places[torch.arange(images)[:, None], of] + 4 * torch.randn(images, guesses, joints, 2, generator=generator)
    scores = torch.rand(images, guesses, generator=generator).sort(1, descending=True).values
    side, area = extents(true, None, floor=torch.tensor(2.0))
    found = torch.cat([found, torch.ones_like(found[..., :1])], -1)
    return {"found": found, "scores": scores, "true": true, "side": side, "area": area}


def similarity_by_loops(found, true, area):
    total, labelled = 0.0, 0
    for joint, sigma in enumerate(sigmas(len(true))):
        if true[joint, 2] > 0:
            d2 = float((found[joint, 0] - true[joint, 0]) ** 2 + (found[joint, 1] - true[joint, 1]) ** 2)
            total += math.exp(-d2 / (2 * float(area) * (2 * sigma) ** 2))
            labelled += 1
    return total / labelled if labelled else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_pck_by_loops(seed):
    parts = made_up(seed)
    near, labelled = 0, 0
    for found, scores, true, side, area in zip(
        *(parts[name] for name in ("found", "scores", "true", "side", "area")), strict=True
    ):
        free = [slot for slot in range(len(true)) if (true[slot, :, 2] > 0).any()]
        labelled += int((true[..., 2] > 0).sum())
        for guess in scores.argsort(descending=True):
            if free:
                slot = max(free, key=lambda s: similarity_by_loops(found[guess], true[s], area[s]))
                free.remove(slot)
                for joint in range(true.shape[1]):
                    apart = math.dist(found[guess, joint, :2].tolist(), true[slot, joint, :2].tolist())
                    near += true[slot, joint, 2] > 0 and apart <= 0.2 * float(side[slot])
    assert KEYPOINTS.value(parts) == pytest.approx(int(near) / labelled)
    alike = similarity(parts["found"][0], parts["true"][0], parts["area"][0])
    want = [
        [similarity_by_loops(f, t, a) for t, a in zip(parts["true"][0], parts["area"][0], strict=True)]
        for f in parts["found"][0]
    ]
    np.testing.assert_allclose(alike, want, atol=1e-6)


def test_oks_ap_of_hand_made_cases():
    parts = made_up(0, slots=1, guesses=1)
    parts["true"][..., 2] = 2
    exact = {**parts, "found": parts["true"].clone()}
    ap = {metric.name: metric for metric in (KEYPOINTS.metric, *KEYPOINTS.also)}["OKS-AP"]
    assert KEYPOINTS.value(exact, ap) == 1
    assert KEYPOINTS.value(exact) == 1
    # every joint off by the distance at which the similarity is 0.72: right at 0.5, 0.55, 0.6, 0.65 and 0.7
    off = exact["found"].clone()
    reach = (2 * parts["area"] * (2 * sigmas(4)[0]) ** 2 * -math.log(0.72)).sqrt()
    off[..., 0] += reach[..., None].float()
    assert KEYPOINTS.value({**exact, "found": off}, ap) == pytest.approx(0.5)


def test_sigmas_are_cocos_for_its_skeleton_and_their_mean_for_another():
    assert sigmas(17)[:2].tolist() == [0.026, 0.025]
    assert sigmas(5).tolist() == pytest.approx([sum(sigmas(17)) / 17] * 5)


def test_an_instance_missed_misses_all_its_joints():
    parts = made_up(1, guesses=1)
    near, labelled = nearby({**parts, "scores": torch.zeros_like(parts["scores"])})
    assert labelled.any()
    assert not near.any()
    with pytest.raises(UserError, match="labelled keypoints"):
        KEYPOINTS.value({**parts, "true": torch.zeros_like(parts["true"])})


COCO = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip


def test_left_and_right_joints_are_paired_by_their_names():
    assert pairs_by_name(COCO) == tuple((i, i + 1) for i in range(1, 17, 2))
    assert pairs_by_name(("Right knee", "neck", "left knee", "left hand")) == ((0, 2),)
    assert pairs_by_name(("eye-left", "eye-right", "bright spot", "bleft spot", "upright", "upleft")) == ((0, 1),)
    assert pairs_by_name(("head", "tail")) == ()


def test_pairs_that_are_written_go_before_names_and_none_means_no_mirror():
    for info, pairs in (
        (Info(keypoint_names=COCO[:3]), ((1, 2),)),
        (Info(keypoint_names=COCO[:3], keypoint_pairs=((0, 1),)), ((0, 1),)),
        (Info(keypoint_names=COCO[:3], keypoint_pairs=()), ()),
        (Info(keypoint_names=("a", "b", "c")), ()),
        (Info(), ()),
    ):
        bound = KEYPOINTS.of(info)
        assert bound.pairs == pairs
        assert {views.flip for views in bound.views((8, 8))} == {0.5 if pairs else 0.0}
        assert Info.from_json(info.to_json()) == info
    assert KEYPOINTS.pairs == ()
    assert {views.flip for views in KEYPOINTS.views((8, 8))} == {0.0}


def test_a_mirrored_instance_has_its_left_joints_on_the_other_side():
    task = KEYPOINTS.of(Info(keypoint_names=("nose", "left_eye", "right_eye")))
    target = torch.tensor([[[[8.0, 5.0, 2.0], [11.0, 4.0, 1.0], [4.0, 3.0, 2.0]], [[0.0, 0.0, -1.0]] * 3]] * 2)
    geometry = affine.flip(torch.tensor([True, False]), 16)
    view = View(geometry, affine.identity_colour(2), (16, 16), (16, 16))
    moved = task.moved(view, target)
    assert moved[0, 0].tolist() == [[8.0, 5.0, 2.0], [12.0, 3.0, 2.0], [5.0, 4.0, 1.0]]  # the left eye is the right one
    assert torch.equal(moved[1, 0], target[1, 0])
    assert (moved[:, 1, :, 2] == -1).all()
    assert KEYPOINTS.moved(view, target)[0, 0].tolist() == [[8.0, 5.0, 2.0], [5.0, 4.0, 1.0], [12.0, 3.0, 2.0]]
    twice = task.moved(view, moved)
    assert torch.equal(twice[0, 0], target[0, 0])


def test_a_learner_mirrors_where_pairs_are_known_and_only_there():
    data = figures.compose(8, 0)
    for pairs, flips in (((), 0.0), (None, 0.5)):
        stage = Recipe.parse("supervised").steps[0].stage()
        start = Model(encoders.create("conv16", image_size=48, seed=0))
        stage.prepare(data.with_info(keypoint_pairs=pairs), start, RunContext(task="keypoints"))
        assert stage.weak.flip == flips


def test_the_skeleton_is_read_drawn_and_written(tmp_path):
    save(tmp_path / "photos" / "a.png", height=32, width=32)
    category = {"id": 3, "name": "person", "keypoints": ["left_eye", "right_eye", "nose"], "skeleton": [[1, 3], [2, 3]]}
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 30, 30],
                  "keypoints": [20, 4, 2, 8, 4, 2, 14, 12, 2]}  # fmt: skip
    content = {"images": [{"id": 1, "file_name": "a.png", "height": 32, "width": 32}], "annotations": [annotation]}
    file = tmp_path / "coco.json"
    file.write_text(json.dumps({**content, "categories": [category]}))
    data = load(tmp_path / "photos", labels=file, cache=False, size=32)
    assert data.info.keypoint_skeleton == ((0, 2), (1, 2))
    info = ModelInfo.of(data.info, (32, 32), "keypoints")
    assert ModelInfo.from_json(json.loads(json.dumps(asdict(info)))) == info
    said = output([(1, 3, 4.0, [[20.0, 4.0], [8.0, 4.0], [14.0, 12.0]])], [], joints=3)
    black = {"image": torch.zeros(1, 3, 32, 32, dtype=torch.uint8)}
    plain, drawn = (
        KEYPOINTS.pictures({"keypoints": said}, black, one)[0].pixels for one in (replace(info, skeleton=()), info)
    )
    grey = (drawn == 200).all(-1) & (plain != 200).any(-1)
    for x, y in ((17, 8), (11, 8)):  # half way from each eye to the nose
        assert grey[y, x], (x, y)
    assert not grey[4, 14]  # there is no line between the eyes
    path = KEYPOINTS.write([(torch.tensor([0]), {"keypoints": said})], data, tmp_path / "out", info)[0]
    assert json.loads(path.read_text())["categories"][0]["skeleton"] == [[1, 3], [2, 3]]
    category["skeleton"] = [[1, 4]]
    file.write_text(json.dumps({**content, "categories": [category]}))
    with pytest.raises(UserError, match=r"category 'person': the skeleton has the line \[1, 4\], .* numbered 1 to 3"):
        load(tmp_path / "photos", labels=file, cache=False)


def test_lines_are_drawn_from_end_to_end_and_clipped():
    image = torch.zeros(3, 5, 6, dtype=torch.uint8)
    level = lines_on(image, torch.tensor([[1.5, 2.5]]), torch.tensor([[4.5, 2.5]]))
    assert level[0].nonzero().tolist() == [[2, 1], [2, 2], [2, 3], [2, 4]]
    slanted = lines_on(image, torch.tensor([[0.5, 0.5]]), torch.tensor([[9.5, 9.5]]))
    assert slanted[1].nonzero().tolist() == [[i, i] for i in range(5)]
    assert not image.any()


def test_aligned_joints_keep_their_pairs_and_lines():
    data = figures.compose(2, 0).with_info(
        keypoint_names=("a", "b", "c", "d", "e"), keypoint_skeleton=((0, 1), (3, 4)), keypoint_pairs=((1, 2), (3, 4))
    )
    aligned, _ = KEYPOINTS.align(data, ModelInfo(names={"keypoint": ("c", "b", "a", "d")}))
    assert aligned.info.keypoint_skeleton == ((2, 1),)
    assert aligned.info.keypoint_pairs == ((1, 0),)


def test_predictions_are_coco_in_the_pixels_of_the_users_images(tmp_path):
    data = Dataset({
        "image": torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        "size": torch.tensor([[64, 100]], dtype=torch.int32),
        "to_original": torch.tensor([[[4.0, 0.0, -14.0], [0.0, 2.0, 0.0]]]),
    })  # fmt: skip
    made = output([(3, 3, 2.0, [[10.0, 11.0], [20.0, 22.0]])], [])
    info = ModelInfo(names={"keypoint": ("nose", "tail"), "box": ("cat",)}, task="keypoints")
    (path,) = KEYPOINTS.write([(torch.tensor([0]), {"keypoints": made})], data, tmp_path, info)
    content = json.loads(path.read_text())
    assert content["categories"] == [{"id": 1, "name": "cat", "keypoints": ["nose", "tail"], "skeleton": []}]
    (only,) = content["annotations"]
    assert only["keypoints"] == [26, 22, 2, 66, 44, 2]
    assert only["bbox"] == [26, 22, 40, 22]


@pytest.mark.parametrize(("most", "least"), [(1, 0.6), pytest.param(2, 0.4, marks=pytest.mark.slow)])
def test_keypoints_are_learned_from_few_images(most, least, margin: Margin):
    data = figures.compose(200, 50, size=32 if most == 1 else 48, most=most)
    encoder = encoders.create("conv16", image_size=data.height, seed=0)
    model = Model(
        encoder, {"keypoints": KEYPOINTS.head(encoder, data)}, ModelInfo.of(data.info, (data.height,) * 2, "keypoints")
    )
    before = evaluate(model, data.fold(TEST)).value
    train, generator = data.fold(TRAIN), torch.Generator().manual_seed(0)
    optimiser, (views, _) = torch.optim.AdamW(model.parameters(), 3e-3), KEYPOINTS.views((data.height, data.width))
    columns = {name: train[name] for name in ("image", "keypoints")}
    for _ in range(80):
        rows = torch.randint(len(train), (16,), generator=generator)
        images, target = KEYPOINTS.view(views, {name: values[rows] for name, values in columns.items()}, generator)
        optimiser.zero_grad()
        KEYPOINTS.loss(model.train().logits(images), target).backward()
        optimiser.step()
    after = evaluate(model, data.fold(TEST)).value
    margin("before", before, 0.15, below=True)
    margin("after", after, least)
