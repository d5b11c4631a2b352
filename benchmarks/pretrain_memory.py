"""Memory of the losses of pretraining: the most that a loss and its backward pass hold, over the memory of its inputs.

Run with `OMP_NUM_THREADS=2 python benchmarks/pretrain_memory.py`. Two views of 4096 images in 8192 dimensions, float32:
inputs of 256 MiB. Each loss has a process of its own. What is measured is the peak of the process's resident memory
after the inputs are there, less what it was then; the inputs' gradients are part of it. So 2.00 means that, beside the
inputs, twice their size was held at the worst moment.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rushlight.losses.contrastive_blocks import (
    against_memory_bank_by_blocks as against_memory_bank,
)
from rushlight.losses.contrastive_blocks import (
    in_batch_by_blocks as in_batch,
)
from rushlight.losses.contrastive_blocks import (
    info_nce_by_blocks as info_nce,
)
from rushlight.losses.redundancy import barlow_twins_by_columns, vicreg_by_columns


def plain_info_nce(views: list[Tensor]) -> Tensor:
    """Return the loss as usually written: the matrix of all similarities, and autograd."""
    z = F.normalize(torch.cat(views), dim=1)
    logits = (z @ z.T / 0.5).fill_diagonal_(-torch.inf)
    n = len(views[0])
    return F.cross_entropy(logits, torch.arange(2 * n).roll(n))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "info_nce": lambda a, b: info_nce([a, b]),
    "info_nce, decoupled and weighted": lambda a, b: info_nce([a, b], denominator="none", sigma=0.5),
    "in_batch": lambda a, b: in_batch(a, b),
    "against_memory_bank": lambda a, b: against_memory_bank(a, b.detach(), b.detach()),
    "barlow_twins": barlow_twins_by_columns,
    "vicreg": vicreg_by_columns,
    "info_nce, usual": lambda a, b: plain_info_nce([a, b]),
}


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(name: str, batch: int, dim: int) -> None:
    """Print peak over inputs, and seconds."""
    generator = torch.Generator().manual_seed(0)
    small = [torch.randn(8, 8, requires_grad=True) for _ in range(2)]
    LOSSES[name](*small).backward()  # what is loaded at the first call is not the loss's
    a, b = (torch.randn(batch, dim, generator=generator).requires_grad_() for _ in range(2))
    before, peak, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], resident())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    LOSSES[name](a, b).backward()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    inputs = 2 * a.nbytes
    print(f"{name:34} {(peak[0] - before) / inputs:5.2f} times the inputs' {inputs / 2**20:.0f} MiB {seconds:7.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=8192)
    parser.add_argument("--loss", choices=LOSSES)
    options = parser.parse_args()
    if options.loss:
        measure(options.loss, options.batch, options.dim)
        return
    sizes = ["--batch", str(options.batch), "--dim", str(options.dim)]
    for name in LOSSES:
        subprocess.run([sys.executable, __file__, *sizes, "--loss", name], check=True)


if __name__ == "__main__":
    main()
