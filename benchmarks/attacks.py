"""FGSM and PGD beside torchattacks: the same network, the same photos, the ratio of times and the largest difference.

Run with `OMP_NUM_THREADS=1 python benchmarks/attacks.py`. A ratio above 1 says that Rushlight is faster. Each
attack is timed in turns with its counterpart, in processor time, and the median over the turns counts, so that a
change of the machine's load meets both.

torchattacks adds 1e-10 to the L2 norm of the gradient of the *mean* loss, so its result depends on the batch's size;
it is given the same 1e-10 of the summed loss here.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torchattacks
from torch import Tensor, nn

from rushlight.data.columns import TEST, TRAIN
from rushlight.data.synthetic import fashion
from rushlight.methods.robust.fgsm_cw.perturb import fgsm, pgd
from rushlight.nets.encoders import create


def network(images: Tensor, labels: Tensor, *, passes: int = 4000) -> nn.Module:
    """Return conv16 with a linear head, trained briefly: gradients of a trained network are not noise."""
    encoder = create("conv16", seed=0, image_size=images.shape[-1])
    torch.manual_seed(0)
    net = nn.Sequential(encoder, nn.Linear(encoder.width, 10))
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3)
    for batch in range(0, passes, 100):
        rows = torch.arange(batch, batch + 100) % len(images)
        loss = nn.functional.cross_entropy(net(images[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


def timed(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def beside(name: str, ours: Callable[[], Tensor], theirs: Callable[[], Tensor], turns: int) -> None:
    """Print one line: both medians, their ratio, the largest difference of the results."""
    times: tuple[list[float], list[float]] = [], []
    ours(), theirs()
    for turn in range(turns):
        if turn % 2:
            (a, x), (b, y) = timed(ours), timed(theirs)
        else:
            (b, y), (a, x) = timed(theirs), timed(ours)
        times[0].append(a)
        times[1].append(b)
    mine, other = (statistics.median(t) for t in times)
    ratio = other / mine
    difference = (x - y).abs().max().item()
    print(f"{name:14} {mine * 1e3:8.1f} ms {other * 1e3:8.1f} ms   ratio {ratio:.3f}   difference {difference:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args()
    train, train_labels, test, test_labels = photos()
    net, eps = network(train, train_labels), 8 / 255
    x, y = test[: options.images], test_labels[: options.images]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(x)} photos, {options.turns} turns")
    beside("FGSM", lambda: fgsm(net, x, y, eps=eps), lambda: torchattacks.FGSM(net, eps=eps)(x, y), options.turns)
    for norm, kind, eps in (("linf", torchattacks.PGD, 8 / 255), ("l2", torchattacks.PGDL2, 1.0)):
        settings = {"eps": eps, "steps": options.steps}
        exact = {"eps_for_division": 1e-10 / len(x)} if norm == "l2" else {}
        oracle = kind(net, **settings, **exact, alpha=eps / 4, random_start=False)
        ours = partial(pgd, net, x, y, **settings, step=eps / 4, norm=norm)
        beside(f"PGD-{options.steps} {norm}", ours, partial(oracle, x, y), options.turns)


def photos() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the embedded photos as float images in [0, 1]: 4,000 to train on, 1,000 to attack."""
    data = fashion.load()
    images, labels, fold = data["image"], data["class"], data["fold"]
    train, test = (fold == TRAIN).nonzero()[:4000, 0], (fold == TEST).nonzero()[:1000, 0]
    return images[train].float() / 255, labels[train], images[test].float() / 255, labels[test]


if __name__ == "__main__":
    main()
