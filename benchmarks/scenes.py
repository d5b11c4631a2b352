"""How many scenes a second one core composes.

    python benchmarks/scenes.py [SIZE ...]

Prints, for each size (48 by default), scenes a second of wall time and of processor time: the best of five
runs of 4,096 scenes each, after one warm-up, with one thread. On a busy machine the two differ.
"""

from __future__ import annotations

import argparse
import platform
import time

import torch

from rushlight.data.synthetic import scenes

N, RUNS = 4096, 5


def speed(size: int) -> tuple[float, float]:
    """Return scenes per second: of wall time, of processor time."""
    scenes.compose(scenes.CHUNK, size=size)
    wall, processor = [], []
    for run in range(RUNS):
        start = time.perf_counter(), time.process_time()
        scenes.compose(N, size=size, seed=run)
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return N / min(wall), N / min(processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", default=[48], metavar="SIZE")
    torch.set_num_threads(1)
    chosen = parser.parse_args()
    print(f"torch {torch.__version__}, {platform.machine()}, one thread, best of {RUNS} runs of {N:,} scenes")
    for size in chosen.sizes:
        wall, processor = speed(size)
        print(f"{size}×{size}: {wall:,.0f} scenes/s (wall), {processor:,.0f} scenes/s (processor)")


if __name__ == "__main__":
    main()
