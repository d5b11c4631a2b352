"""Contrast beside lightly's losses and plain loops, in value and gradient, in both forms; identities."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import DCLLoss, DCLWLoss, NTXentLoss

from rushlight.losses import contrastive, contrastive_blocks
from rushlight.losses.contrastive import (
    against_memory_bank,
    contrast,
    coupling,
    global_mean,
    hardness,
    in_batch,
    info_nce,
    nearest,
)

T = 0.3


@pytest.fixture(params=["plain", "by blocks"], autouse=True)
def form(request, monkeypatch) -> None:
    """Every test sees both forms by the plain one's names."""
    for name in ("info_nce", "against_memory_bank", "in_batch"):
        blocks = getattr(contrastive_blocks, f"{name}_by_blocks")
        chosen = getattr(contrastive, name) if request.param == "plain" else blocks
        monkeypatch.setitem(globals(), name, chosen)


def embeddings(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


def two(rows: int = 7, dim: int = 5) -> list[torch.Tensor]:
    one = embeddings(rows, dim)
    other = (one.detach() + 0.8 * embeddings(rows, dim, seed=1).detach()).requires_grad_()
    return [one, other]


def same(got: torch.Tensor, want: torch.Tensor, *inputs: torch.Tensor) -> None:
    """Equal values, and equal gradients of all inputs."""
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    found, expected = torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


def by_loops(views, *, per_view=False, denominator="own", weights=None):
    """The module's equation as it stands, anchor by anchor and pair by pair."""
    z = [(i, v, row / row.norm()) for v, view in enumerate(views) for i, row in enumerate(view)]
    losses = []
    for a, (i, v, anchor) in enumerate(z):
        s = [anchor @ key / T for _, _, key in z]
        positives = [k for k, (j, _, _) in enumerate(z) if j == i and k != a]
        negatives = [k for k, (j, w, _) in enumerate(z) if j != i and (not per_view or v == w)]
        total = 0
        for p in positives:
            besides = {"own": [p], "none": [], "all": positives}[denominator]
            pull = s[p] if weights is None else weights[i] * s[p]
            total = total - pull + sum(s[k].exp() for k in [*besides, *negatives]).log()
        losses.append(total / len(positives))
    return sum(losses) / len(losses)


# Beside lightly -------------------------------------------------------------------------------------------------------


def test_two_views_are_lightlys_nt_xent():
    views = two()
    same(info_nce(views, temperature=T), NTXentLoss(temperature=T)(*views), *views)


def test_decoupled_it_is_lightlys_dcl():
    views = two()
    same(info_nce(views, temperature=T, denominator="none"), DCLLoss(temperature=T)(*views), *views)


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
def test_weighted_it_is_lightlys_dclw():
    views = two()
    found = info_nce(views, temperature=T, denominator="none", sigma=0.4)
    same(found, DCLWLoss(temperature=T, sigma=0.4)(*views), *views)


def test_a_memory_bank_is_lightlys_memory_bank():
    queries, keys = two()
    bank = F.normalize(embeddings(12, 5, seed=3).detach(), dim=1)
    theirs = NTXentLoss(temperature=T, memory_bank_size=(12, 5))
    theirs.memory_bank.bank = bank.clone()
    same(against_memory_bank(queries, keys, bank, temperature=T), theirs(queries, keys), queries, keys)


# Beside plain loops ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("denominator", ["own", "none", "all"])
@pytest.mark.parametrize("per_view", [False, True])
def test_several_views_are_the_equation(denominator, per_view):
    views = [embeddings(4, 3, seed=seed) for seed in range(3)]
    found = info_nce(views, temperature=T, per_view=per_view, denominator=denominator)
    same(found, by_loops(views, per_view=per_view, denominator=denominator), *views)


def test_masked_by_labels_it_is_supervised_contrast():
    """Khosla et al., 2020, eq. 2: all but the anchor itself stand in the denominator."""
    views, labels = two(6), torch.tensor([4, 9, 4, 4, 9, 1]).repeat(2)
    z = torch.cat([view / view.norm(dim=1, keepdim=True) for view in views])
    losses = []
    for i in range(12):
        all_but_itself = sum((z[i] @ z[a] / T).exp() for a in range(12) if a != i)
        mates = [p for p in range(12) if p != i and labels[p] == labels[i]]
        losses.append(sum(-((z[i] @ z[p] / T).exp() / all_but_itself).log() for p in mates) / len(mates))
    same_label = labels[:, None] == labels
    positives = same_label & ~torch.eye(12, dtype=torch.bool)
    unit = torch.cat([F.normalize(view, dim=1) for view in views])
    found = contrast(unit @ unit.T / T, positives, ~same_label, denominator="all")
    same(found.mean(), sum(losses) / 12, *views)


@pytest.mark.parametrize("denominator", ["own", "none", "all"])
def test_the_fast_cases_are_the_masked_one(denominator):
    views = [embeddings(5, 4, seed=seed) for seed in range(3)]
    z = torch.cat([F.normalize(view, dim=1) for view in views])
    image = torch.arange(5).repeat(3)
    same_image = image[:, None] == image
    positives = same_image & ~torch.eye(15, dtype=torch.bool)
    masked = contrast(z @ z.T / T, positives, ~same_image, denominator=denominator)
    same(info_nce(views, temperature=T, denominator=denominator), masked.mean(), *views)


@pytest.mark.parametrize("decoupled", [False, True])
def test_keys_of_the_batch_are_the_equation_and_may_carry_gradients(decoupled):
    queries, keys = two()
    q, k = (x / x.norm(dim=1, keepdim=True) for x in (queries, keys))
    losses = []
    for i in range(7):
        others = sum((q[i] @ k[j] / T).exp() for j in range(7) if j != i)
        losses.append(-q[i] @ k[i] / T + (others + (0 if decoupled else (q[i] @ k[i] / T).exp())).log())
    found = in_batch(queries, keys, temperature=T, denominator="none" if decoupled else "own")
    same(found, sum(losses) / 7, queries, keys)


def test_a_decoupled_memory_bank_leaves_the_key_out_of_the_denominator():
    queries, keys = two()
    bank = embeddings(9, 5, seed=3)
    q, k, past = (x / x.norm(dim=1, keepdim=True) for x in (queries, keys, bank))
    losses = [-q[i] @ k[i] / T + sum((q[i] @ n / T).exp() for n in past).log() for i in range(7)]
    found = against_memory_bank(queries, keys, bank, temperature=T, denominator="none")
    same(found, sum(losses) / 7, queries, keys, bank)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("form", ["views", "bank", "batch"])
def test_weights_multiply_the_positive_term_alone(form, detach):
    one, other = two()
    a, b = (x / x.norm(dim=1, keepdim=True) for x in (one, other))
    s = torch.stack([a[i] @ b[i] for i in range(7)])
    raised = [(x / 0.5).exp() for x in (s.detach() if detach else s)]
    w = [2 - x / (sum(raised) / 7) for x in raised]
    if form == "views":
        loops = by_loops([one, other], denominator="none", weights=w)
    bank = embeddings(9, 5, seed=3).detach()
    ctx = {"temperature": T, "denominator": "none"}
    loss = {
        "views": lambda **more: info_nce([one, other], **ctx, **more),
        "bank": lambda **more: against_memory_bank(one, other, bank, **ctx, **more),
        "batch": lambda **more: in_batch(one, other, **ctx, **more),
    }[form]
    want = loops if form == "views" else loss() + sum((1 - w[i]) * s[i] / T for i in range(7)) / 7
    same(loss(sigma=0.5, detach_weight=detach), want, one, other)


def test_contrasts_own_weight_is_of_each_pairs_positive_term():
    s = embeddings(3, 4)
    positives = torch.eye(3, 4, dtype=torch.bool)
    weight = torch.rand(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    losses = [-weight[i, i] * s[i, i] + sum(s[i, j].exp() for j in range(4)).log() for i in range(3)]
    same(contrast(s, positives, ~positives, weight=weight).sum(), sum(losses), s)


def test_an_anchor_without_a_positive_costs_nothing():
    s = embeddings(2, 3)
    positives = torch.tensor([[True, False, False], [False] * 3])
    loss = contrast(s, positives, ~positives)
    assert loss[1] == 0
    assert torch.autograd.grad(loss.sum(), s)[0][1].abs().sum() == 0


# Identities -----------------------------------------------------------------------------------------------------------


def terms(positive: torch.Tensor, negatives: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(InfoNCE, DCL) of one anchor."""
    s = torch.cat([positive[None], negatives])[None]
    is_positive = torch.arange(len(s[0]))[None] == 0
    return tuple(contrast(s, is_positive, ~is_positive, denominator=d)[0] for d in ("own", "none"))


def test_info_nce_less_dcl_is_softplus():
    s, n = embeddings(), embeddings(6, seed=1)
    info, decoupled = terms(s, n)
    same(info - decoupled, F.softplus(s - n.exp().sum().log()), s, n)


def test_info_nces_gradient_is_q_times_dcls():
    """With the rest held still and no normalisation between."""
    anchor, fixed = embeddings(5), embeddings(8, 5, seed=1).detach()
    info, decoupled = terms(*((fixed @ anchor)[0], (fixed @ anchor)[1:]))
    q = 1 - (fixed[0] @ anchor).exp() / (fixed @ anchor).exp().sum()
    gradients = [torch.autograd.grad(loss, anchor, retain_graph=True)[0] for loss in (info, decoupled)]
    torch.testing.assert_close(gradients[0], q * gradients[1], rtol=1e-12, atol=1e-12)
    for loss, is_decoupled in ((info, False), (decoupled, True)):
        torch.testing.assert_close(coupling(loss.detach()[None], decoupled=is_decoupled)[0], q, rtol=1e-12, atol=0)


def test_with_many_negatives_both_gradients_agree():
    s, n = embeddings(), embeddings(6, seed=1)
    info, decoupled = terms(s, n + 40)
    one, other = (torch.autograd.grad(loss, (s, n), retain_graph=True) for loss in (info, decoupled))
    for mine, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_the_mean_weight_is_one_and_hard_positives_weigh_more():
    cosines = torch.linspace(-0.5, 1, 20, dtype=torch.float64)
    weights = hardness(cosines)
    assert weights.mean().item() == pytest.approx(1, abs=1e-14)
    assert bool((weights.diff() < 0).all())
    assert not hardness(cosines.requires_grad_()).requires_grad
    assert hardness(cosines, detach=False).requires_grad


def test_dcl_may_be_negative_and_low_temperatures_do_not_overflow():
    views = [torch.eye(4, dtype=torch.float64).requires_grad_() for _ in range(2)]
    # s is 1/τ, and 2(N − 1) negatives lie at 0
    assert info_nce(views, temperature=0.1, denominator="none").item() == pytest.approx(math.log(6) - 10)
    assert info_nce(views, temperature=1e-3, denominator="none").item() == pytest.approx(math.log(6) - 1000)
    loss = info_nce([view.float() for view in two()], temperature=1e-4)
    assert loss.isfinite()


def test_it_is_blind_to_lengths():
    one, other = two()
    torch.testing.assert_close(info_nce([3 * one, other / 7], temperature=T), info_nce([one, other], temperature=T))


def test_a_single_image_has_nothing_to_be_told_from():
    views = two(1)
    loss = info_nce(views, temperature=T)
    assert loss.item() == 0
    assert all(g.abs().sum() == 0 for g in torch.autograd.grad(loss, views))


def test_nearest_is_by_cosine():
    support = torch.tensor([[10.0, 10.0], [0.1, 0.0], [0.0, -1.0]])
    assert nearest(torch.tensor([[5.0, 0.2], [1.0, 2.0], [0.1, -9.0]]), support).tolist() == [1, 0, 2]


# How it is computed ---------------------------------------------------------------------------------------------------


def test_gradients_are_those_of_differences():
    views = two(4, 3)
    assert torch.autograd.gradcheck(lambda *x: 3 * info_nce(x, temperature=T), views)
    assert torch.autograd.gradcheck(lambda q, k: in_batch(q, k, temperature=T, sigma=0.5, detach_weight=False), views)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_full(dtype):
    half = [view.detach().to(dtype).requires_grad_() for view in two()]
    full = [view.detach().float().requires_grad_() for view in half]
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce(half, temperature=T)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, info_nce(full, temperature=T))
    loss.backward()
    info_nce(full, temperature=T).backward()
    for mine, theirs in zip(half, full, strict=True):
        assert mine.grad.dtype == dtype
        torch.testing.assert_close(mine.grad, theirs.grad.to(dtype), rtol=0.02, atol=1e-3)


def test_only_what_is_trained_gets_a_gradient():
    queries, keys = two()
    loss = against_memory_bank(queries, keys.detach(), embeddings(9, 5, seed=3).detach(), temperature=T)
    loss.backward()
    assert queries.grad is not None
    assert keys.grad is None
    with torch.no_grad():
        assert not info_nce([queries, keys]).requires_grad


def test_each_anchors_loss_can_be_watched():
    views, seen = two(), []
    loss = info_nce(views, temperature=T, watch=seen.append)
    assert seen[0].shape == (14,)
    assert not seen[0].requires_grad
    torch.testing.assert_close(seen[0].mean(), loss.detach())
    torch.testing.assert_close(global_mean(seen[0]), loss.detach())
