"""How much memory a worker of a comparison holds, by the number of images: it must not grow with them.

A data set of n images of 96×96 with classes is packed; a fresh process opens it by reference, as a worker does, and
runs one trial (training, learning curve, final scores). Measured is `RssAnon` of /proc/self/status, the pages that no
file backs, fifty times a second: what the imported libraries hold before the trial, and the most above that during it.

    python benchmarks/memory.py [--images 2000 20000] [--budget 3000] [--most 300]

It ends with 1 where a trial holds more than `--most` MB above the libraries, or grows by more than 30 MB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SIDE, CLASSES = 96, 10


def pack(folder: Path, count: int) -> None:
    """Pack images of noise on a grey of their class, a quarter of them in the test fold."""
    import torch

    from rushlight.data.dataset import Dataset, Info

    label = torch.arange(count) % CLASSES
    image = torch.randint(40, (count, 3, SIDE, SIDE), dtype=torch.uint8)
    image += (label * 20).byte()[:, None, None, None]
    fold = (torch.arange(count) % 4 == 0).to(torch.int8)
    info = Info(class_names=tuple(map(str, range(CLASSES))))
    Dataset({"image": image, "class": label, "fold": fold}, info).save(folder / "pack")


def anonymous() -> float:
    """Return the MB of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 1024


class Peak(threading.Thread):
    """The largest `anonymous` since it was started."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.running = 0.0, True

    def run(self) -> None:
        while self.running:
            self.most = max(self.most, anonymous())
            time.sleep(0.02)


def worker(folder: Path, budget: str) -> dict[str, float]:
    """Run one trial as a comparison's worker does."""
    import torch

    from rushlight.core.catalogue import cards
    from rushlight.data.dataset import Dataset
    from rushlight.run import trial
    from rushlight.run.store import Store

    torch.set_num_threads(1)
    cards()
    Dataset.open(folder / "pack").save(folder / "data", reference=True)
    data = Dataset.open(folder / "data")
    libraries, peak = anonymous(), Peak()
    peak.start()
    began = time.monotonic()
    spec = trial.Trial("supervised(batch=16)", 0, budget, data.content_hash, "class", keep=20)
    result = trial.run(spec, data, Store(folder / "out"))
    peak.running = False
    return {
        "images": len(data),
        "libraries": libraries,
        "above": peak.most - libraries,
        "seconds": time.monotonic() - began,
        "value": result.value,
        "written": sum(p.stat().st_size for p in (folder / "data").rglob("*") if p.is_file()) / 1e6,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--budget", default="3000")
    parser.add_argument("--most", type=float, default=300)
    parser.add_argument("--worker", type=Path)
    parser.add_argument("--pack", type=int)
    asked = parser.parse_args()
    if asked.pack:
        pack(asked.worker, asked.pack)
        return 0
    if asked.worker:
        print(json.dumps(worker(asked.worker, asked.budget)))
        return 0
    found = []
    print("  images  MB of pixels  libraries, MB  trial above, MB  written, MB      s")
    for count in asked.images:
        with tempfile.TemporaryDirectory() as folder:
            own = [sys.executable, __file__, "--worker", folder, "--budget", asked.budget]
            subprocess.run([*own, "--pack", str(count)], check=True)
            done = subprocess.run(own, check=True, stdout=subprocess.PIPE, text=True)  # its errors are shown
            one = json.loads(done.stdout.splitlines()[-1])
        found.append(one["above"])
        pixels = count * 3 * SIDE**2 / 1e6
        print(f"{count:8,} {pixels:13,.0f} {one['libraries']:14,.0f} {one['above']:16,.0f} {one['written']:12.1f} "
              f"{one['seconds']:6.0f}")  # fmt: skip
    return int(max(found) > asked.most or max(found) - min(found) > 30)


if __name__ == "__main__":
    sys.exit(main())
