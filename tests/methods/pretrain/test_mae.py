"""MAE: what the encoder sees, what the loss is, that it ignores what is visible, and that it learns."""

from __future__ import annotations

import pytest
import torch
from margins import Margin
from pretraining import fresh, prepared, probed, trained

from rushlight.augment import mask
from rushlight.methods.pretrain.mae import MAE
from rushlight.nets.vit import patchify
from rushlight.run.model import Model


def official(images: torch.Tensor, predicted: torch.Tensor, masked: torch.Tensor, patch: int) -> torch.Tensor:
    """The loss, patch by patch: each target by its own mean and unbiased variance; the mean over masked patches."""
    rows, columns = masked.shape[1:]
    errors = []
    for n in range(len(images)):
        for r in range(rows):
            for c in range(columns):
                if masked[n, r, c]:
                    piece = images[n, :, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch]
                    values = piece.permute(1, 2, 0).flatten()
                    target = (values - values.mean()) / (values.var(unbiased=True) + 1e-6).sqrt()
                    errors.append((predicted[n, r * columns + c] - target).square().mean())
    return torch.stack(errors).mean()


def random_mask(n: int, grid: tuple[int, int], ratio: float = 0.75) -> torch.Tensor:
    return mask.random_patches(n, grid, ratio=ratio, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
def test_it_learns_features_without_labels(margin: Margin) -> None:
    model = trained("mae(batch=32)", "vit64-p7", 5e3)
    assert model.head_names == []
    assert model.encoder.name == "vit64-p7+mean"
    before, after = probed(fresh("vit64-p7+mean")), probed(model)
    margin("gain over the untrained", after - before, 0.01)
    margin("accuracy", after, 0.55)


def test_the_loss_is_the_papers_in_value_and_gradient() -> None:
    learner = prepared(MAE, encoder="vit64-p7").double()
    images, masked = torch.rand(3, 3, 28, 28, dtype=torch.float64), random_mask(3, (4, 4))
    said = []
    learner.patch_decoder.register_forward_hook(lambda module, given, result: said.append(result))
    loss = learner.loss(images, masked)
    expected = official(learner.model.encoder.normalise(images), said[0], masked, 7)
    torch.testing.assert_close(loss, expected)
    mine, theirs = (torch.autograd.grad(each, said[0], retain_graph=True)[0] for each in (loss, expected))
    torch.testing.assert_close(mine, theirs)


def test_visible_pixels_do_not_count_in_the_target_and_masked_ones_are_not_seen() -> None:
    learner = prepared(MAE, encoder="vit64-p7")
    images, masked = torch.rand(2, 3, 28, 28), random_mask(2, (4, 4))
    seen = []
    learner.model.encoder.model.blocks.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    hidden = mask.masked_pixels(masked, 7)[:, None]
    learner.loss(images, masked)
    learner.loss(torch.where(hidden, torch.rand_like(images), images), masked)
    assert seen[0].shape[1] == 1 + 4
    torch.testing.assert_close(seen[0], seen[1])


def test_a_masked_patch_is_told_from_the_visible_ones_alone() -> None:
    learner = prepared(MAE, encoder="vit64-p7").eval()
    images, masked = torch.rand(1, 3, 28, 28), random_mask(1, (4, 4))
    said = []
    learner.patch_decoder.register_forward_hook(lambda module, given, result: said.append(result))
    learner.loss(images, masked)
    learner.loss(images.where(~mask.masked_pixels(masked, 7)[:, None], 0.0), masked)
    torch.testing.assert_close(said[0], said[1])


def test_without_normalisation_targets_are_pixels() -> None:
    learner = prepared(MAE, encoder="vit64-p7", normalise=False).double()
    images, masked = torch.rand(2, 3, 28, 28, dtype=torch.float64), random_mask(2, (4, 4))
    said = []
    learner.patch_decoder.register_forward_hook(lambda module, given, result: said.append(result))
    target = patchify(learner.model.encoder.normalise(images), 7)
    expected = (said_loss := learner.loss(images, masked)) * 0 + (said[0] - target)[masked.flatten(1)].square().mean()
    torch.testing.assert_close(said_loss, expected)


def test_positions_are_fixed_and_survive_saving(tmp_path) -> None:
    learner = prepared(MAE, encoder="vit64-p7")
    positions = learner.model.encoder.model.pos_embed
    assert not positions.requires_grad
    assert float(positions[0, 0].abs().sum()) == 0
    model = learner.finish()
    model.save(tmp_path / "m")
    torch.testing.assert_close(Model.load(tmp_path / "m").encoder.model.pos_embed, positions, rtol=0, atol=0)


def test_the_optimisers_betas_are_the_papers() -> None:
    assert all(group["betas"] == (0.9, 0.95) for group in prepared(MAE, encoder="vit64-p7").groups())


def test_a_longer_mask_costs_less() -> None:
    cost = {
        ratio: prepared(MAE, encoder="vit64-p7", ratio=ratio, decoder=(32, 1, 1)).plan.step_flops
        for ratio in (0.5, 0.75)
    }
    assert cost[0.75] < 0.75 * cost[0.5]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224"])
def test_it_works_on_timms_names(name: str) -> None:
    from rushlight.data.dataset import Dataset
    from rushlight.nets import encoders
    from rushlight.run.budget import Budget
    from rushlight.run.recipe import Recipe
    from rushlight.run.stage import RunContext

    data = Dataset({"image": torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8)})
    start = Model(encoders.create(name, image_size=64, seed=0))
    outcome = Recipe.parse("mae(batch=4)").run(data, start, RunContext(task=None, budget=Budget(passes=8)))
    model, spent = outcome.model, outcome.spent
    assert spent.steps >= 1
    assert model.encoder.name == f"{name}+mean"
