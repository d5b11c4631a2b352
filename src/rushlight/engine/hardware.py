"""What the machine has: the device, the precision that pays on it, and threads."""

from __future__ import annotations

import os
from functools import cache

import torch

from rushlight.errors import UserError


def device(name: str = "auto") -> str:
    """`auto` takes CUDA, then Apple's GPU, then the CPU.

    Raises:
        UserError: the named device is not on this machine.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available.get(name.partition(":")[0], False):
        have = ", ".join(kind for kind, there in available.items() if there)
        raise UserError(f"--device {name} is not on this machine; it has: {have}")
    return name


@cache
def precision(kind: str = "cpu") -> str:
    """The precision in which training runs on this kind of device: `bf16-mixed`, `16-mixed` or `32-true`.

    A CPU trains in bfloat16 where it has instructions for it; elsewhere emulation would make it slower.
    """
    if kind.startswith("cuda"):
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    if kind == "cpu" and torch.backends.mkldnn.is_available() and _cpu_has_bfloat16():
        return "bf16-mixed"
    return "32-true"


def _cpu_has_bfloat16() -> bool:
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
