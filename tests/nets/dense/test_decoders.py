from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rushlight.nets import encoders
from rushlight.nets.dense.decoders import FPN
from rushlight.nets.heads import describe, rebuild


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution as a sum over its taps, with zeros around."""
    side = weight.shape[-1]
    padded = F.pad(x, (side // 2,) * 4)
    out = torch.zeros(len(x), len(weight), *x.shape[2:], dtype=x.dtype)
    for i in range(side):
        for j in range(side):
            part = padded[:, :, i : i + x.shape[2], j : j + x.shape[3]]
            out = out + torch.einsum("nchw,oc->nohw", part, weight[:, :, i, j])
    return out if bias is None else out + bias[None, :, None, None]


def normalised(x: Tensor, groups: int) -> Tensor:
    parts = []
    for part in x.chunk(groups, 1):
        mean, var = part.mean((1, 2, 3), keepdim=True), part.var((1, 2, 3), keepdim=True, unbiased=False)
        parts.append((part - mean) / (var + 1e-5).sqrt())
    return torch.cat(parts, 1)


def line(n: int, m: int) -> Tensor:
    """m points on a line of n values, corners on corners: a matrix m×n of weights."""
    weights = torch.zeros(m, n, dtype=torch.float64)
    for k in range(m):
        at = k * (n - 1) / (m - 1)
        low = min(int(at), n - 2)
        weights[k, low], weights[k, low + 1] = 1 - (at - low), at - low
    return weights


def enlarged(x: Tensor, times: int) -> Tensor:
    h, w = x.shape[2:]
    return torch.einsum("ki,ncij,lj->nckl", line(h, times * h), x, line(w, times * w))


def plain(head: FPN, levels: list[Tensor]) -> Tensor:
    """SurgeNet's decoder, step by step: p5 … p2, blocks with 3, 2, 1 and 0 enlargements, joined, enlarged by 4."""
    c2, c3, c4, c5 = levels
    lateral = [(conv.weight, conv.bias) for conv in head.lateral]
    double = lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)  # noqa: E731
    p5 = convolved(c5, *lateral[3])
    p4 = convolved(c4, *lateral[2]) + double(p5)
    p3 = convolved(c3, *lateral[1]) + double(p4)
    p2 = convolved(c2, *lateral[0]) + double(p3)
    read = []
    for level, p in enumerate((p2, p3, p4, p5)):
        for conv, norm, _ in head.blocks[level]:
            p = normalised(convolved(p, conv.weight), norm.num_groups)
            p = (p * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
            p = enlarged(p, 2) if level else p
        assert len(head.blocks[level]) == (1, 1, 2, 3)[level]
        read.append(p)
    return enlarged(convolved(torch.cat(read[::-1], 1), head.logits.weight, head.logits.bias), 4)


def test_it_computes_what_the_decoder_computes_step_by_step() -> None:
    torch.manual_seed(0)
    head = FPN(channels=[3, 5, 6, 7], strides=[4, 8, 16, 32], outputs=4, pyramid=8, segment=6).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    levels = [torch.randn(2, c, *size, dtype=torch.float64, requires_grad=True) for c, size in zip([3, 5, 6, 7], sizes)]
    out, expected = head(levels), plain(head, levels)
    assert out.shape == (2, 4, 64, 96)
    torch.testing.assert_close(out, expected)
    for mine, theirs in zip(*(torch.autograd.grad(each.square().sum(), levels) for each in (out, expected))):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("name", ["conv16", "vit64-p8", "resnet18"])
def test_it_fits_every_kind_of_encoder_and_is_built_again(name: str) -> None:
    encoder = encoders.create(name, image_size=64, seed=0)
    head = FPN(channels=encoder.channels, strides=encoder.strides, outputs=3, pyramid=16, segment=8)
    levels = encoder.pyramid(torch.rand(2, 3, 64, 64))
    assert head(levels).shape == (2, 3, 64, 64)
    again = rebuild(describe(head))
    again.load_state_dict(head.state_dict())
    torch.testing.assert_close(again(levels), head(levels))
