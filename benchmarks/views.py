"""What views cost: beside the bare model step, and beside transforms one image at a time.

    OMP_NUM_THREADS=1 python benchmarks/views.py

Two views of 256 images of 32×32 for Barlow Twins, and a weak and a strong view for FixMatch; one thread;
processor time, so that other work on the machine counts as little as possible. The other pipelines get what
they read, PIL images or tensors that are already decoded, and return a collated batch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from PIL import Image
from torch import nn

from rushlight.augment import presets
from rushlight.losses.redundancy import barlow_twins
from rushlight.nets import encoders

from lightly.transforms import BYOLTransform, BYOLView1Transform, BYOLView2Transform  # isort: skip
from torchvision.transforms import v2  # isort: skip

SIZE, BATCH = 32, 256
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}


def pictures() -> torch.Tensor:
    """Return crops of scikit-image's photos, as bytes."""
    from skimage import data

    image = torch.from_numpy(data.astronaut()).permute(2, 0, 1)
    corner = torch.randint(0, 480, (BATCH, 2), generator=torch.Generator().manual_seed(0)).tolist()
    return torch.stack([image[:, y : y + SIZE, x : x + SIZE] for y, x in corner]).contiguous()


class Step:
    """One Barlow Twins step of a six-layer network on a ready pair of views, in bfloat16, channels last."""

    def __init__(self) -> None:
        self.encoder = encoders.create("conv16", image_size=SIZE, seed=0).to(memory_format=torch.channels_last)
        width = self.encoder.width
        layers = [nn.Linear(width, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256)]
        self.projector = nn.Sequential(*layers)
        parameters = [*self.encoder.parameters(), *self.projector.parameters()]
        self.optimizer = torch.optim.Adam(parameters, 1e-3)

    def __call__(self, views: torch.Tensor) -> None:
        views = views.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            z = self.projector(self.encoder(views)).float()
        loss = barlow_twins(*z.chunk(2))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def milliseconds(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median processor time of each job; the jobs take turns, as the machine's speed may drift."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats + 2):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            times[name].append(time.process_time() - start)
    return {name: 1e3 * median(values[2:]) for name, values in times.items()}


def barlow_jobs(images: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """Return Barlow Twins' pair of views of a batch, by each pipeline."""
    generator = torch.Generator().manual_seed(0)
    first, second = presets.barlow_pair(SIZE)
    pil = [Image.fromarray(image) for image in images.permute(0, 2, 3, 1).numpy()]
    plain = [v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip()]
    colours = [v2.RandomApply([v2.ColorJitter(**JITTER)], 0.8), v2.RandomGrayscale(0.2)]
    to_float = v2.ToDtype(torch.float32, scale=True)
    blur = v2.GaussianBlur(3, (0.1, 0.5))
    one = v2.Compose([*plain, *colours, blur, to_float])
    two = v2.Compose([*plain, *colours, v2.RandomApply([blur], 0.1), v2.RandomSolarize(128, 0.2), to_float])
    lightly = BYOLTransform(
        BYOLView1Transform(input_size=SIZE, sigmas=(0.1, 0.5)),
        BYOLView2Transform(input_size=SIZE, sigmas=(0.1, 0.5)),
    )

    def from_lightly() -> torch.Tensor:
        a, b = zip(*(lightly(image) for image in pil))
        return torch.cat([torch.stack(a), torch.stack(b)])

    return {
        "rushlight": lambda: torch.cat([p(images, generator=generator) for p in (first, second)]),
        "torchvision v2, tensors": lambda: torch.stack([t(image) for t in (one, two) for image in images]),
        "lightly (BYOL), PIL": from_lightly,
    }


def fixmatch_jobs(images: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """Return FixMatch's weak and strong view of a batch, by each pipeline."""
    generator = torch.Generator().manual_seed(0)
    weak, strong = presets.weak(SIZE), presets.strong(SIZE)
    pil = [Image.fromarray(image) for image in images.permute(0, 2, 3, 1).numpy()]
    move = [v2.RandomHorizontalFlip(), v2.RandomCrop(SIZE, 4, padding_mode="reflect")]
    to_float = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    one = v2.Compose([*move, *to_float])
    two = v2.Compose([*move, v2.RandAugment(2, 10), *to_float, v2.RandomErasing(1.0)])
    return {
        "rushlight": lambda: torch.cat([p(images, generator=generator) for p in (weak, strong)]),
        "torchvision v2, PIL": lambda: torch.stack([t(image) for t in (one, two) for image in pil]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.manual_seed(0)  # torchvision and lightly draw from the global generator
    images, step = pictures(), Step()
    ready = torch.rand(2 * BATCH, 3, SIZE, SIZE)
    print(f"two views of {BATCH} images, {SIZE}×{SIZE}, one thread, median of n = {repeats} (others: 5)")
    for title, jobs in (
        ("barlow twins", barlow_jobs(images)),
        ("fixmatch, weak and strong", fixmatch_jobs(images)),
    ):
        ours = jobs.pop("rushlight")
        costs = milliseconds({"step": lambda: step(ready), "rushlight": ours}, repeats)
        costs |= milliseconds(jobs, 5)
        bare = costs.pop("step")
        print(f"\n{title}: the bare step {bare:.1f} ms")
        for name, cost in costs.items():
            ratio = cost / costs["rushlight"]
            share = 100 * cost / bare
            print(f"  {name:26s}{cost:8.1f} ms {ratio:6.1f} × rushlight {share:6.1f} % of the step")


if __name__ == "__main__":
    main()
