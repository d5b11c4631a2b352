"""Processor seconds of training in float32 over those in bfloat16, on a CPU, by encoder; and what Rushlight chooses.

Run with `OMP_NUM_THREADS=1 python benchmarks/precision.py`. Whole pretraining runs of the same few batches, in turns;
the quickest of each counts.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings

import torch

from rushlight.data.synthetic import fashion
from rushlight.nets import encoders
from rushlight.run import hardware
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext

CASES = (
    ("simclr", "conv16"),
    ("simclr", "resnet18"),
    ("mae", "vit64"),
    ("mae", "vit96"),
    ("simmim", "vit96"),
    ("moco-v3", "vit64"),
    ("moco-v3", "vit_tiny_patch16_224"),
)


def seconds(recipe: str, encoder: str, precision: str, passes: float) -> float:
    data = fashion.load().select(torch.arange(1000)).without("class")
    data = data.with_columns(image=torch.nn.functional.pad(data["image"], (2, 2, 2, 2)))
    start = Model(encoders.create(encoder, image_size=32, seed=0))
    began = time.process_time()
    Recipe.parse(recipe).run(data, start, RunContext(task=None, precision=precision, budget=Budget(passes=passes)))
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=float, default=4000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for recipe, encoder in CASES:
        found: dict[str, list[float]] = {"bf16-mixed": [], "32-true": []}
        for _ in range(options.turns):
            for precision, times in found.items():
                times.append(seconds(recipe, encoder, precision, options.passes))
        half, full = (min(times) for times in found.values())
        chosen = hardware.precision("cpu", encoder)
        print(f"{recipe:8} {encoder:22} float32 {full:6.2f} s, bfloat16 {half:6.2f} s: {full / half:.2f}; {chosen}")


if __name__ == "__main__":
    main()
