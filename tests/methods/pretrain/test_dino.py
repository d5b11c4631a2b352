"""DINO: what the teacher sees, what the loss is, how temperature, centre and teacher move, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lightly.loss import DINOLoss
from margins import Margin
from pretraining import disturb, follows, fresh, photos, prepared, probed, trained
from timm.layers import DropPath

from rushlight.augment.presets import multi_crop
from rushlight.methods.pretrain.dino import DINO
from rushlight.methods.pretrain.ibot import IBOT
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.stage import RunContext
from rushlight.train.joint_embedding import local_scale, local_size, prototypes_for
from rushlight.train.self_distillation import LARGE_COST


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "gain"), [("conv16", 0.02), ("vit64-p7", 0.01)])
def test_it_learns_features_without_labels(encoder: str, gain: float, margin: Margin) -> None:
    model = trained("dino(local=2, batch=32)", encoder, 10e3)
    before, after = probed(fresh(encoder)), probed(model)
    margin("gain over the untrained", after - before, gain)
    margin("accuracy", after, 0.5)


def test_the_step_is_lightlys_loss_of_the_same_outputs() -> None:
    temperatures = {"student_temperature": 0.2, "first_temperature": 0.05, "teacher_temperature": 0.09}
    learner = prepared(DINO, local=2, outputs=64, warm_temperature=0.5, centre_momentum=0.8, **temperatures).double()
    learner.plan, learner.step_index = replace(learner.plan, steps=100), 25
    learner.centre.value.copy_(torch.linspace(-0.3, 0.3, 64))
    disturb(learner.teacher.network)
    batch = learner.draw(16, 0)
    views = learner.views(batch)
    student = learner.embed(views)
    teacher = learner.embed(views[:2], network=learner.teacher.network)
    theirs = DINOLoss(output_dim=64, student_temp=0.2, warmup_teacher_temp_epochs=0, center_momentum=0.8).double()
    theirs.center.data = learner.centre.value.clone().view(1, 1, 64)
    expected = theirs([each.detach() for each in teacher], student, teacher_temp=0.07)
    loss = learner.step(batch)
    torch.testing.assert_close(loss, expected)
    wanted = torch.autograd.grad(expected, learner.model.encoder.parameters(), retain_graph=True)
    for mine, their in zip(torch.autograd.grad(loss, learner.model.encoder.parameters()), wanted, strict=True):
        torch.testing.assert_close(mine, their)
    learner.after_step()
    torch.testing.assert_close(learner.centre.value, theirs.center.data.flatten())


def test_the_centre_moves_only_after_the_loss() -> None:
    learner = prepared(DINO, local=0, outputs=64)
    learner.step(learner.draw(16, 0))
    assert not learner.centre.value.any()
    learner.after_step()
    assert learner.centre.value.any()


def test_two_large_views_then_small_ones_and_the_teacher_sees_the_large_alone() -> None:
    learner = prepared(DINO, local=3)
    seen = []
    learner.teacher.network.encoder.register_forward_hook(lambda module, given, result: seen.append(given[0].shape))
    learner.step(learner.draw(8, 0))
    assert [policy.size for policy in learner.policies] == [(28, 28), (28, 28), *[(12, 12)] * 3]
    assert seen == [torch.Size([16, 3, 28, 28])]
    first, second = learner.policies[:2]
    assert (first.blur, first.solarize, second.blur, second.solarize) == (1.0, 0.0, 0.1, 0.2)
    assert [policy.blur for policy in learner.policies[2:]] == [0.5] * 3
    assert first.crop_scale == second.crop_scale == (0.4, 1.0)
    assert [policy.crop_scale for policy in learner.policies[2:]] == [pytest.approx((64 / 784, 0.4))] * 3


def test_no_gradient_reaches_the_teacher_and_it_follows() -> None:
    learner = prepared(DINO, local=1)
    before = [parameter.clone() for parameter in learner.teacher.network.parameters()]
    learner.step(learner.draw(8, 0)).backward()
    assert all(parameter.grad is None for parameter in learner.teacher.network.parameters())
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter.add_(1.0)
    learner.after_step()
    moved = [(after - old).mean() for old, after in zip(before, learner.teacher.network.parameters(), strict=True)]
    for share in moved:
        torch.testing.assert_close(share, torch.tensor(1 - 2 / 11), atol=1e-4, rtol=0)


def test_the_teachers_momentum_rises_to_one_by_half_a_cosine_and_its_statistics_are_its_own() -> None:
    learner = prepared(DINO, local=0, momentum=0.9)
    learner.plan, learner.teacher.warm = replace(learner.plan, steps=100), False
    learner.step(learner.draw(8, 0))
    assert all(module.training for module in learner.teacher.network.modules())
    for at, share in ((0, 0.1), (25, 0.05 + 0.05 / math.sqrt(2)), (100, 0.0)):
        learner.step_index = at
        follows(learner, learner.teacher, share)


def test_temperature_rises_and_prototypes_rest_at_first() -> None:
    learner = prepared(DINO, teacher_temperature=0.07, first_temperature=0.04, warm_temperature=0.5, freeze_last=0.2)
    learner.plan = replace(learner.plan, steps=100)
    assert [round(learner.warmed(0.07), 4) for learner.step_index in (0, 25, 50, 99)] == [0.04, 0.055, 0.07, 0.07]
    prototypes = learner.model.head("projector").heads[-1].weight
    optimiser = learner.make_optimiser()
    for at, rests in ((10, True), (30, False)):
        learner.step_index = at
        learner.step(learner.draw(8, 0)).backward()
        learner.clip_gradients(optimiser.param_groups)
        assert (prototypes.grad is None) is rests


def test_each_gradient_is_clipped_by_itself() -> None:
    learner = prepared(DINO, clip=1e-3, freeze_last=0.0)
    learner.step(learner.draw(8, 0)).backward()
    learner.clip_gradients(learner.make_optimiser().param_groups)
    norms = [parameter.grad.norm() for parameter in learner.model.parameters() if parameter.grad is not None]
    assert max(norms) <= 1e-3 * 1.001
    assert sum(norm > 0.9e-3 for norm in norms) > len(norms) / 2


def test_paths_are_dropped_in_the_student_alone_and_not_in_what_is_handed_on() -> None:
    learner = prepared(DINO, encoder="vit64-p7", local=1, drop_path=0.3)

    def rates(network: torch.nn.Module) -> list[float]:
        return [module.drop_prob for module in network.modules() if isinstance(module, DropPath)]

    assert max(rates(learner.model)) == pytest.approx(0.3)
    assert not rates(learner.teacher.network)
    assert not rates(learner.finish())


def test_sizes_follow_the_papers_at_full_size() -> None:
    assert prototypes_for(1_281_167, 65536) == 65536
    assert prototypes_for(8000, 65536) == 512
    assert prototypes_for(100, 65536) == 256
    assert local_size(encoders.create("conv16"), 224, 224) == (96, 96)
    assert local_size(encoders.create("vit96-p16", image_size=224), 224, 224) == (96, 96)
    assert local_size(encoders.create("vit64-p7", image_size=28), 28, 28) == (14, 14)
    assert local_scale(224, 224) == (0.05, 0.4)
    assert local_scale(28, 28)[0] == pytest.approx(64 / 784)
    assert len(multi_crop(224, 96)) == 10
    mlp, prototypes = prepared(DINO).model.head("projector").heads
    assert mlp.config["widths"] == [64, 384, 384, 256]
    assert (mlp.config["norm"], mlp.config["activation"]) == (False, "gelu")
    assert prototypes.config["outputs"] == 256


@pytest.mark.parametrize("kind", [DINO, IBOT])
def test_views_temperature_and_head_follow_the_steps_and_what_is_written_stays(kind) -> None:
    def settled(passes: float, **settings) -> tuple[int, float, int]:
        learner = kind(**settings)
        data = photos().without("class")
        learner.prepare(data, fresh("vit64-p7"), RunContext(task=None, budget=Budget(passes=passes)))
        outputs = learner.model.head("projector").heads[-1].config["outputs"]
        return len(learner.policies) - 2, learner.rise, outputs

    most = {DINO: 8, IBOT: 10}[kind]
    assert settled(1e9) == (most, 0.3, 256)
    assert settled(1e4) == (2, pytest.approx(0.3 * 1e4 / (32 * (LARGE_COST + 0.5)) / 1e4), 256)
    few, rise, _ = settled(1100 * 32 * (LARGE_COST + 4 * 0.25))  # a small view has 4 of 16 patches
    assert 4 <= few < most
    assert rise == pytest.approx(0.3 * 1100 * (LARGE_COST + 1) / (LARGE_COST + few * 0.25) / 1e4)
    assert settled(1e4, local=most, warm_temperature=0.2, outputs=1024) == (most, 0.2, 1024)


def test_a_uniform_answer_costs_the_logarithm_of_the_outputs() -> None:
    learner = prepared(DINO, local=1, outputs=256)
    with torch.no_grad():
        for network in (learner.model, learner.teacher.network):
            network.head("projector").heads[-1].weight.copy_(torch.ones(256, 256))
    assert float(learner.step(learner.draw(8, 0)).detach()) == pytest.approx(math.log(256), rel=1e-4)
