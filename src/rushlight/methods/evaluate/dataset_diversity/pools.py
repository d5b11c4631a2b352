"""Pools of unlabelled images by domain: the target's own, all domains', and as few of these; no test image in any."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from rushlight.core.errors import UserError, nearest
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.data.edit import duplicates
from rushlight.data.edit.split import hold_out


def target_of(data: Dataset, task: str, name: str | None) -> int:
    """Return a domain's number by its name; without one, the domain with most known labels.

    Raises:
        UserError: there are no domains, or none of this name.
    """
    if not data.known("domain").any():
        raise UserError("the study compares domains: give the images a column 'domain' (in the label file)")
    if name is None:
        return int(data["domain"][data.known(task) & data.known("domain")].bincount(minlength=1).argmax())
    names = [name_of(data, number) for number in range(int(data["domain"].max()) + 1)]
    if name not in names:
        raise UserError(f"there is no domain '{name}'.{nearest(name, names)}")
    return names.index(name)


def name_of(data: Dataset, domain: int) -> str:
    names = data.info.domain_names
    return names[domain] if domain < len(names) else str(domain)


def divided(data: Dataset, target: int, task: str, seed: int) -> Dataset:
    """Return the data with a test fold in the target's labelled images, and without twins of test images outside it.

    The data's own fold stays where it has labelled test images of the target; else a quarter is held out. A twin is
    a training image that equals a test image, or looks like one.

    Raises:
        UserError: fewer than four labelled images.
    """
    own = data.known(task) & (data["domain"] == target)
    if int(own.sum()) < 4:
        few = f"{int(own.sum())} images with a known '{task}'"
        raise UserError(f"the domain '{name_of(data, target)}' has {few}: label some more")
    if "fold" not in data or not bool((own & (data["fold"] == TEST)).any()):
        held = hold_out(data.select(own).without("fold"), 0.25, seed, task)["fold"]
        data = data.with_columns(fold=torch.zeros(len(data), dtype=torch.int8).masked_scatter(own, held))
    return _without_twins(data)


def _without_twins(data: Dataset) -> Dataset:
    test = data["fold"] == TEST
    pairs = [(a, b) for group in duplicates.exact(data) for a in group for b in group if test[a]]
    pairs += [(int(a), int(b)) for a, b in duplicates.near(data)]
    twins = [row for pair in pairs for row in pair if test[list(pair)].any() and not test[row]]
    gone = torch.zeros(len(data), dtype=torch.bool)
    gone[twins] = True
    return data.select(~gone) if twins else data


def pools(data: Dataset, target: int, seed: int) -> dict[str, Dataset]:
    """Return training images without labels: `target` ⊂ `all`; `few of all`, `few of others` have the target's size."""
    training, own = data["fold"] != TEST, data["domain"] == target
    generator = torch.Generator().manual_seed(seed)
    everything, targets = training.nonzero().flatten(), (training & own).nonzero().flatten()
    rows = {
        "target": targets,
        "all": everything,
        "few of all": drawn(everything, len(targets), generator),
        "few of others": drawn((training & ~own).nonzero().flatten(), len(targets), generator),
    }
    return {name: data.select(each).hide() for name, each in rows.items()}


def labelled(data: Dataset, target: int, task: str, many: int | None, seed: int) -> Dataset:
    """Return the target's labelled training images, or `many` of them, drawn by the seed."""
    rows = ((data["domain"] == target) & (data["fold"] != TEST) & data.known(task)).nonzero().flatten()
    return data.select(drawn(rows, many or len(rows), torch.Generator().manual_seed(seed)))


def drawn(rows: Int[Tensor, "n"], many: int, generator: torch.Generator) -> Int[Tensor, "m"]:
    """Draw `many` of the rows (or all), in their order."""
    return rows[torch.randperm(len(rows), generator=generator)[:many]].sort().values
