"""COCO files: what is written can be read again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rushlight.data.sources.read import load
from rushlight.run.model import ModelInfo
from rushlight.tasks.detect import Detect
from rushlight.tasks.keypoints import Keypoints

IMAGES = {"wide.png": (100, 64), "tall.png": (40, 90), "empty.png": (64, 64)}
BOXES = {"wide.png": [(10, 8, 30, 24, 7), (60, 30, 30, 20, 3)], "tall.png": [(4, 50, 20, 30, 3)], "empty.png": []}


def folder(path):
    """Images of three sizes with a COCO file whose category ids have gaps."""
    images, annotations = [], []
    for number, (name, (width, height)) in enumerate(IMAGES.items(), 1):
        (path / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((height, width, 3), 30 * number, dtype=np.uint8)).save(path / "images" / name)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for x, y, w, h, label in BOXES[name]:
            keypoints = [x, y, 2, x + w, y + h, 1, 0, 0, 0]
            entry = {"image_id": number, "category_id": label, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            entry |= {"keypoints": keypoints, "num_keypoints": 2, "id": len(annotations) + 1}
            annotations.append(entry)
    names = {"keypoints": ["a", "b", "c"], "skeleton": []}
    categories = [{"id": 3, "name": "cat", **names}, {"id": 7, "name": "dog", **names}]
    file = path / "annotations.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def as_read(data):
    """Each image's true boxes in its own pixels, by class."""
    told = {}
    for row, name in enumerate(data.names):
        affine = data.read("to_original", row)
        boxes = [box for box in data.read("boxes", row) if box[5] > 0]
        corners = [(box[:4].view(2, 2) @ affine[:, :2].T + affine[:, 2]).round().int() for box in boxes]
        told[Path(name).name] = sorted([int(b[4]), *c.flatten().tolist()] for b, c in zip(boxes, corners, strict=True))
    return told


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_boxes_come_back_from_a_file_of_predictions(tmp_path, fit):
    data = load(folder(tmp_path / "mine"), size=32, fit=fit, cache=False)
    cells = 8
    outputs = torch.full((len(data), 6 + 2, cells, cells), -9.0)
    for row in range(len(data)):  # a head that says exactly what is true, each box at the cell of its centre
        for box in data.read("boxes", row):
            if box[5] > 0:
                x, y = (int((box[i] + box[i + 2]) / 2 / 4) for i in (0, 1))
                outputs[row, :4, y, x], outputs[row, 6 + int(box[4]), y, x] = box[:4], 3.0
    info = ModelInfo.of(data.info, (32, 32), "boxes")
    (file,) = Detect().write([(torch.arange(len(data)), {"boxes": outputs})], data, tmp_path, info)
    again = load(tmp_path / "mine", labels=file, size=32, fit=fit, cache=False)
    want = {
        name: sorted([{3: 0, 7: 1}[label], x, y, x + w, y + h] for x, y, w, h, label in boxes)
        for name, boxes in BOXES.items()
    }
    assert as_read(data) == want
    assert as_read(again) == want
    assert again.info.box_names == ("cat", "dog")
    assert again.known("boxes").all()


def test_keypoints_come_back_from_a_file_of_predictions(tmp_path):
    data = load(folder(tmp_path / "mine"), size=32, cache=False)
    cells = torch.arange(8) * 4.0 + 2
    outputs = torch.full((len(data), 3 + 9, 8, 8), -9.0)
    outputs[:, 0], outputs[:, 1] = cells, cells[:, None]
    for row in range(len(data)):
        for slot, joints in enumerate(data.read("keypoints", row)):
            if (joints[:, 2] > 0).any():
                outputs[row, 2, 2 * slot, 2 * slot] = 3.0
                outputs[row, 3:9, 2 * slot, 2 * slot] = joints[:, :2].flatten()
    info = ModelInfo.of(data.info, (32, 32), "keypoints")
    (file,) = Keypoints().write([(torch.arange(len(data)), {"keypoints": outputs})], data, tmp_path, info)
    again = load(tmp_path / "mine", labels=file, size=32, cache=False)
    assert again.info.keypoint_names == ("a", "b", "c")
    for row, joints in enumerate(data["keypoints"]):
        first = joints[:, :2][joints[..., 2].amax(1) > 0]  # of each instance, its two labelled joints
        found = again.read("keypoints", row)
        found = found[found[..., 2].amax(1) > 0]
        assert len(found) == len(first)
        for one in first:
            assert ((found[:, :2, :2] - one[..., :2]).abs().amax((1, 2)) < 0.05).any()
