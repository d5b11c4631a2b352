"""Images a second of self-supervised pretraining: ours, lightly's and solo-learn's way from files to views, and the
bare step.

    python benchmarks/pretrain.py --methods "barlow-twins, simclr, dino" --seconds 40

The same encoder (`conv16`, 32×32), heads, loss, teacher and optimiser in each arm: a copy of our learner, so that what
differs is how it comes by its views. Every arm draws views of the same settings, those of our learner's policies:

- ours: `Training.advance` as a trial runs it.
- lightly: its data set on a folder of PNG files, its view transforms, a loader; in our precision, and in float32, as
  its examples train.
- solo-learn: the same with its data set and its transforms for CIFAR.
- bare: views that are ready.

One process on one core with one thread; a step of each arm in turn, processor seconds, medians (see `throughput.py`).
Needs lightly; solo-learn where it is installed (`pip install --no-deps solo-learn`).
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib.util
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from throughput import Measured, Step, forever, interleave
from torch import Tensor

from rushlight.augment.policy import Policy
from rushlight.core.catalogue import cards, load_method
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic.scenes import compose
from rushlight.run import hardware
from rushlight.train.joint_embedding import JointEmbedding
from rushlight.train.learner import Learner

GOAL = 3.5


def training_step(learner: JointEmbedding, views: Iterator[list[Tensor]], *, plain: bool = False) -> Step:
    """Return a training step of a copy of the learner on views made elsewhere; `plain`: float32, contiguous."""
    twin = copy.deepcopy(learner).train()
    twin.look = lambda policies, columns, generator: next(views)
    optimiser = twin.make_optimiser()
    half = learner.ctx.precision == "bf16-mixed" and not plain
    twin.to(memory_format=torch.contiguous_format if plain else torch.channels_last)
    batch: Any = {"views": None}

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = twin.step(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        twin.after_step()
        twin.step_index += 1

    return step


def lightly_transform(policy: Policy) -> Callable[[Any], Tensor]:
    """Return lightly's most general view transform, with our policy's settings."""
    from lightly.transforms.dino_transform import DINOViewTransform

    return DINOViewTransform(
        crop_size=policy.size[0],
        crop_scale=policy.crop_scale or (1.0, 1.0),
        hf_prob=policy.flip,
        cj_prob=policy.jitter,
        cj_strength=1.0,
        cj_bright=policy.brightness,
        cj_contrast=policy.contrast,
        cj_sat=policy.saturation,
        cj_hue=policy.hue,
        random_gray_scale=policy.grayscale,
        gaussian_blur=policy.blur,
        sigmas=policy.sigma,
        solarization_prob=policy.solarize,
    )


@functools.cache
def solo_module() -> Any:
    """Import solo-learn's `pretrain_dataloader` without its `__init__`, which needs packages that no longer install."""
    found = importlib.util.find_spec("solo")
    if found is None:
        return None
    root = Path(next(iter(found.submodule_search_locations or [])))
    for name in ("solo", "solo.utils"):
        package = sys.modules.setdefault(name, types.ModuleType(name))
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
    return importlib.import_module("solo.utils.pretrain_dataloader")


def solo_transform(solo: Any, policy: Policy) -> Callable[[Any], Tensor]:
    return solo.CifarTransform(
        policy.brightness,
        policy.contrast,
        policy.saturation,
        policy.hue,
        color_jitter_prob=policy.jitter,
        gray_scale_prob=policy.grayscale,
        horizontal_flip_prob=policy.flip,
        gaussian_prob=policy.blur,
        solarization_prob=policy.solarize,
        min_scale=(policy.crop_scale or (1.0, 1.0))[0],
        max_scale=(policy.crop_scale or (1.0, 1.0))[1],
        crop_size=policy.size[0],
    )


def files(data: Dataset, folder: Path) -> None:
    """Write the images as PNG files."""
    for row, image in enumerate(data["image"].permute(0, 2, 3, 1).numpy()):
        Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{row}.png")


def loaded(dataset: Any, batch: int) -> Iterator[list[Tensor]]:
    """Yield views of a data set of theirs, batch by batch, without end."""
    loader = torch.utils.data.DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True)
    while True:
        for views, *_ in loader:
            yield views


def arms(data: Dataset, folder: Path) -> Callable[[Learner], dict[str, Step]]:
    from lightly.data import LightlyDataset
    from lightly.transforms.multi_view_transform import MultiViewTransform

    def of(learner: Learner) -> dict[str, Step]:
        assert isinstance(learner, JointEmbedding)
        size, policies = learner.plan.batch, learner.policies
        ready = [torch.rand(size, 3, *policy.size) for policy in policies]
        theirs = LightlyDataset(str(folder), transform=MultiViewTransform([lightly_transform(p) for p in policies]))
        steps = {
            "bare": training_step(learner, forever(ready)),  # type: ignore[arg-type]
            "lightly": training_step(learner, loaded(theirs, size)),
            "lightly, float32": training_step(learner, loaded(theirs, size), plain=True),
        }
        solo = solo_module()
        if solo is not None:
            transform = solo.prepare_n_crop_transform([solo_transform(solo, p) for p in policies], [1] * len(policies))
            dataset = solo.CustomDatasetWithoutLabels(folder, transform)
            steps["solo-learn"] = training_step(learner, loaded(dataset, size))
            steps["solo-learn, float32"] = training_step(learner, loaded(dataset, size), plain=True)
        return steps

    return of


def measure(name: str, seconds: float) -> Measured:
    data = compose(4096, size=32, objects=(1, 1)).without("class", "tags", "mask", "boxes", "caption", "depth")
    with tempfile.TemporaryDirectory() as folder:
        files(data, Path(folder))
        return interleave(load_method(name), data, arms(data, Path(folder)), seconds)


def main() -> None:
    joint = [
        name for name in cards() if issubclass(load_method(name), JointEmbedding) and cards()[name].encoder == "any"
    ]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=", ".join(joint), help="separated by commas; by default all that fit")
    parser.add_argument("--seconds", type=float, default=60, help="for each method")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    warnings.simplefilter("ignore")
    for name in (part.strip() for part in chosen.methods.split(",")):
        print(f"{name}: conv16, one thread, {hardware.precision('cpu')}, torch {torch.__version__}", flush=True)
        found = measure(name, chosen.seconds)
        found.show({**{arm: GOAL for arm in found.seconds if arm not in ("ours", "bare")}, "bare": 0.85})


if __name__ == "__main__":
    main()
