"""Pooling of a bag of instances."""

from __future__ import annotations

import torch

from rushlight.methods.pretrain.histopath_ssl.mil import GatedAttention, mean_pooled


def test_gated_attention_is_the_papers_and_leaves_padding_out() -> None:
    torch.manual_seed(0)
    network = GatedAttention(width=4, outputs=3, hidden=5)
    bag, there = torch.randn(1, 6, 4), torch.tensor([[True, True, True, True, False, False]])
    scores = torch.stack(
        [network.score(network.value(h).tanh() * network.gate(h).sigmoid())[0] for h in bag[0, :4]]
    ).softmax(0)
    torch.testing.assert_close(network.weights(bag, there)[0, :4], scores)
    assert not network.weights(bag, there)[0, 4:].any()
    expected = network.classify(sum(a * h for a, h in zip(scores, bag[0, :4], strict=True)))
    torch.testing.assert_close(network(bag, there)[0], expected)
    torch.testing.assert_close(mean_pooled(bag, there)[0], bag[0, :4].mean(0))
