"""Boxes: decoding, the loss, COCO's scores on hand-made cases, files, and learning."""

import json

import pytest
import torch
from margins import Margin

from rushlight import tasks
from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.losses.detection import giou
from rushlight.nets import encoders
from rushlight.run.evaluate import evaluate
from rushlight.run.model import Model, ModelInfo
from rushlight.tasks.detect import decode, heat_of, hits, owned, unsuppressed

BOXES = tasks.find("boxes")


def output(cells, classes=2, side=8, stride=4):
    """A head's output that holds the given (row, column, class, logit, box)."""
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    made = torch.full((1, 6 + classes, side, side), -9.0)
    made[0, 4], made[0, 5] = stride * x, stride * y
    for row, column, label, logit, box in cells:
        made[0, 6 + label, row, column] = logit
        made[0, :4, row, column] = torch.tensor(box)
    return made


def test_peaks_are_boxes_and_of_overlapping_ones_the_surest_stays():
    found = decode(
        output([
            (1, 1, 0, 2.0, [2.0, 2.0, 10.0, 10.0]),
            (1, 2, 0, 1.0, [3.0, 2.0, 11.0, 10.0]),  # beside a peak
            (3, 3, 0, 1.5, [2.0, 2.0, 10.0, 11.0]),  # the same box again
            (3, 3, 1, 0.5, [2.0, 2.0, 10.0, 11.0]),  # of another class
            (6, 6, 0, 1.0, [20.0, 20.0, 30.0, 30.0]),
        ])
    )[0]  # fmt: skip
    told = found[found[:, 5] > 0.2]
    assert told[:, 4].tolist() == [0, 0, 1]
    assert told[0].tolist() == pytest.approx([2, 2, 10, 10, 0, torch.tensor(2.0).sigmoid().item()])
    assert told[1, :4].tolist() == [20, 20, 30, 30]


def test_suppression_by_loops():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(3, 30, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + 10], -1)
    label = torch.randint(0, 2, (3, 30), generator=generator)
    stays = unsuppressed(boxes, label, 0.4)
    for n in range(3):
        kept = []
        for i in range(30):
            clear = all(int(label[n, i]) != int(label[n, j]) or _iou(boxes[n, i], boxes[n, j]) <= 0.4 for j in kept)
            kept += [i] if clear else []
        assert stays[n].nonzero()[:, 0].tolist() == kept


def _iou(a, b):
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return float(wide / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - wide))


def test_a_cell_belongs_to_the_smallest_box_that_covers_it():
    bumps = torch.tensor([[[[0.5, 0.001]], [[0.9, 0.9]]]])
    mine = owned(bumps, torch.tensor([[4.0, 100.0]]))
    assert mine[0, 0].tolist() == [[0.5, 0.0]]
    assert mine[0, 1, 0].tolist() == pytest.approx([0.0, 0.9])


def test_heat_is_the_highest_bump_of_a_class():
    bumps = torch.tensor([[[[0.2, 1.0]], [[0.6, 0.1]], [[0.3, 0.3]]]])
    heat = heat_of(bumps, torch.tensor([[1, 1, 0]]), 3)
    assert torch.allclose(heat[0, :, 0], torch.tensor([[0.3, 0.3], [0.6, 1.0], [0.0, 0.0]]))


def test_the_loss_pulls_the_centres_box_and_class_alone_where_all_else_is_right():
    truth = torch.tensor([[[4.0, 4.0, 20.0, 20.0, 1.0, 1.0], [0.0] * 6]])
    right = output([(2, 2, 1, 9.0, [4.0, 4.0, 20.0, 20.0])])
    right[0, :4] = truth[0, 0, :4, None, None]
    assert float(BOXES.loss(right, truth)) < 0.3
    off = right.clone()
    off[0, :4] += 4
    gap = float(BOXES.loss(off, truth) - BOXES.loss(right, truth))
    moved = torch.tensor([8.0, 8.0, 24.0, 24.0])
    assert gap == pytest.approx(5 * (1 - float(giou(moved, truth[0, 0, :4]))), rel=1e-3)
    empty = torch.zeros(1, 1, 6)  # an image known to be empty has only the heat to lose
    assert float(BOXES.loss(right, empty)) == pytest.approx(9, abs=0.01)  # −log(1 − p) of the one sure cell


def test_coco_scores_of_hand_made_cases():
    true = torch.tensor([[[0, 0, 10, 10, 0, 1], [20, 20, 30, 30, 0, 1]]]).float()

    def scores(*found):
        padded = torch.zeros(1, 4, 6)
        padded[0, : len(found)] = torch.tensor(found, dtype=torch.float32)
        return {m.name: v for m, v in BOXES.measured({"found": padded, "true": true}).items()}

    exact = [[0, 0, 10, 10, 0, 0.9], [20, 20, 30, 30, 0, 0.8]]
    assert scores(*exact) == {"AP": 1, "AP50": 1, "AP75": 1}
    # one of two found: recalls 0 … 0.5 have precision 1, which are 51 of 101
    assert scores(exact[0])["AP"] == pytest.approx(51 / 101)
    # an IoU of 0.7 counts at 0.5, 0.55, 0.6, 0.65 and 0.7
    near = scores([0, 0, 10, 7, 0, 0.9], [20, 20, 30, 27, 0, 0.8])
    assert (near["AP50"], near["AP75"]) == (1, 0)
    assert near["AP"] == pytest.approx(0.5)
    # a wrong box that is surer halves the precision
    assert scores([40, 40, 50, 50, 0, 0.99], *exact)["AP"] == pytest.approx(2 / 3, abs=0.01)
    # the right box of another class finds nothing
    assert scores([0, 0, 10, 10, 1, 0.9])["AP"] == 0


def test_no_box_to_find_has_no_score():
    with pytest.raises(UserError, match="images with boxes"):
        BOXES.value({"found": torch.zeros(2, 3, 6), "true": torch.zeros(2, 1, 6)})


def test_a_box_is_found_once():
    found = torch.tensor([[[0, 0, 10, 10, 0, 0.9], [0, 0, 10, 9, 0, 0.8], [0, 0, 10, 10, 1, 0.7]]])
    assert hits(found, torch.tensor([[[0, 0, 10, 10, 0, 1.0]]])).tolist() == [[True, False, False]]


def test_predictions_are_coco_in_the_pixels_of_the_users_images(tmp_path):
    data = Dataset({
        "image": torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        "size": torch.tensor([[64, 100]], dtype=torch.int32),
        "to_original": torch.tensor([[[4.0, 0.0, -14.0], [0.0, 4.0, 0.0]]]),
    })  # fmt: skip
    made = output([(1, 1, 1, 2.0, [4.0, 2.0, 10.0, 9.0])])
    info = ModelInfo(names={"box": ("cat", "dog")}, task="boxes")
    (path,) = BOXES.write([(torch.tensor([0]), {"boxes": made})], data, tmp_path, info)
    content = json.loads(path.read_text())
    assert content["images"] == [{"id": 1, "file_name": "0", "width": 100, "height": 64}]
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    (only,) = content["annotations"]
    assert only["bbox"] == [2.0, 8.0, 24.0, 28.0]
    assert only["category_id"] == 2


@pytest.mark.slow
def test_boxes_are_learned_from_few_images(margin: Margin):
    data = BOXES.example()
    encoder = encoders.create("conv16", image_size=32, seed=0)
    info = ModelInfo.of(data.info, (32, 32), "boxes")
    model = Model(encoder, {"boxes": BOXES.head(encoder, data)}, info)
    before = evaluate(model, data.fold(TEST)).parts
    after = evaluate(learned(model, data.fold(TRAIN), BOXES, 100), data.fold(TEST)).parts
    at_half = {m.name: m for m in BOXES.also}["AP50"]
    margin("AP50 before", BOXES.value(before, at_half), 0.03, below=True)
    margin("AP50 after", BOXES.value(after, at_half), 0.2)


def learned(model, data, task, steps, batch=32):
    """Train on random batches of weak views."""
    generator, optimiser = torch.Generator().manual_seed(0), torch.optim.AdamW(model.parameters(), 3e-3)
    views, _ = task.views((data.height, data.width))
    columns = {name: data[name] for name in ("image", task.column)}
    for _ in range(steps):
        rows = torch.randint(len(data), (batch,), generator=generator)
        images, target = task.view(views, {name: values[rows] for name, values in columns.items()}, generator)
        optimiser.zero_grad()
        task.loss(model.train().logits(images), target).backward()
        optimiser.step()
    return model
