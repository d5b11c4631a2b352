"""How fast images are packed, beside the bare decoder and resize on the same files in the same run.

    python benchmarks/pack.py --images 20000

Makes 500×375 JPEGs from the photos bundled with scikit-image, then measures in turns, several rounds each:

- the bare loop: decode with Pillow, resize with antialiasing, to uint8; a process a core, results thrown
away;
- our pack: the same size, written to a memory-mapped cache with names, sizes, checks and fsync.

Prints images a second of both and their ratio (median of the rounds), for each size. The target is a ratio of
0.8.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from rushlight.data.pack.decode import workers_by_default
from rushlight.data.sources.read import load

PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg", "motorcycle_left.png")


def make(folder: Path, count: int, height: int = 375, width: int = 500) -> None:
    """Write crops of the bundled photos, at random places, scales and mirrorings."""
    rng = np.random.default_rng(0)
    photos = [Image.open(Path(skimage.data.__file__).parent / name).convert("RGB") for name in PHOTOS]
    for number in range(count):
        photo = photos[number % len(photos)]
        scale = rng.uniform(0.5, 1) * min(photo.width / width, photo.height / height)
        wide, tall = width * scale, height * scale
        x, y = rng.uniform(0, photo.width - wide), rng.uniform(0, photo.height - tall)
        crop = photo.resize((width, height), Image.Resampling.BICUBIC, box=(x, y, x + wide, y + tall))
        (folder / "ab"[number % 2]).mkdir(exist_ok=True)
        crop.save(folder / "ab"[number % 2] / f"{number:06}.jpg", quality=90)


def bare(job: tuple[Path, int]) -> int:
    path, size = job
    with Image.open(path) as image:
        return int(np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))[0, 0, 0])


def seconds(function, *arguments, **settings) -> float:
    started = time.perf_counter()
    function(*arguments, **settings)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=workers_by_default())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        root = Path(name)
        (root / "in").mkdir()
        make(root / "in", options.images)
        paths = sorted((root / "in").rglob("*.jpg"))
        pool.map(bare, [(path, 64) for path in paths])  # the processes are up, the files in the page cache
        for size in options.sizes:
            compare(root, paths, size, options, pool)


def compare(root: Path, paths: list[Path], size: int, options: argparse.Namespace, pool) -> None:
    jobs, plain, packed = [(path, size) for path in paths], [], []
    for number in range(options.rounds):
        plain.append(seconds(pool.map, bare, jobs, chunksize=64))
        cache = root / f"cache-{size}-{number}"
        packed.append(seconds(load, root / "in", size=size, cache=cache, workers=options.workers))
        again = seconds(load, root / "in", size=size, cache=cache)
        shutil.rmtree(cache)
    ratios = [a / b for a, b in zip(plain, packed)]
    n, a, b = len(paths), statistics.median(plain), statistics.median(packed)
    print(
        f"size {size}, {n:,} images, {options.workers} workers, {options.rounds} rounds: "
        f"bare {n / a:,.0f} images/s, pack {n / b:,.0f} images/s, ratio {statistics.median(ratios):.2f} "
        f"(each: {', '.join(f'{ratio:.2f}' for ratio in ratios)}); from the cache {again:.2f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
