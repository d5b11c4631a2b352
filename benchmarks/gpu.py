"""Images a second of whole training steps on a GPU beside the bare step: the same network on views that are ready.

    python benchmarks/gpu.py [--encoder resnet50] [--side 224] [--images 4096] [--seconds 10]

`ours` is `Training.advance` as a trial runs it: rows, views, forward, backward, optimiser, in the precision that
`hardware.precision` takes. `bare` is a copy of the learner that gets views made before. The arms take turns of
twenty steps; wall clock with the device in step, medians over turns. DESIGN §10: data and views cost at most a tenth.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

from rushlight.core.catalogue import cards, load_method
from rushlight.data.dataset import Dataset, Info
from rushlight.nets import encoders
from rushlight.run import hardware
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.stage import RunContext
from rushlight.train.joint_embedding import JointEmbedding
from rushlight.train.learner import Learner
from rushlight.train.loop import Training

TURN, CLASSES = 20, 10
GOAL = 0.9


def noise(count: int, side: int) -> Dataset:
    """Return images of noise with classes, half of them known."""
    image = torch.randint(256, (count, 3, side, side), dtype=torch.uint8)
    label = torch.arange(count) % CLASSES
    data = Dataset({"image": image, "class": label}, Info(class_names=tuple(map(str, range(CLASSES)))))
    return data.hide(torch.arange(count) % 2 == 1, ["class"])


def ready(learner: Learner) -> Learner:
    """Return a copy of the learner whose views were made before: the same images at each step."""
    twin = copy.deepcopy(learner).train()
    if isinstance(twin, JointEmbedding):
        views = twin.views(twin.draw(twin.plan.batch, 0))
        twin.look = lambda policies, columns, generator: views
        return twin
    for name in [name for name, value in vars(twin).items() if type(value).__name__ == "Policy"]:
        setattr(twin, name, Once(getattr(twin, name)))
    return twin


class Once:
    """A policy that makes its first views again and again."""

    def __init__(self, policy: Any):
        self._policy = policy
        self._made: dict[str, Any] = {}

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        return self._once("__call__", *arguments, **settings)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not callable(getattr(self._policy, name)):
            raise AttributeError(name)
        return functools.partial(self._once, name)

    def _once(self, name: str, *arguments: Any, **settings: Any) -> Any:
        if name not in self._made:
            self._made[name] = getattr(self._policy, name)(*arguments, **settings)
        return self._made[name]


def bare(learner: Learner, precision: str) -> Callable[[], None]:
    """Return the bare training step."""
    twin, half = ready(learner), {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    batch, optimiser = twin.draw(twin.plan.batch, 0), twin.make_optimiser()

    def step() -> None:
        with torch.autocast("cuda", half, enabled=half is not None):
            loss = twin.step(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        twin.after_step()

    return step


def measure(name: str, encoder: str, data: Dataset, seconds: float) -> dict[str, float]:
    """Return images per second of each arm, and the peak of the GPU's memory in GB."""
    precision = hardware.precision("cuda")
    task = "class" if cards()[name].task else None
    ctx = RunContext(task=task, device="cuda", precision=precision, budget=Budget(passes=1e9))
    torch.cuda.reset_peak_memory_stats()
    training = Training(load_method(name)(), data, Model(encoders.create(encoder, image_size=data.height, seed=0)), ctx)
    images = training.plan.batch * sum(training.learner.parts.values())
    arms: dict[str, Callable[[], object]] = {"ours": training.advance, "bare": bare(training.learner, precision)}
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    stop = time.monotonic() + seconds
    while time.monotonic() < stop or len(times["bare"]) < 3:
        for arm, step in arms.items():
            torch.cuda.synchronize()
            began = time.perf_counter()
            for _ in range(TURN):
                step()
            torch.cuda.synchronize()
            times[arm].append((time.perf_counter() - began) / TURN)
    found = {arm: images / statistics.median(of[1:]) for arm, of in times.items()}
    return found | {"GB": torch.cuda.max_memory_allocated() / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="supervised, fixmatch, iomatch, barlow-twins, simclr, dino")
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=10, help="for each method")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    data = noise(chosen.images, chosen.side)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {hardware.precision('cuda')}, {chosen.encoder}, "
          f"{chosen.side} px; goal: ours / bare at least {GOAL}")  # fmt: skip
    print(f"{'':>14} ours, images/s  bare, images/s  ours / bare  GB")
    for name in (part.strip() for part in chosen.methods.split(",")):
        found = measure(name, chosen.encoder, data, chosen.seconds)
        print(f"{name:>14} {found['ours']:14,.0f} {found['bare']:15,.0f} {found['ours'] / found['bare']:12.2f} "
              f"{found['GB']:5.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
