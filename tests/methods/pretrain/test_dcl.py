"""DCL: its three forms beside plain loops, what it logs, and that it learns."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pretraining
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from margins import Margin
from pretraining import fresh, probed

from rushlight.augment import presets
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import fashion
from rushlight.losses.contrastive import info_nce
from rushlight.methods.pretrain.dcl import DCL
from rushlight.nets.norm import synchronise
from rushlight.run.budget import Budget
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext
from rushlight.train.plan import Plan

T = 0.1


@pytest.fixture(scope="module")
def photos() -> Dataset:
    return pretraining.photos()


def prepared(photos: Dataset, **settings) -> DCL:
    learner = DCL(**settings)
    learner.prepare(photos, fresh(), RunContext(seed=3, task=None))
    learner.plan = learner.plan_for(Budget(passes=2e3))
    return learner


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["dcl(batch=32)", "dcl(form='nnclr', batch=64)"])
def test_it_learns_features_without_labels_and_hands_on_the_projector(photos, recipe, margin: Margin):
    data = photos.without("class")
    trained = Recipe.parse(recipe).run(data, fresh(), RunContext(task=None, budget=Budget(passes=10e3))).model
    assert trained.head_names == ["projector"]
    before, after = probed(fresh()), probed(trained)
    margin("gain over the untrained", after - before, 0.03)
    margin("accuracy", after, 0.66)


def pictures(learner: DCL, rows: int = 6) -> tuple[dict, list[torch.Tensor]]:
    batch, rng = learner.draw(rows, 0), learner.generator()
    return batch, [view(batch["views"]["image"], generator=rng) for view in learner.policies]


def directions(embeddings: torch.Tensor) -> torch.Tensor:
    return torch.stack([row / row.norm() for row in embeddings])


def equal(learner: DCL, batch: dict, loss: torch.Tensor) -> None:
    """The step's value and its gradients of everything that is trained."""
    trained = [p for p in learner.parameters() if p.requires_grad]
    expected = torch.autograd.grad(loss, trained)
    step = learner.step(batch)
    torch.testing.assert_close(step, loss)
    for mine, theirs in zip(torch.autograd.grad(step, trained), expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-6)


def weights(s: list[torch.Tensor], detach: bool) -> list[torch.Tensor]:
    raised = [((x.detach() if detach else x) / 0.5).exp() for x in s]
    return [2 - x / (sum(raised) / len(raised)) for x in raised]


@pytest.mark.parametrize(
    "settings", [{}, {"weighted": True}, {"weighted": True, "detach_weight": False}, {"decoupled": False}]
)
def test_among_views_it_is_equation_6(photos, settings):
    learner = prepared(photos, **settings).double()
    batch, views = pictures(learner)
    z = directions(learner.model.logits(torch.cat(views), "projector")).view(2, 6, -1)
    s = [z[0, i] @ z[1, i] for i in range(6)]
    w = weights(s, settings.get("detach_weight", True)) if settings.get("weighted") else [1.0] * 6
    losses, multipliers = [], []
    for k in range(2):
        for i in range(6):
            u = sum((z[k, i] @ z[m, j] / T).exp() for m in range(2) for j in range(6) if j != i)
            own = (s[i] / T).exp()
            multipliers.append(u / (own + u))
            losses.append(-w[i] * s[i] / T + (u + (0 if settings.get("decoupled", True) else own)).log())
    equal(learner, batch, sum(losses) / 12)
    q = torch.stack(multipliers).detach()
    torch.testing.assert_close(learner.logged["q"], q.mean())
    torch.testing.assert_close(learner.logged["q_variance"], q.var())


@pytest.mark.parametrize("decoupled", [True, False])
def test_with_a_memory_bank_only_past_keys_stand_in_the_denominator(photos, decoupled):
    learner = prepared(photos, form="moco", decoupled=decoupled, memory_bank_size=256).double()
    batch, views = pictures(learner)
    q = directions(learner.model.logits(views[0], "projector"))
    k = directions(learner.key_encoder.network.logits(views[1], "projector")).detach()
    past = directions(learner.memory_bank.values)
    losses = []
    for i in range(6):
        u = sum((q[i] @ n / T).exp() for n in past)
        losses.append(-q[i] @ k[i] / T + (u + (0 if decoupled else (q[i] @ k[i] / T).exp())).log())
    equal(learner, batch, sum(losses) / 6)


@pytest.mark.parametrize("decoupled", [True, False])
def test_neighbours_stand_for_their_view_and_are_told_from_predictions_of_the_other(photos, decoupled):
    learner = prepared(photos, form="nnclr", decoupled=decoupled, memory_bank_size=256).double()
    batch, views = pictures(learner)
    z = learner.model.logits(torch.cat(views), "projector")
    p = directions(learner.predictor(z)).view(2, 6, -1)
    unit = directions(z).view(2, 6, -1)
    support = directions(learner.memory_bank.values)
    losses = []
    for k in range(2):
        for i in range(6):
            near = max(support, key=lambda row: float(row @ unit[k, i].detach()))
            s = [near @ p[1 - k, j] / T for j in range(6)]
            others = sum(s[j].exp() for j in range(6) if j != i)
            losses.append(-s[i] + (others + (0 if decoupled else s[i].exp())).log())
    equal(learner, batch, sum(losses) / 12)


def test_the_memory_bank_takes_in_one_view_after_the_step(photos):
    learner = prepared(photos, form="nnclr", memory_bank_size=512)
    batch = learner.draw(32, 0)
    rng = learner.generator()
    views = torch.cat([view(batch["views"]["image"], generator=rng) for view in learner.policies])
    first = learner.model.logits(views, "projector")[:32].detach()
    before = learner.memory_bank.values.clone()
    learner.step(batch)
    assert torch.equal(learner.memory_bank.values, before)
    learner.after_step()
    torch.testing.assert_close(learner.memory_bank.values[:32], first)
    assert torch.equal(learner.memory_bank.values[32:], before[32:])


def test_more_images_bring_q_nearer_to_one(photos):
    learner, found = prepared(photos, decoupled=False), []
    for rows in (4, 32, 256):
        learner.step(learner.draw(rows, 0))
        found.append(float(learner.logged["q"]))
    assert found == sorted(found)
    assert found[0] < 0.95 < found[-1]


def test_its_head_and_memory_bank_are_as_documented(photos):
    assert prepared(photos, projector=[96, 40]).model.head("projector").config["widths"] == [64, 96, 40]
    nnclr = prepared(photos, form="nnclr")
    assert nnclr.predictor.config["widths"] == [128, 64, 128]
    assert len(nnclr.memory_bank.values) == 256
    assert not hasattr(prepared(photos), "memory_bank")


def test_sgd_scales_with_the_batch(photos):
    learner = prepared(photos, optimiser="sgd", batch=32)
    assert [group["lr"] for group in learner.make_optimiser().param_groups] == [pytest.approx(0.03 * 32 / 256)] * 2


def test_an_unknown_form_is_refused():
    with pytest.raises(UserError, match="dcl has no form 'byol': choose simclr, moco or nnclr"):
        DCL(form="byol")


def test_easy_positives_teach_decoupled_contrast_and_hardly_info_nce():
    """At a small batch and a low temperature, InfoNCE's gradient has all but vanished; DCL's has not."""
    z = F.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    near = (z + 0.15 * torch.randn(4, 16, generator=torch.Generator().manual_seed(1))).requires_grad_()
    size = {
        d: torch.autograd.grad(info_nce([z, near], temperature=T, denominator=d), near)[0].norm()
        for d in ("own", "none")
    }
    assert size["own"] < 0.05 * size["none"]


def outcome(settings: dict, rank: int, processes: int) -> dict[str, torch.Tensor]:
    """One step's loss, gradients and memory bank, as this process has them; views are taken away."""
    learner = DCL(batch=64, **settings)
    learner.prepare(fashion.load().select(torch.arange(200)), fresh(), RunContext(task=None))
    synchronise(learner).double()
    learner.policies = [presets.identity((28, 28))] * 2
    learner.plan = Plan(64, 10, 1.0, 1.0)
    learner.process, learner.processes, learner.step_index = rank, processes, 5
    loss = learner.step(learner.draw(64, 5))
    loss.backward()
    learner.after_step()
    gradients = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), "memory bank": learner.memory_bank.values.sort(0).values, **gradients}


def child(rank: int, folder: Path, forms: list[dict]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for settings in forms:
        mine = outcome(settings, rank, 2)
        for values in mine.values():
            dist.all_reduce(values)
            values /= 2
        if rank == 0:
            torch.save(mine, folder / f"{settings['form']}.pt")
    dist.destroy_process_group()


def test_two_processes_with_a_memory_bank_equal_one(tmp_path):
    """Also where the batch is divided into shuffled groups; the form without one is tested with the catalogue."""
    forms = [{"form": "moco", "group": 16}, {"form": "nnclr"}]
    children = []
    for rank in range(2):
        process = os.fork()
        if not process:
            try:
                child(rank, tmp_path, forms)
            except BaseException:
                (tmp_path / f"{rank}.txt").write_text(traceback.format_exc())
            finally:
                os._exit(0)
        children.append(process)
    for process in children:
        os.waitpid(process, 0)
    said = "".join(path.read_text() for path in tmp_path.glob("*.txt"))
    assert not said, said
    for settings in forms:
        two, one = torch.load(tmp_path / f"{settings['form']}.pt", weights_only=True), outcome(settings, 0, 1)
        assert two.keys() == one.keys()
        for name in one:
            torch.testing.assert_close(two[name], one[name], atol=1e-9, rtol=1e-7, msg=name)
