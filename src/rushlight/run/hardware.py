"""What the machine has: the device, the precision that pays on it, and threads."""

from __future__ import annotations

import os
from functools import cache

import torch

from rushlight.core.errors import UserError
from rushlight.nets.encoders import small_transformer


def device(name: str = "auto") -> str:
    """Return the device of this name; `auto` takes CUDA, then Apple's GPU, then the CPU.

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
def precision(kind: str = "cpu", encoder: str = "") -> str:
    """Return the precision in which training is fastest on this kind of device: `bf16-mixed`, `16-mixed` or `32-true`.

    A CPU trains in bfloat16 where it has instructions for it; elsewhere emulation would make it slower. So it is with
    the small vision transformers: attention of 16 to 32 dimensions a head gains nothing from bfloat16 on a CPU, and
    their training takes 1.4 to 1.8 times as long in it (`benchmarks/precision.py`).

    Args:
        encoder: its name, where it is known.
    """
    if kind.startswith("cuda"):
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    if kind == "cpu" and small_transformer(encoder):
        return "32-true"
    if kind == "cpu" and torch.backends.mkldnn.is_available() and _cpu_has_bfloat16():
        return "bf16-mixed"
    return "32-true"


def _cpu_has_bfloat16() -> bool:
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
