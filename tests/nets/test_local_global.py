from __future__ import annotations

import pytest
import torch
from torch import nn

from rushlight.nets.encoders import create
from rushlight.nets.local_global import Branch, LocalGlobal, branches, widen


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(branch: Branch, x):
    """The branch for one image, cell by cell and head by head."""
    height, width = x.shape[2:]
    cells = [(i, j) for i in range(height) for j in range(width)]

    def at(conv, vector):
        return conv.weight[:, :, 0, 0] @ vector + (0 if conv.bias is None else conv.bias)

    def value(h, vector):
        part = slice(h * each, (h + 1) * each)
        return branch.values.weight[part, :, 0, 0] @ vector + branch.values.bias[part]

    local = {c: at(branch.local[0], x[0, :, *c]).relu() for c in cells}
    mean = sum(local.values()) / len(cells)
    hidden = {c: torch.cat([local[c], mean]) for c in cells}
    scores = {c: at(branch.gather, hidden[c]).exp() for c in cells}
    norm = sum(scores.values())
    each = x.shape[1] // branch.heads
    out = torch.zeros(branch.out.out_channels, height, width, dtype=x.dtype)
    for c in cells:
        gate = 1 / (1 + (-at(branch.give, hidden[c])).exp())
        mixed = x[0, :, *c].clone()
        for h in range(branch.heads):
            part = slice(h * each, (h + 1) * each)
            gathered = sum(value(h, x[0, :, *d]) * scores[d][h] / norm[h] for d in cells)
            mixed[part] = mixed[part] + gathered * gate[h]
        out[:, c[0], c[1]] = at(branch.out, mixed)
    return out * (branch.norm.weight / (1 + branch.norm.eps) ** 0.5)[:, None, None]


def test_the_branch_equals_plain_loops():
    branch = Branch(16, 6, heads=8).double().eval()
    nn.init.ones_(branch.norm.weight)
    x = draw(1, 16, 3, 4)
    torch.testing.assert_close(branch(x)[0], by_loops(branch, x))


def test_values_mix_the_channels_of_all_heads():
    """Head 0 gathers channel 1, which belongs to head 1: its mean of 3, half of which is given back (sigmoid of 0)."""
    branch = Branch(8, 8, heads=8).eval()
    for weight in branch.parameters():
        nn.init.zeros_(weight)
    branch.values.weight.data[0, 1] = 1
    nn.init.dirac_(branch.out.weight)
    branch.norm = nn.Identity()
    x = torch.zeros(1, 8, 1, 2)
    x[0, 1] = torch.tensor([2.0, 4.0])
    assert branch(x)[0, 0].flatten().tolist() == pytest.approx([1.5, 1.5])


def test_the_branch_sees_far_cells_and_the_convolution_does_not():
    convolution = nn.Conv2d(8, 8, 3, padding=1).double()
    layer = LocalGlobal(convolution, 8).double().eval()
    nn.init.ones_(layer.branch.norm.weight)
    x = draw(1, 8, 9, 9)
    far = x.clone()
    far[:, :, 8, 8] += 3
    assert torch.equal(convolution(x)[..., 0, 0], convolution(far)[..., 0, 0])
    assert not torch.allclose(layer(x)[..., 0, 0], layer(far)[..., 0, 0])


@pytest.mark.parametrize("training", [False, True])
def test_an_encoder_keeps_its_function_at_first_and_its_branches_learn(training):
    encoder = create("conv16", seed=0, image_size=16).train(training)
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = encoder(x)
    widened = widen(encoder).train(training)
    assert len(branches(widened)) == 5  # all but the convolution of the pixels
    after = widened(x)
    assert 0 < (after - before).norm() / before.norm() < 1e-2
    after.square().sum().backward()
    gradients = [p.grad for branch in branches(widened) for p in branch.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert sum(bool(g.any()) for g in gradients) >= 0.8 * len(gradients)


def test_an_encoder_is_widened_once_and_says_so():
    encoder = widen(create("conv16", seed=0, image_size=16))
    parameters = sum(p.numel() for p in encoder.parameters())
    assert encoder.name == "conv16+local-global"
    assert widen(encoder) is encoder
    assert encoder.name == "conv16+local-global"
    assert sum(p.numel() for p in encoder.parameters()) == parameters


def test_only_padded_plain_convolutions_are_widened():
    class Odd(nn.Module):
        name = "odd"

        def __init__(self):
            super().__init__()
            self.unpadded, self.wide = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 5, padding=2)
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.plain, self.strided = nn.Conv2d(12, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)

    odd = widen(Odd())
    assert {n for n, m in odd.named_children() if isinstance(m, LocalGlobal)} == {"plain", "strided"}
    assert odd.plain.branch.heads == 4
    assert odd.strided(torch.zeros(1, 8, 7, 7)).shape[2:] == (4, 4)
