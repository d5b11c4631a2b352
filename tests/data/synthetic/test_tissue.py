"""Composed tissue, the mask of tissue, and patches of whole images."""

from __future__ import annotations

import pytest
import torch

from rushlight.data.synthetic import tissue


def test_patches_have_their_truth_and_the_same_seed_gives_the_same() -> None:
    one, again, other = (tissue.compose(300, labs=(0, 3), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one["image"], again["image"])
    assert not torch.equal(one["image"], other["image"])
    assert set(one["domain"].tolist()) == {0, 3}
    assert set(one["class"].tolist()) == {0, 1, 2, 3}
    assert one.info.class_names == tissue.KINDS


def test_kinds_differ_by_their_nuclei_and_laboratories_by_colour_alone() -> None:
    kind = torch.arange(4).repeat_interleave(60)
    amount = tissue.concentrations(kind, 32, 1.0, torch.Generator().manual_seed(0))
    covered = (amount[:, 0] > 0.5).float().mean((1, 2)).view(4, 60).mean(1)
    assert covered[3] > covered[1] > covered[0]
    vectors = torch.stack([tissue.stain(lab).vectors for lab in range(tissue.LABS)])
    torch.testing.assert_close(vectors.norm(dim=2), torch.ones(tissue.LABS, 2))
    assert float(torch.pdist(vectors.flatten(1)).min()) > 0.05


def test_from_farther_nuclei_are_smaller_and_more() -> None:
    kind = torch.full((80,), 3)
    near, far = (tissue.concentrations(kind, 32, x, torch.Generator().manual_seed(0))[:, 0] > 0.5 for x in (1.0, 2.0))

    def edges(drawn: torch.Tensor) -> float:
        return float((drawn[:, 1:] ^ drawn[:, :-1]).float().mean() / drawn.float().mean())

    assert edges(far) > 1.5 * edges(near)


def test_a_slides_label_is_its_share_of_tumour() -> None:
    data = tissue.slides(12, patches=20, seed=3)
    assert len(data) == 240
    for slide in range(12):
        assert len(data["class"][data["domain"] == slide].unique()) == 1
    dark = (data["image"].float().mean(1) < 110).float().mean((1, 2)).view(12, 20).amax(1)
    label = data["class"].view(12, 20)[:, 0]
    assert dark[label == 1].mean() > dark[label == 0].mean()


def whole() -> torch.Tensor:
    """Glass, with tissue in its lower right quarter."""
    image = torch.full((3, 128, 128), 245, dtype=torch.uint8)
    image[:, 64:, 64:] = tissue.compose(1, size=64, seed=5)["image"][0]
    return image


def test_patches_are_cut_where_tissue_is() -> None:
    assert tissue.tissue(whole())[64:, 64:].float().mean() > 0.9
    assert not tissue.tissue(whole())[:64, :64].any()
    cut, corner = tissue.tiles(whole(), size=32)
    assert corner.tolist() == [[64, 64], [64, 96], [96, 64], [96, 96]]
    torch.testing.assert_close(cut[2], whole()[:, 96:128, 64:96])


def test_the_share_of_tissue_is_seen_on_a_grid() -> None:
    patches = torch.full((600, 3, 64, 64), 245, dtype=torch.uint8)
    patches[300:, :, :, :16] = 120
    patches[599] = 120
    found = tissue.tissue_share(patches, side=16)
    assert not found[:300].any()
    assert found[300:599].eq(0.25).all()
    assert found[599] == 1
    for image, share in zip(patches[::150], found[::150], strict=True):
        assert float(tissue.tissue(image).float().mean()) == share


def test_slides_are_drawn_evenly() -> None:
    small = tissue.compose(1, size=64, seed=6)["image"][0]
    data = tissue.sampled({"big": whole(), "small": small}, size=32, patches=40, seed=1)
    assert data["domain"].bincount().tolist() == [20, 20]
    assert data.names[0].startswith("big@")
    assert len(set(data.names)) == 40
    with pytest.raises(ValueError, match="no image shows tissue"):
        tissue.sampled({"glass": torch.full((3, 64, 64), 250, dtype=torch.uint8)}, size=32, patches=3)


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(ValueError, match="laboratories are 0 … 4"):
        tissue.compose(3, labs=(7,))
