"""Batch statistics over all processes, on any device (PyTorch's own SyncBatchNorm runs on GPUs alone)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rushlight.core.distributed import all_sum, world_size


class SynchronisedNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation whose mean and variance are those of the joined batch of all processes."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected at least 2 axes, got {input.ndim}")

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and world_size() > 1):
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        shape = [1, -1] + [1] * (input.ndim - 2)
        count = all_sum(values.new_tensor(values.numel() // values.shape[1]))
        mean = all_sum(values.sum(axes)) / count
        centred = values - mean.view(shape)
        variance = all_sum(centred.square().sum(axes)) / count
        self._track(mean.detach(), variance.detach(), count)
        normal = centred * (variance.view(shape) + self.eps).rsqrt()
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        momentum = self.momentum if self.momentum is not None else 0.1
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / (count - 1), momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


def synchronise(module: nn.Module) -> nn.Module:
    """Replace every batch norm in `module`, in place where it is a child, by one over all processes."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        new = SynchronisedNorm(
            module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
        )
        new.load_state_dict(module.state_dict())
        return new.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, synchronise(child))
    return module


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep batch norms from updating their running statistics; they still normalise by the batch."""
    norms = [child for child in module.modules() if isinstance(child, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
