from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rushlight.core.arguments import checked
from rushlight.core.catalogue import load_method
from rushlight.core.errors import UserError
from rushlight.data.columns import encode_text
from rushlight.data.dataset import Dataset
from rushlight.data.edit import reviews
from rushlight.data.sources.read import load
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.stage import RunContext

Pass = load_method("pass")
MODEL = Model(encoders.create("conv16", image_size=16))
OFF = {"licences": None, "attribution": False, "smallest": 1, "flat": 0.0, "faces": None, "duplicates": "none"}
"""Arguments that switch every rule off."""


def noise(n: int, seed: int = 0, **columns: torch.Tensor) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return Dataset({"image": images, "name": encode_text([f"{i}.png" for i in range(n)]), **columns})


def run(data: Dataset, seed: int = 0, **arguments: object):
    stage = Pass(**{**OFF, **arguments})
    outcome = stage.run(data, MODEL, RunContext(seed=seed, budget=Budget(passes=1)))
    kept = outcome.data
    assert kept.names == [name for name, there in zip(outcome.pool.names, outcome.pool.kept.tolist()) if there]
    return outcome, kept


def brightness(images) -> torch.Tensor:
    """A detector whose truth is known: the first pixel's red, of 255."""
    return torch.tensor([float(image[0, 0, 0]) / 255 for image in images])


def test_its_module_has_a_keyword_for_a_name_and_is_found_all_the_same() -> None:
    assert import_module("rushlight.methods.curate.pass_.method").Pass is Pass


def test_with_every_rule_off_and_an_empty_detector_the_data_stays_itself() -> None:
    data = noise(5)
    outcome, kept = run(data)
    assert kept is data
    assert outcome.pool.kept.all()
    outcome, kept = run(data, detectors={"nothing": lambda images: torch.zeros(len(images))})
    assert kept is data
    assert outcome.pool.rates()[-1]["reason"] == "review: removed by a reviewer"
    assert not any(rate["images"] for rate in outcome.pool.rates())


def test_planted_faces_are_found_in_the_users_own_files(tmp_path: Path) -> None:
    """Real faces on a large photo: at 32 pixels, as the data are packed, they are too small to be seen."""
    from skimage.data import lfw_subset

    crops = torch.from_numpy(255 * lfw_subset()).float()[:, None]
    grain = np.random.default_rng(0).integers(60, 200, (40, 160, 160), dtype=np.uint8)
    for number in range(40):
        picture = grain[number] // 4 + 90
        if number % 4 == 0:
            face = F.interpolate(crops[number][None], size=(50, 50), mode="bilinear")[0, 0].round().byte().numpy()
            picture[40:90, 50:100] = face
        Image.fromarray(picture).save(tmp_path / f"{number:02d}.png")
    data = load(tmp_path, size=32, cache=False)
    outcome, _ = run(data, faces="lbp")
    faces = torch.arange(40) % 4 == 0
    assert (~outcome.pool.kept)[faces].float().mean() >= 0.8
    assert outcome.pool.kept[~faces].float().mean() >= 0.9
    packed, _ = run(data, faces="lbp", longest=None)
    assert packed.pool.kept.all()


def test_licences_and_attribution() -> None:
    texts = ["CC BY 2.0", "Attribution License", "CC BY-NC 4.0", "", "all; rights", "CC0"]
    data = noise(6, licence=encode_text(texts), creator=encode_text(["a", "", "b", "c", "d", "e"]))
    outcome, _ = run(data, licences=["CC BY"], attribution=True, thorough=True)
    assert outcome.pool.reasons == [
        (),
        ("attribution: no creator is given",),
        ("licence: 'CC BY-NC' is not allowed",),
        ("licence: none is given",),
        ("licence: 'all, rights' is not allowed",),
        ("licence: 'CC0' is not allowed",),
    ]
    assert run(data, licences=["cc-by-4.0", "CC0"])[1].names == ["0.png", "1.png", "5.png"]


def test_of_very_many_licences_the_commonest_are_named() -> None:
    data = noise(31, licence=encode_text(["CC BY", *(f"licence {i // 2}" for i in range(30))]))
    outcome, _ = run(data, licences=["CC BY"])
    assert sum("not allowed" in reason for reason in outcome.pool.against) == 13
    assert outcome.pool.kept.tolist() == [True] + 30 * [False]


def test_single_colours_small_images_and_duplicates() -> None:
    data = noise(6)
    images = data["image"].clone()
    images[1] = 77
    images[4] = images[2]
    images[5] = images[2]
    sizes = torch.tensor([[200, 200], [200, 200], [200, 200], [9, 200], [200, 200], [200, 200]], dtype=torch.int32)
    data = data.with_columns(image=images, size=sizes)
    outcome, kept = run(data, smallest=10, flat=3.0, duplicates="exact")
    assert kept.names == ["0.png", "2.png"]
    assert outcome.pool.reasons[1:5:2] == [("colour: a single one",), ("size: a side under 10 pixels",)]
    assert outcome.pool.reasons[5] == ("duplicate: of an earlier image",)


def test_near_duplicates() -> None:
    smooth = F.interpolate(torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)), size=(16, 16)) * 200
    images = torch.cat([smooth, smooth[:1] + 2]).byte()
    _, kept = run(Dataset({"image": images}), duplicates="near")
    assert kept.names == ["0", "1", "2"]
    assert run(Dataset({"image": images}), duplicates="exact")[1].names == ["0", "1", "2", "3"]


def test_the_cap_keeps_so_many_of_each_creator_and_a_take_down_moves_no_other_image() -> None:
    creators = encode_text(["ann"] * 6 + ["ben"] * 2 + [""] * 3)
    data = noise(11, creator=creators)
    _, kept = run(data, cap=3)
    assert sum(int(name[:-4]) < 6 for name in kept.names) == 3
    assert len(kept) == 3 + 2 + 3, "those that name nobody are not one creator"
    assert run(data, cap=3)[1].names == kept.names
    assert any(run(data, cap=3, seed=seed)[1].names != kept.names for seed in range(1, 4))
    fewer = data.select(torch.tensor([name != kept.names[0] for name in data.names]))
    assert set(kept.names[1:]) <= set(run(fewer, cap=3)[1].names)


@settings(deadline=None, max_examples=15)
@given(st.permutations(range(4)))
def test_the_rules_order_changes_no_decision(order: list[int]) -> None:
    """All reasons where every rule sees every image; else the same images are kept, for other reasons perhaps."""
    data = noise(24, licence=encode_text(["CC BY", "", "CC0"] * 8), creator=encode_text(["a", "b", "c", ""] * 6))
    arguments = {"licences": ["CC BY", "CC0"], "attribution": True, "detectors": {"bright": brightness}, "flat": 70.0}
    for thorough in (True, False):
        stage, shuffled = (Pass(**{**OFF, **arguments, "thorough": thorough}) for _ in range(2))
        own = Pass.rules

        def turned(data, device="cpu", shuffled=shuffled):
            rules = own(shuffled, data, device)
            assert len(rules) == 5
            return [*(rules[place] for place in order), rules[4]]

        shuffled.rules = turned
        ctx = RunContext(budget=Budget(passes=1))
        pool, other = (each.run(data, MODEL, ctx).pool for each in (stage, shuffled))
        assert pool.kept.tolist() == other.kept.tolist()
        assert 0 < int(pool.kept.sum()) < 16
        if thorough:
            assert pool.reasons == other.reasons


def test_dear_rules_see_what_cheap_ones_left() -> None:
    data, seen = noise(10, licence=encode_text(["CC BY", ""] * 5)), []

    def count(images) -> torch.Tensor:
        seen.extend(images)
        return torch.zeros(len(images))

    run(data, licences=["CC BY"], detectors={"count": count})
    assert len(seen) == 5
    run(data, licences=["CC BY"], detectors={"count": count}, thorough=True)
    assert len(seen) == 15


def test_reviewed_images_go_and_bound_what_is_left(tmp_path: Path) -> None:
    data = noise(100)
    outcome, _ = run(data, review=20)
    drawn = outcome.pool.scores["review"]
    sample = [outcome.pool.names[row] for row in drawn.argsort()[:20].tolist()]
    assert sorted(drawn[~drawn.isnan()].tolist()) == list(range(1, 21))
    assert "Nothing was reviewed" in outcome.findings.warnings[-1]
    text = "name,verdict\n" + "\n".join(f"{name},{'remove' if i < 2 else 'keep'}" for i, name in enumerate(sample))
    (tmp_path / "review.csv").write_text(text)
    again, kept = run(data, review=20, verdicts=str(tmp_path / "review.csv"))
    assert torch.equal(again.pool.scores["review"].nan_to_num(), drawn.nan_to_num()), "the same sample is drawn"
    assert not set(sample[:2]) & set(kept.names)
    assert len(kept) == 98
    measure = again.findings.measure
    assert measure("residual share").value == pytest.approx(0.1)
    assert measure("residual share").high == pytest.approx(reviews.at_most(2, 20))
    assert measure("residual images").high == pytest.approx(80 * reviews.at_most(2, 20))


@pytest.mark.parametrize(("found", "n"), [(0, 20), (2, 20), (7, 9)])
def test_the_bound_is_where_so_few_finds_become_unlikely(found: int, n: int) -> None:
    """At the bound, finding so few or fewer has probability 1 − confidence: the binomial sum, term by term."""
    from math import comb

    p = reviews.at_most(found, n, 0.95)
    tail = sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(found + 1))
    assert tail == pytest.approx(0.05, abs=1e-9)


def test_the_bounds_edges() -> None:
    assert reviews.at_most(3, 3) == 1
    with pytest.raises(ValueError, match="no share"):
        reviews.at_most(1, 0)


def test_what_was_taken_down_stays_down(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("name\n3.png\n99.png\n")
    data = noise(6)
    first, kept = run(data, takedown=str(tmp_path / "letters.txt"))
    assert kept.names == ["0.png", "1.png", "2.png", "4.png", "5.png"]
    assert any("'99.png'" in note for note in first.findings.warnings)
    first.pool.write(tmp_path / "curation.csv")
    second, kept = run(data, previous=str(tmp_path / "curation.csv"))
    assert second.pool.reasons[3] == ("version: removed in an earlier one",)
    assert kept.names == ["0.png", "1.png", "2.png", "4.png", "5.png"]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    data = noise(4, licence=encode_text(["CC0"] * 4))
    with pytest.raises(UserError, match="keeps none of 4 images: 'licence: 'CC0' is not allowed' speaks against 4"):
        run(data, licences=["CC BY"])
    for text, message in (("name,seen\na,1\n", "needs the columns"), ("name,verdict\n0.png,maybe\n", "row 2")):
        (tmp_path / "review.csv").write_text(text)
        with pytest.raises(UserError, match=message):
            run(data, verdicts=str(tmp_path / "review.csv"))
    with pytest.raises(UserError, match="cannot be read"):
        run(data, takedown=str(tmp_path / "missing.txt"))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"no curation\.csv"):
        run(data, previous=str(tmp_path / "other.csv"))
    with pytest.raises(UserError, match="'exact' or 'near' or 'none'"):
        checked("pass", Pass, {"duplicates": "all"})
    with pytest.raises(UserError, match="threshold"):
        Pass(threshold=0)
