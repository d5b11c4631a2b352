"""Do the intervals cover what they say? Measured on simulated studies of known truth.

    python benchmarks/coverage.py [--studies 4000] [--quick]

A study draws, for each recipe, seed and image, whether the image was classified rightly, from a probit model with
the recipe's strength, image difficulty (shared, and of each recipe), seed effects of each recipe, and their
interaction (shared by paired recipes, and of each). Its expectation is known in closed form.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import stats

from rushlight.measure.stats import _components, _freedom, _margin, _margins


@dataclass(frozen=True)
class World:
    """Magnitudes of one simulated study. Standard deviations of seeds are in points of accuracy."""

    seeds: int
    images: int
    accuracy: float
    gap: float = 0.0
    seed_sd: float | tuple[float, ...] = 1.0
    difficulty: float = 2.0
    own_difficulty: float = 0.6
    shared_rest: float = 0.3
    recipes: int = 2

    @property
    def sd(self) -> float:
        return float(np.sqrt(self.difficulty**2 + self.own_difficulty**2 + self.shared_rest**2 + 1))


def truths(world: World) -> np.ndarray:
    """Return the recipes' true accuracies: the first leads by the gap."""
    return world.accuracy + world.gap * (np.arange(world.recipes) == 0)


def draw(world: World, studies: int, rng: np.random.Generator) -> np.ndarray:
    """Draw correctness of shape (studies, recipes, seeds, images)."""
    k, s, n = world.recipes, world.seeds, world.images
    points = np.broadcast_to(np.asarray(world.seed_sd, dtype=np.float32), (k,)) / 100
    slope = stats.norm.pdf(stats.norm.ppf(truths(world))) / world.sd
    seed_sd = (points / slope).astype(np.float32)
    total = np.sqrt(world.sd**2 + seed_sd**2)
    strength = (stats.norm.ppf(truths(world)) * total).astype(np.float32)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((studies, *shape), dtype=np.float32)

    z = normal(k, s, n)
    z += world.difficulty * normal(1, 1, n) + world.own_difficulty * normal(k, 1, n)
    z += world.shared_rest * normal(1, s, n) + seed_sd[:, None, None] * normal(k, s, 1)
    return (z + strength[:, None, None] > 0).astype(np.float32)


def batches(world: World, studies: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    size = max(1, int(1.5e7 / (world.recipes * world.seeds * world.images)))
    for start in range(0, studies, size):
        yield draw(world, min(size, studies - start), rng)


def coverage(world: World, studies: int, rng: np.random.Generator, level: float = 0.95) -> float:
    """Return the share of studies whose interval of the first recipe's lead over the second holds the truth."""
    held: list[np.ndarray] = []
    gap = truths(world)[0] - truths(world)[1]
    for x in batches(world, studies, rng):
        d = (x[:, 0] - x[:, 1])[:, None]
        margin = _margin(*_components(d), _freedom(d), level)[0][:, 0, 0]
        held.append(np.abs(d.mean((1, 2, 3)) - gap) <= margin)
    return float(np.mean(np.concatenate(held)))


def false_winners(world: World, studies: int, rng: np.random.Generator, level: float = 0.95) -> float:
    """Return the share of studies of equals in which some recipe is shown to be better than another."""
    k = world.recipes
    contrast = np.array([np.eye(k)[i] - np.eye(k)[j] for i in range(k) for j in range(i)])
    wrong = 0
    for x in batches(world, studies, rng):
        means = x.mean((-2, -1)) @ contrast.T
        for gap, seed, image, rest in zip(means, *_components(x)):
            margin = _margins(seed, image, rest, contrast, _freedom(x, k), level)[0]
            wrong += bool(np.any(np.abs(gap) > margin))
    return wrong / studies


def grid(quick: bool) -> Iterator[World]:
    for seeds in (3, 5, 10) if quick else (3, 4, 5, 6, 8, 10):
        for images in (300, 2000):
            for accuracy in (0.5, 0.8, 0.95):
                for sd in (0.0, 0.3, 1.0, 2.0):
                    for gap in (0.0, 0.02):
                        yield World(seeds, images, accuracy, gap, sd)


def measure_coverage(studies: int, quick: bool, rng: np.random.Generator) -> None:
    print("seeds images accuracy  gap seed_sd  coverage %")
    rows = []
    for w in grid(quick):
        rows.append(100 * coverage(w, studies, rng))
        print(
            f"{w.seeds:5d} {w.images:6d} {w.accuracy:8.2f} {w.gap:4.2f} {w.seed_sd:7.1f}  {rows[-1]:10.1f}", flush=True
        )
    print(f"{min(rows):.1f} to {max(rows):.1f} %, mean {np.mean(rows):.1f} %, n = {studies} studies a cell\n")


def measure_false_winners(studies: int, quick: bool, rng: np.random.Generator) -> None:
    print("seeds images equals seed_sd  false winners %")
    rows = []
    for seeds, images, k in product((3, 5, 10), (300,) if quick else (300, 2000), (3, 5, 8)):
        for sd in (0.0, 1.0, 2.0, (2.0,) + (0.7,) * (k - 1)):
            w = World(seeds, images, 0.8, 0.0, sd, recipes=k)
            rows.append(100 * false_winners(w, studies, rng))
            shown = f"{sd:.1f}" if isinstance(sd, float) else "2, .7…"
            print(f"{seeds:5d} {images:6d} {k:6d} {shown:>7s}  {rows[-1]:15.1f}", flush=True)
    print(f"{min(rows):.1f} to {max(rows):.1f} %, mean {np.mean(rows):.1f} %, n = {studies} studies a cell")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="a part of the grid")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    measure_coverage(args.studies, args.quick, rng)
    measure_false_winners(args.studies, args.quick, rng)


if __name__ == "__main__":
    main()
