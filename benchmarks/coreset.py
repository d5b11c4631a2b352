"""How long SimCore's choice takes at scale: 1 % of a million embeddings.

    python benchmarks/coreset.py --images 1000000 --width 384

Random embeddings in loose groups; as many centroids as the paper has. Prints the seconds of the choice alone, and its
rounds. The goal is under five minutes on two cores.
"""

from __future__ import annotations

import argparse
import time

import torch

from rushlight.methods.curate.simcore.coreset import select


def embeddings(n: int, width: int, groups: int = 1000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(groups, width, generator=generator)
    values = torch.empty(n, width)
    for start in range(0, n, 100_000):
        rows = torch.randint(groups, (min(100_000, n - start),), generator=generator)
        values[start : start + len(rows)] = centres[rows] + torch.randn(len(rows), width, generator=generator)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.01)
    chosen = parser.parse_args()
    candidates = embeddings(chosen.images, chosen.width)
    centroids = candidates[torch.randperm(chosen.images, generator=torch.Generator().manual_seed(1))[: chosen.clusters]]
    began = time.monotonic()
    found = select(candidates, centroids, budget=round(chosen.share * chosen.images), factor=None)
    seconds = time.monotonic() - began
    print(f"{len(found.rows):,} of {chosen.images:,} × {chosen.width} in {seconds:.1f} s, {len(found.utilities)} rounds"
          f", {torch.get_num_threads()} threads (goal 300 s)")  # fmt: skip


if __name__ == "__main__":
    main()
