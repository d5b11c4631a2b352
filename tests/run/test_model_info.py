from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict, replace

import pytest
import torch

from rushlight.data.dataset import Dataset, Info
from rushlight.run.model_info import ModelInfo

INFO = Info(class_names=("a", "b"), keypoint_names=("nose",), settings={"fit": "crop"})


def test_it_takes_what_a_data_set_calls_its_labels() -> None:
    found = ModelInfo.of(INFO, (24, 32), "class")
    assert found.names == {"class": ("a", "b"), "keypoint": ("nose",)}
    assert found.class_names == ("a", "b")
    assert found.keypoint_names == ("nose",)
    assert found.tag_names == ()
    assert found.canvas == {"size": (24, 32), "fit": "crop"}


def test_it_survives_a_file_copies_and_changes() -> None:
    found = ModelInfo.of(INFO, (24, 32), "class")
    assert ModelInfo.from_json(json.loads(json.dumps(asdict(found)))) == found
    assert copy.deepcopy(found) == pickle.loads(pickle.dumps(found)) == found
    assert replace(found, recipe="mae").class_names == ("a", "b")


def test_what_it_does_not_have_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no 'colour'"):
        ModelInfo().colour


def test_a_model_keeps_no_path_of_what_it_was_trained_on() -> None:
    data = Dataset({"image": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, INFO)
    data = data.loaded_by({"source": "/home/somebody/photos", "labels": "/home/somebody/labels.csv"})
    assert "somebody" not in json.dumps(asdict(ModelInfo.of(data.info, (8, 8), None)))
