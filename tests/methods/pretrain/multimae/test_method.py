"""MultiMAE: what is seen and asked, that it is MAE with images alone, unknown values, pseudo-labels, what it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from margins import Margin
from pretraining import fresh, photos, prepared

from rushlight.augment import mask, mix
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import scenes as composed
from rushlight.measure.features import pooled
from rushlight.methods.baseline.supervised import pasted
from rushlight.methods.pretrain.multimae.method import MultiMAE
from rushlight.methods.pretrain.multimae.multimodal import all_tokens, transform
from rushlight.nets import encoders
from rushlight.nets.encoders.multimodal import MultiModal
from rushlight.nets.vit import patchify
from rushlight.run.budget import Budget
from rushlight.run.evaluate import evaluate
from rushlight.run.model import Model, ModelInfo
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext


@pytest.fixture(scope="module")
def whole() -> Dataset:
    return composed.compose(120, size=32, seed=3)


def ready(data: Dataset, **settings) -> MultiMAE:
    learner = MultiMAE(**settings)
    start = Model(encoders.create("vit64-p8", image_size=32, seed=0), {}, ModelInfo(image_size=(32, 32)))
    learner.prepare(data, start, RunContext(seed=1, task=None))
    learner.plan = learner.plan_for(Budget(passes=2000))
    return learner


def shown(learner: MultiMAE, data: Dataset, n: int = 8) -> tuple[dict, dict]:
    columns = {"image": data["image"][:n].float() / 255, "depth": data["depth"][:n], "mask": data["mask"][:n]}
    return learner.prepared({name: columns[name] for name in learner.every})


def test_every_modality_is_seen_and_rebuilt_and_the_losses_fall(whole: Dataset, margin: Margin) -> None:
    learner = ready(whole)
    assert learner.every == ["image", "depth", "mask"]
    values, known = shown(learner, whole)
    masked = learner.masked(torch.ones(8, 3, dtype=torch.bool))
    optimiser, losses = torch.optim.AdamW(learner.parameters(), lr=2e-3), []
    for _ in range(40):  # one batch with the same masks: without learning the losses stay as they are, exactly
        losses.append(learner.losses(values, known, masked))
        optimiser.zero_grad()
        torch.stack(list(losses[-1].values())).sum().backward()
        optimiser.step()
    left = {name: float(loss.detach() / losses[0][name].detach()) for name, loss in losses[-1].items()}
    # Seeds 0 to 3: image 0.18 to 0.20, normalised 0.67 to 0.68, mask 0.29 to 0.35, depth 0.965 to 0.983.
    bounds = {"image": 0.4, "normalised": 0.8, "mask": 0.6, "depth": 0.995}
    assert set(left) == set(bounds)
    for name, bound in bounds.items():
        margin(f"loss left, {name}", left[name], bound, below=True)


@pytest.mark.parametrize(("normalised", "name"), [(True, "normalised"), (False, "image")])
def test_with_images_alone_it_is_mae(normalised: bool, name: str) -> None:
    learner = prepared(MultiMAE, encoder="vit64-p7").double()
    images = torch.rand(3, 3, 28, 28, dtype=torch.float64)
    masked = mask.random_patches(3, (4, 4), ratio=0.5, generator=torch.Generator().manual_seed(0)).flatten(1)
    said = []
    learner.decoders[f"{name}_"].register_forward_hook(lambda m, given, out: said.append(out.float()))
    values, known = learner.prepared({"image": images})
    loss = learner.losses(values, known, masked)[name]
    target = patchify(learner.model.encoder.normalise(images.float()), 7)
    if normalised:
        target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6).sqrt()
    expected = (said[0] - target).square().mean(2)[masked].mean()
    torch.testing.assert_close(loss.float(), expected.float())


def test_each_loss_is_its_definition(whole: Dataset) -> None:
    learner = ready(whole, normalised=False)
    values, known = shown(learner, whole)
    masked = learner.masked(torch.ones(8, 3, dtype=torch.bool))
    said = {}
    for name in learner.asked:
        learner.decoders[f"{name}_"].register_forward_hook(lambda m, given, out, name=name: said.update({name: out}))
    losses = learner.losses(values, known, masked)
    hidden = dict(zip(learner.every, masked.chunk(3, 1), strict=True))
    depth, masks = patchify(values["depth"][:, None], 8), patchify(values["mask"][:, None, ::2, ::2].float(), 4).long()
    per_image = {"depth": [], "mask": []}
    for n in range(8):
        rows = hidden["depth"][n]
        per_image["depth"].append((said["depth"][n, rows] - depth[n, rows]).abs().mean())
        rows = hidden["mask"][n]
        logits = said["mask"][n, rows].view(-1, learner.classes)
        per_image["mask"].append(F.cross_entropy(logits, masks[n, rows].flatten()))
    for name, each in per_image.items():
        torch.testing.assert_close(losses[name], torch.stack(each).mean())


def test_visible_pixels_of_a_target_do_not_count(whole: Dataset) -> None:
    learner = ready(whole).eval()
    values, known = shown(learner, whole)
    masked = learner.masked(torch.ones(8, 3, dtype=torch.bool))
    for number, name in enumerate(learner.every):  # the same answer, whatever is seen: only targets change
        learner.decoders[f"{name}_"].register_forward_hook(
            lambda m, given, out: torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
        )
        hidden = masked.chunk(3, 1)[number].view(8, 4, 4)
        pixels = mask.masked_pixels(hidden, 8)
        pixels = pixels[:, None] if name == "image" else pixels
        before = learner.losses(values, known, masked)[name]
        other = (values[name] + 1) % learner.classes if name == "mask" else values[name] / 2 + 0.2
        for where, alike in ((~pixels, True), (pixels, False)):
            changed = {**values, name: torch.where(where, other, values[name])}
            said = learner.losses(changed, known, masked)[name]
            if alike:
                torch.testing.assert_close(said, before)
            else:
                assert not torch.isclose(said, before)


def test_exactly_so_many_tokens_are_kept_whatever_alpha() -> None:
    for alpha in (0.2, 1.0, 1e5):
        generator = torch.Generator().manual_seed(0)
        masked = mask.dirichlet_tokens(4000, [196] * 3, kept=98, alpha=alpha, generator=generator)
        assert bool(((~masked).sum(1) == 98).all())
        shares = torch.stack([(~part).sum(1) / 98 for part in masked.chunk(3, 1)], 1)
        torch.testing.assert_close(shares.mean(0), torch.full((3,), 1 / 3), atol=0.02, rtol=0)
        if alpha == 1.0:
            torch.testing.assert_close(shares.var(0), torch.full((3,), 1 / 18), atol=0.006, rtol=0)
        if alpha == 1e5:
            assert float((shares - 1 / 3).abs().max()) < 0.02


def test_subsets_leave_modalities_out_and_unavailable_ones_are_never_kept() -> None:
    available = torch.ones(500, 3, dtype=torch.bool)
    available[:, 1] = False
    drawn = {"generator": torch.Generator().manual_seed(1), "kept": 8}
    masked = mask.dirichlet_tokens(500, [16] * 3, available=available, **drawn)
    assert bool(masked[:, 16:32].all())
    assert bool(((~masked).sum(1) == 8).all())
    with pytest.raises(ValueError, match="fewer than 40 tokens"):
        mask.dirichlet_tokens(2, [16] * 3, available=available[:2], kept=40, generator=torch.Generator())


@pytest.mark.parametrize("available", [(True, True, True), (True, False, True), (False, True, False)])
def test_all_non_empty_subsets_of_what_is_there_are_alike(available: tuple[bool, ...]) -> None:
    n, several = 14_000, 2 ** sum(available) - 1
    there = torch.tensor(available).expand(n, 3)
    masked = mask.dirichlet_tokens(n, [16] * 3, kept=8, alpha=1e3, available=there, subsets=True,
                                   generator=torch.Generator().manual_seed(0))  # fmt: skip
    seen = torch.stack([(~part).any(1) for part in masked.chunk(3, 1)], 1)  # equal shares: 8, 4 + 4 or 3 + 3 + 2
    sets, counts = (seen * torch.tensor([4, 2, 1])).sum(1).unique(return_counts=True)
    assert len(sets) == several
    assert bool((~seen | there).all())
    spread = (1 / several * (1 - 1 / several) / n) ** 0.5
    assert float((counts / n - 1 / several).abs().max()) <= 5 * spread  # all three modalities: 1/7, once 2/8


def test_unknown_values_are_neither_seen_nor_asked_for_and_gradients_stay_finite(whole: Dataset) -> None:
    rows = torch.arange(len(whole)) >= 4
    partly = whole.hide(rows, ["depth", "mask"])
    learner = ready(partly)
    batch = learner.draw(16, 0)
    loss = learner.step(batch)
    loss.backward()
    assert loss.isfinite()
    assert all(bool(p.grad.isfinite().all()) for p in learner.parameters() if p.grad is not None)
    values, known = learner.prepared({"image": torch.rand(2, 3, 32, 32), "depth": torch.full((2, 32, 32), torch.nan),
                                      "mask": torch.full((2, 32, 32), 255, dtype=torch.uint8)})  # fmt: skip
    available = torch.tensor([[True, False, False]]).expand(2, -1)
    masked = learner.masked(available)
    assert bool(masked[:, 16:].all())
    losses = learner.losses(values, known, masked)
    assert float(losses["depth"].detach()) == float(losses["mask"].detach()) == 0
    assert float(losses["image"].detach()) > 0


def test_one_crop_and_flip_for_all_modalities(whole: Dataset) -> None:
    learner = ready(whole)
    ramp = torch.linspace(0, 200, 32 * 32).view(32, 32)  # each pixel tells its place
    images = ramp.byte().expand(8, 3, -1, -1).contiguous()
    images, view = learner.view.with_view(images, generator=torch.Generator().manual_seed(0))
    masks, depth = view.masks(ramp.byte().expand(8, -1, -1)), view.depth(ramp.expand(8, -1, -1))
    assert depth.shape == masks.shape == (8, 32, 32)
    assert len({float(image[0, 0]) for image in depth}) > 4  # the views differ
    known = ~depth.isnan()
    assert known.float().mean() > 0.9
    assert float((255 * images[:, 0] - depth).abs()[known].max()) < 8  # a row is 6.3, a pixel to the side 0.2
    torch.testing.assert_close(masks[known].float(), depth[known].floor())


def test_uncertainties_weigh_the_losses(whole: Dataset) -> None:
    learner = ready(whole, uncertainty=True)
    batch = learner.draw(8, 0)
    plain = ready(whole)
    torch.testing.assert_close(learner.step(batch), plain.step(batch))
    learner.step(batch).backward()
    assert len(learner.doubts) == 4
    assert all(doubt.grad is not None for doubt in learner.doubts.parameters())
    plain.step(batch).backward()
    assert all(p.grad is not None for p in plain.parameters() if p.requires_grad)  # as DDP asks


def test_it_goes_without_images_and_on_patches_of_fourteen(whole: Dataset) -> None:
    learner = ready(whole, modalities=["depth"], targets=["image"])
    learner.step(learner.draw(8, 0)).backward()
    for names in (["depth"], ["mask"], ["depth", "mask"]):  # no image at all, neither seen nor asked for
        alone = ready(whole, modalities=names)
        shapes = []
        alone.model.encoder.model.blocks.register_forward_hook(lambda m, given, out: shapes.append(given[0].shape))
        alone.step(alone.draw(8, 0)).backward()
        assert shapes[-1] == (8, 1 + 8, 64)  # half of one modality's 16 tokens
        assert alone.model.encoder.model.patch_embed.proj.weight.grad is None
        assert all(p.grad is not None for p in alone.parameters() if p.requires_grad)  # as DDP asks
    pixels = {"image": torch.ones(2, 32, 32, dtype=torch.bool), "depth": torch.zeros(2, 32, 32, dtype=torch.bool)}
    pixels["depth"][0, 3, 3] = True
    assert learner.available(pixels).tolist() == [[False, True], [False, True]]
    with pytest.raises(UserError, match="nothing that multimae could see"):
        ready(whole.hide(torch.arange(len(whole)) >= 4, ["depth"]), modalities=["depth"], targets=["image"])
    large = composed.compose(8, size=56, seed=0)
    learner, start = MultiMAE(batch=4), Model(encoders.create("vit64-p14", image_size=56))
    learner.prepare(large, start, RunContext(seed=1, task=None))
    learner.plan = learner.plan_for(Budget(passes=100))
    assert learner.step(learner.draw(4, 0)).isfinite()


def test_the_encoder_goes_on_as_any_other() -> None:
    model = (
        Recipe.parse("multimae(batch=16) > supervised(batch=16)")
        .run(photos(), fresh("vit64-p7"), RunContext(budget=Budget(passes=600)))
        .model
    )
    assert model.head_names == ["class"]
    assert model.encoder.name == "vit64-p7+mean"


def tilted(n: int, seed: int) -> Dataset:
    """Scenes whose ground falls away upwards or downwards: the class, which no image shows."""
    data = composed.compose(n, size=32, objects=(1, 2), seed=seed)
    label = torch.randint(2, (n,), generator=torch.Generator().manual_seed(seed))
    slope = torch.linspace(-0.5, 0.5, 32)[:, None] * (2 * label - 1)[:, None, None]
    return data.with_columns(depth=data["depth"] + slope, **{"class": label}).with_info(class_names=("floor", "roof"))


def tuned(data: Dataset, hands_on: str, passes: float) -> Model:
    stages = f"multimae(batch=32, hands_on='{hands_on}') > supervised(batch=32, learning_rate=0.002)"
    start = Model(encoders.create("vit64-p8", image_size=32, seed=0), {}, ModelInfo(image_size=(32, 32)))
    ctx = RunContext(task="class", budget=Budget(passes=passes))
    return Recipe.parse(stages).run(data, start, ctx).model


@pytest.mark.slow  # two trainings of twenty seconds
def test_fine_tuning_with_depth_sees_what_images_do_not_show(margin: Margin) -> None:
    data, test = tilted(300, seed=0), tilted(300, seed=1)
    values = {name: evaluate(tuned(data, name, 4000), test).value for name in ("image", "depth", "image+depth")}
    margin("accuracy with depth above images alone", values["image+depth"] - values["image"], 0.2)
    margin("accuracy of depth alone above images alone", values["depth"] - values["image"], 0.2)


def test_an_encoder_of_depth_is_handed_on_saved_loaded_and_predicts(tmp_path: Path) -> None:
    data = tilted(24, seed=0)
    for hands_on, reads in (("image+depth", ("image", "depth")), ("depth", "depth")):
        model = tuned(data, hands_on, 200)
        assert model.encoder.reads == reads
        assert model.head_names == ["class"]
        model.save(tmp_path / hands_on)
        loaded = Model.load(tmp_path / hands_on)
        said = loaded.predict(data)["class"]
        assert torch.equal(said, model.predict(data)["class"])
        columns = {"image": data["image"], "depth": data["depth"]}
        assert torch.equal(loaded.predict(columns)["class"], said)
        assert torch.equal(loaded.predict(data, batch=5)["class"].argmax(1), said.argmax(1))
        assert 0 <= evaluate(loaded, data).value <= 1
        assert pooled(loaded, data).shape == (24, 64)  # what probes and neighbours take
        other = data.with_columns(depth=data["depth"].flip(1))
        assert not torch.equal(loaded.predict(other)["class"], said)
        with pytest.raises(UserError, match=f"reads {' and '.join(model.encoder.columns)}, and scenes has no 'depth'"):
            loaded.predict(data.without("depth"))
    with pytest.raises(UserError, match=r"reads image and depth, and 'depth' is not given"):
        Model.load(tmp_path / "image+depth").predict(data["image"])


def test_adapters_go_on_into_the_encoder(whole: Dataset) -> None:
    learner = ready(whole, hands_on="image+depth")
    encoder, adapters = learner.finish().encoder, learner.model.head("adapters")
    assert isinstance(encoder, MultiModal)
    assert torch.equal(encoder.depth.weight, adapters.depth.weight)
    assert encoder.depth.weight.data_ptr() != adapters.depth.weight.data_ptr()
    values, _ = shown(learner, whole)
    inner = learner.eval().model.encoder
    seen = {name: values[name] for name in ("image", "depth")}
    expected = transform(inner, all_tokens(inner, adapters, seen, (4, 4)))[:, 1:].mean(1)
    raw = {"image": values["image"], "depth": whole["depth"][:8]}
    torch.testing.assert_close(encoder.eval()(raw), expected, atol=1e-5, rtol=1e-5)


def test_depth_moves_with_the_image_in_fine_tuning(whole: Dataset) -> None:
    start = Model(encoders.create("vit64-p8+image+depth", image_size=32, seed=0))
    stage = Recipe.parse("supervised(batch=8)").steps[0].stage()
    ramp = torch.linspace(0, 200, 32 * 32).view(32, 32).expand(len(whole), -1, -1)  # each pixel tells its place
    data = whole.with_columns(image=ramp.byte()[:, None].repeat(1, 3, 1, 1), depth=ramp.floor())
    stage.prepare(data, start, RunContext(task="class"))
    stage.plan, given = stage.plan_for(Budget(passes=500)), []
    stage.model.encoder.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    stage.step(stage.draw(8, 0))
    image, depth = given[0]["image"][:, 0] * 255, given[0]["depth"]
    inside = ~depth.isnan()
    assert 0.7 < float(inside.float().mean()) <= 1
    torch.testing.assert_close(image[inside], depth[inside], atol=1e-3, rtol=0)
    with pytest.raises(UserError, match="reads image and depth, and scenes has no 'depth'"):
        stage.check(data.without("depth"), start, RunContext(task="class"))
    partly = data.hide(torch.arange(len(data)) > 9, ["class"])
    with pytest.raises(UserError, match="'fixmatch' trains encoders of one column"):
        Recipe.parse("fixmatch").steps[0].stage().check(partly, start, RunContext(task="class"))


def test_pasted_boxes_take_their_depth_along() -> None:
    generator = torch.Generator().manual_seed(0)
    mixed = mix.cutmix(4, (8, 8), generator=generator)
    images = torch.rand(4, 3, 8, 8)
    seen = pasted(mixed, {"image": images, "depth": images[:, 0]})
    assert torch.equal(seen["image"], pasted(mixed, images))
    assert torch.equal(seen["image"][:, 0], seen["depth"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hands_on": "image+depth"}, "cannot hand on an encoder of 'image.depth': it sees image alone"),
        ({"modalities": ["sound"]}, "no modality 'sound'"),
        ({"pseudo": {"depth": "x"}}, "depth must be in the data"),
        ({"kept": 1.5}, "at most 1, not 1.5"),
        ({"modalities": ["image", "depth"]}, "'depth' is not known in fashion"),
    ],
)
def test_what_cannot_be_is_told(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        prepared(MultiMAE, encoder="vit64-p7", **settings)


def test_no_encoder_is_handed_on_that_never_saw_what_it_reads(whole: Dataset) -> None:
    """By default it reads images where they were seen, else depth."""
    assert ready(whole, modalities=["depth"]).finish().encoder.columns == ("depth",)
    assert ready(whole, modalities=["image", "depth"]).finish().encoder.columns == ("image",)
    with pytest.raises(UserError, match=r"an encoder of 'image': it sees depth alone; .* hands_on='depth'"):
        ready(whole, modalities=["depth"], hands_on="image")
    with pytest.raises(UserError, match="it sees mask alone; add 'depth' to its modalities"):
        ready(whole, modalities=["mask"], hands_on="depth")
    assert ready(whole, modalities=["mask"]).finish().encoder.columns == ("image",)  # its blocks are trained


@pytest.mark.parametrize(
    ("recipe", "asks"),
    [
        ("multimae(hands_on='image+depth')", "reads depth, and .* has none: give --depth FOLDER"),
        ("multimae(targets=('mask',))", "reads mask, and .* has none: give --masks FOLDER"),
    ],
)
def test_what_the_data_lack_is_said_before_the_training(recipe: str, asks: str) -> None:
    with pytest.raises(UserError, match=asks):
        Recipe.parse(recipe).check(photos(8), None)
