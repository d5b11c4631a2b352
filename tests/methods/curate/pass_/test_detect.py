from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from rushlight.core.errors import UserError
from rushlight.methods.curate.pass_ import detect

RETINA, FASTER = "retinanet_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_320_fpn"


def crops() -> torch.Tensor:
    """200 grey crops of 25×25 that come with scikit-image: 100 faces, then 100 of no face."""
    from skimage.data import lfw_subset

    return torch.from_numpy((255 * lfw_subset()).round()).byte()


def test_the_cascade_finds_faces_and_little_else() -> None:
    """On 64×64 pictures with a real face enlarged to 50×50, and others: measured 91 % and 0 %; 97 % and 2 %."""
    large = F.interpolate(crops()[:, None].float(), size=(50, 50), mode="bilinear")
    images = F.pad(large, (7, 7, 7, 7), value=128.0).byte().expand(-1, 3, -1, -1)
    found = detect.create("lbp")(list(images))
    for threshold, hits, false in ((0.5, 0.85, 0.03), (0.25, 0.9, 0.06)):
        assert (found[:100] >= threshold).float().mean() > hits
        assert (found[100:] >= threshold).float().mean() < false


def test_an_image_smaller_than_the_window_scores_nothing() -> None:
    images = [torch.zeros(3, 20, 60, dtype=torch.uint8), torch.zeros(3, 64, 40, dtype=torch.uint8)]
    assert detect.create("lbp")(images).tolist() == [0.0, 0.0]


def test_without_scikit_image_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(UserError, match=r"rushlight\[curate\]"):
        detect.create("lbp")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RetinaNet with random weights."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    network = get_model(RETINA, weights=None, weights_backbone=None)
    path = tmp_path_factory.mktemp("weights") / "retina.safetensors"
    save_file(network.state_dict(), path)
    return path


def test_retinanet_scores_what_its_own_postprocessing_would(weights: Path) -> None:
    """Suppression, which only torchvision's side does, never drops the best box."""
    detector = detect.create(RETINA, weights=str(weights))
    network = detector.network
    network.score_thresh, network.topk_candidates = 0.0, 10**6
    network.detections_per_img = 10**6
    network.transform.min_size, network.transform.max_size = (64,), 64
    image = torch.randint(256, (3, 40, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = network([image.float() / 255])[0]
    people = found["scores"][found["labels"] == detect.PERSON]
    assert len(people)
    torch.testing.assert_close(detector([image]), people.max()[None])


def test_faster_rcnn_scores_its_best_person(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torchvision.models import get_model

    torch.manual_seed(0)
    network = get_model(FASTER, weights=None, weights_backbone=None)
    save_file(network.state_dict(), tmp_path / "faster.safetensors")
    detector = detect.create(FASTER, weights=str(tmp_path / "faster.safetensors"))
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    boxes = torch.zeros(4, 4)
    told = {"boxes": boxes, "labels": torch.tensor([3, 1, 1, 18]), "scores": torch.tensor([0.9, 0.6, 0.4, 0.2])}
    monkeypatch.setattr(detector.network, "forward", lambda images: [told])
    assert detector([image]).tolist() == pytest.approx([0.6])
    told["labels"] = torch.tensor([3, 2, 4, 18])
    assert detector([image]).tolist() == [0.0]


def test_what_is_wrong_with_a_detector_is_said(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'retinanet_resnet50_fpn"):
        detect.create("retinanet_resnet50_fpn_v3")
    with pytest.raises(UserError, match="needs weights"):
        detect.create(RETINA)
    with pytest.raises(UserError, match="do not fit"):
        detect.create(FASTER, weights=str(weights))
    (tmp_path / "pickle.pth").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match="pickles are never loaded"):
        detect.create(RETINA, weights=str(tmp_path / "pickle.pth"))
    with pytest.raises(UserError, match="not a readable safetensors file"):
        detect.create(RETINA, weights=str(tmp_path / "missing.safetensors"))
