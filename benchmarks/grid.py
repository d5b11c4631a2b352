"""A grid of trials side by side (a process a core, one thread each) against the same trials in a row (all threads).

Prints seconds of both, their ratio, and what share of the time lies outside of the trials.

    python benchmarks/grid.py --budget 8k
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rushlight.data.synthetic import fashion
from rushlight.jobs.compare.result import Board
from rushlight.jobs.compare.run import compare
from rushlight.run import hardware

RECIPES = ["supervised", "fixmatch", "barlow-twins > supervised"]


def run(workers: int, budget: str, seeds: int, folder: Path) -> Board:
    return compare(fashion.load(), RECIPES, budget=budget, seeds=seeds, out=folder / str(workers), workers=workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="8k", help="image passes of each trial")
    parser.add_argument("--seeds", type=int, default=4, help="seeds; times three recipes")
    arguments = parser.parse_args()
    cores = hardware.cores()
    with tempfile.TemporaryDirectory() as folder:
        boards = {w: run(w, arguments.budget, arguments.seeds, Path(folder)) for w in (cores, 1)}
    for workers, board in boards.items():
        trials = sum(result.spent.seconds for result in board.results) / workers
        print(
            f"{len(board.results)} trials, {workers} at a time: {board.seconds:.1f} s, "
            f"{1 - trials / board.seconds:.0%} of it outside of the trainings"
        )
    print(f"ratio: {boards[1].seconds / boards[cores].seconds:.2f}")


if __name__ == "__main__":
    main()
