"""Reading what is no folder of images: arrays, torch Datasets, torchvision by name, Hugging Face folders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hostile import photo

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.sources import torchvision
from rushlight.data.sources.arrays import from_arrays, from_torch
from rushlight.data.sources.read import load

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 255, (5, 16, 16), dtype=np.uint8)


@pytest.mark.parametrize(
    "form",
    [
        lambda a: a,
        lambda a: a[:, None],
        lambda a: a[..., None],
        lambda a: np.repeat(a[..., None], 3, -1),
        lambda a: torch.from_numpy(np.repeat(a[:, None], 3, 1)),
        lambda a: (a / 255).astype(np.float32),
        lambda a: torch.from_numpy(a).double() / 255,
        lambda a: a.astype(np.uint16) * 257,
        lambda a: a.astype(np.int64),
    ],
)
def test_arrays_of_any_form(form):
    data = load(form(GREY))
    assert torch.equal(data["image"], torch.from_numpy(GREY)[:, None].expand(-1, 3, -1, -1))
    assert data["size"].tolist() == [[16, 16]] * 5
    assert data.names == ["0", "1", "2", "3", "4"]


def test_labels_of_any_form():
    assert load((GREY, [0, 1, -1, 1, 0])).info.class_names == ("0", "1")
    named = load(GREY, labels=["b", "a", "", None, "b"])
    assert named["class"].tolist() == [1, 0, -1, -1, 1]
    assert named.info.class_names == ("a", "b")
    tags = load(GREY, labels=torch.tensor([[1, 0, -1]] * 5))
    assert tags["tags"].shape == (5, 3)
    more = from_arrays(GREY, mask=np.zeros((5, 16, 16)), domain=[0, 1, 0, 1, -1], fold=[0, 0, 0, 1, 1])
    assert more["mask"].dtype == torch.uint8
    assert more["fold"].tolist() == [TRAIN] * 3 + [TEST] * 2


@pytest.mark.parametrize(
    ("images", "labels", "more", "word"),
    [
        (np.zeros((3, 4)), None, {}, "shape"),
        (np.zeros((0, 8, 8)), None, {}, "shape"),
        (np.zeros((3, 8, 8, 5)), None, {}, "shape"),
        (np.array(["a"] * 3).reshape(3, 1, 1), None, {}, "type"),
        (GREY, [0, 1], {}, "5 images, but 2"),
        (GREY, [0, 1, 2, 3, -2], {}, "image 4"),
        (GREY, ["a"] * 5, {"class_names": ("b",)}, "'a' is not in class_names"),
        (GREY, None, {"colour": [1] * 5}, "no kind of column"),
        (GREY, None, {"domain": [1] * 4}, "'domain'"),
    ],
)
def test_what_is_wrong_with_arrays_is_said(images, labels, more, word):
    with pytest.raises(UserError, match=word):
        from_arrays(images, labels, **more)


def test_an_array_may_be_resized():
    data = load(GREY, labels=list("aabbb"), size=8)
    assert (data.height, data.width) == (8, 8)
    assert data.info.class_names == ("a", "b")
    assert data["to_original"][0].tolist() == [[2, 0, 0], [0, 2, 0]]


class Pairs(torch.utils.data.Dataset):
    classes = ("cat", "dog")

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


def test_a_torch_dataset_of_any_images():
    picture = photo(1, 32, 32)
    pixels = np.asarray(picture)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    items = [(picture, 0), (pixels, 1), (tensor, None), (tensor.float() / 255, torch.tensor(1))]
    data = load(Pairs(items))
    assert all(torch.equal(image, tensor) for image in data["image"])
    assert data["class"].tolist() == [0, 1, -1, 1]
    assert data.info.class_names == ("cat", "dog")
    assert picture.size == (32, 32)
    assert picture.getpixel((0, 0)) == tuple(pixels[0, 0])  # still open
    assert "class" not in load(Pairs([picture, picture]))
    assert load(Pairs([(picture, torch.tensor([1, 0, -1]))] * 2))["tags"].tolist() == [[1, 0, -1]] * 2


def test_what_is_no_data_set_is_refused():
    with pytest.raises(UserError, match="cannot be loaded"):
        load(3.5)
    with pytest.raises(UserError, match="no images"):
        from_torch(Pairs([]))
    with pytest.raises(UserError, match="item 1 of the data set is no image"):
        from_torch(Pairs([(photo(1), 0), ("text", 1)]))


class Fake:
    """Stands for a torchvision data set: 6 training and 4 test images."""

    classes = ("zero", "one")

    def __init__(self, root, train, download):
        assert download
        self.data = np.full((6 if train else 4, 8, 8, 3), 7 if train else 9, np.uint8)
        self.targets = [0, 1] * (3 if train else 2)


def test_torchvision_by_name(monkeypatch, tmp_path):
    from torchvision import datasets

    monkeypatch.setattr(datasets, "CIFAR10", Fake)
    data = load("cifar10", cache=tmp_path)
    assert data["fold"].tolist() == [TRAIN] * 6 + [TEST] * 4
    assert data.info.class_names == ("zero", "one")
    assert (data.fold(TEST)["image"] == 9).all()
    assert load("cifar10", cache=tmp_path, size=4).height == 4


def test_torchvision_without_a_network(monkeypatch, tmp_path):
    from torchvision import datasets

    def broken(*_, **__):
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr(datasets, "FashionMNIST", broken)
    with pytest.raises(UserError, match=r"'fashion-mnist-full' could not be downloaded.*check the network"):
        load("fashion-mnist-full", cache=tmp_path)


def _hub_table(labels, count=3):
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["a", "b", "c"])),
            "caption": datasets.Value("string"),
        }
    )
    rows = {
        "image": [photo(number, 20, 24) for number in range(count)],
        "label": labels,
        "tags": [[0, 2], [], [1]][:count],
        "caption": ["one", "", "three"][:count],
    }
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture
def _offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("_offline")
def test_a_saved_hugging_face_data_set(tmp_path):
    import datasets

    splits = datasets.DatasetDict({"train": _hub_table([0, 1, -1]), "test": _hub_table([1, 1, 0])})
    splits.save_to_disk(tmp_path / "saved")
    for source in (str(tmp_path / "saved"), f"hf:{tmp_path / 'saved'}"):
        data = load(source, size=20, cache=False)
        assert data["class"].tolist() == [0, 1, -1, 1, 1, 0]
        assert data["fold"].tolist() == [TRAIN] * 3 + [TEST] * 3
        assert data["tags"][0].tolist() == [1, 0, 1]
        assert data.info.tag_names == ("a", "b", "c")
        assert data["size"][0].tolist() == [20, 24]
        assert data.known("caption").tolist() == [True, False, True] * 2
    one = load(splits["train"], size=20, cache=False)
    assert torch.equal(one["image"], data["image"][:3])


@pytest.mark.usefixtures("_offline")
def test_a_hugging_face_data_set_that_is_not_there():
    with pytest.raises(UserError, match="'hf:no/where' cannot be loaded"):
        load("hf:no/where")


def test_a_hugging_face_data_set_without_images(tmp_path):
    import datasets

    datasets.Dataset.from_dict({"x": [1, 2]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match="no column of images, only x"):
        load(tmp_path / "saved")


def test_names_known():
    assert set(torchvision.NAMES) >= {"fashion-mnist-full", "cifar10"}
