"""Take labels away in controlled ways, for experiments: fewer, partial, noisy, or of some classes only.

Each function takes a data set and returns a new one, a pure function of its arguments and `seed`. Test rows
keep their labels (only `open_set` renames theirs). With the same seed, what a smaller number keeps a larger
one keeps too, so that a curve over the number of labels adds labels and never swaps them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rushlight.core.errors import UserError, nearest
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset


def per_class(data: Dataset, n: int, column: str = "class", *, seed: int = 0) -> Dataset:
    """Keep n known labels of each class among the training rows; hide the others.

    Args:
        column: `class` or `domain`.

    Raises:
        UserError: a class has fewer than n, or the column holds no single class a row.
    """
    labels, rows = _training_labels(data, column, classes=True), _training_rows(data, column)
    names = _names(data, column)
    if n < 0:
        raise UserError(f"cannot keep {n} labels a class: give a number from 0 up")
    counts = torch.bincount(labels[rows], minlength=len(names))
    for label in (counts < n).nonzero().flatten().tolist():
        raise UserError(
            f"{n} labels a class were asked for, but the {column} '{names[label]}' has only "
            f"{int(counts[label])} known in the training rows: ask for at most {int(counts.min())}"
        )
    return _keep(data, column, rows[_rank_in_class(labels[rows], seed) < n])


def fraction(data: Dataset, share: float | int, column: str = "class", *, seed: int = 0) -> Dataset:
    """Keep a share of the known training rows of a column, in proportion to the classes; hide the others.

    Exactly round(share × known rows) are kept; of each class at least one, if share > 0. Columns other than
    `class` and `domain` are drawn without regard to what stands in them.

    Raises:
        UserError: a share outside 0 … 1.
    """
    _check_share(share)
    labels, rows = _training_labels(data, column), _training_rows(data, column)
    rank = _rank_in_class(labels[rows], seed)
    # The i-th of a class of m stands at i/m: any prefix has every class in proportion, and each one's first.
    position = rank.double() / torch.bincount(labels[rows])[labels[rows]]
    ties = torch.randperm(len(rows), generator=_generator(seed + 1))
    order = ties[position[ties].argsort(stable=True)]
    firsts = int((rank == 0).sum()) if share > 0 else 0
    return _keep(data, column, rows[order[: max(round(share * len(rows)), firsts)]])


def positives_only(data: Dataset, share: float | int = 1.0, *, seed: int = 0) -> Dataset:
    """Keep a share of the present tags (entries 1) of the training rows; every other entry becomes unknown.

    Exactly round(share × positives) entries are kept, drawn uniformly.

    Raises:
        UserError: no tags, or a share outside 0 … 1.
    """
    _check_share(share)
    tags = _column(data, "tags").clone()
    training = ~_test(data)
    kept = _draw(training[:, None] & (tags == 1), share, seed)
    tags[training[:, None] & ~kept] = -1
    return data.with_columns(tags=tags)


def tagwise(data: Dataset, share: float | int, *, seed: int = 0) -> Dataset:
    """Keep a share of the known tag entries of the training rows, each entry drawn independently; hide the others.

    Exactly round(share × known entries) are kept, drawn uniformly.

    Raises:
        UserError: no tags, or a share outside 0 … 1.
    """
    _check_share(share)
    tags = _column(data, "tags").clone()
    candidates = ~_test(data)[:, None] & (tags != -1)
    tags[candidates & ~_draw(candidates, share, seed)] = -1
    return data.with_columns(tags=tags)


def noise(
    data: Dataset,
    rate: float | int,
    kind: str | Float[Tensor, "classes classes"] = "symmetric",
    *,
    column: str = "class",
    seed: int = 0,
) -> Dataset:
    """Replace exactly round(rate × known) training labels, chosen uniformly, by drawn ones.

    Args:
        kind: `symmetric`: by one of the other classes, each as likely; or a matrix of probabilities: a chosen
            label i becomes j with probability `kind[i, j]` (a diagonal keeps some; a rate of 1 applies the
            matrix as it is).

    Raises:
        UserError: a rate outside 0 … 1, a matrix that is not of the classes' size or whose rows do not sum to
            1.
    """
    _check_share(rate, "rate")
    labels, rows = _training_labels(data, column, classes=True), _training_rows(data, column)
    matrix = _confusion(kind, len(_names(data, column)))
    generator = _generator(seed)
    chosen = rows[torch.randperm(len(rows), generator=generator)[: round(rate * len(rows))]]
    noisy = data[column].clone()
    if len(chosen):
        noisy[chosen] = torch.multinomial(matrix[labels[chosen]], 1, generator=generator).flatten()
    return data.with_columns(**{column: noisy})


def open_set(data: Dataset, unseen: Sequence[str | int]) -> Dataset:
    """Make some classes occur only unlabelled, as in open-set semi-supervised learning.

    The K other classes are renumbered 0 … K−1 in their order, and `info.class_names` names these alone, so a
    learner that asks for the classes sees K. Training rows of the unseen classes stay, without a label. Test
    rows of the unseen classes get the id K (`unknown_class(data)`), which has no name in `class_names`: a
    rejection. The names of the unseen classes are kept in `info.settings["unseen"]`.

    Args:
        unseen: names or ids of classes.

    Raises:
        UserError: a class that does not exist, or none left.
    """
    names = _names(data, "class")
    hidden = {_class_id(name, names) for name in unseen}
    seen = [label for label in range(len(names)) if label not in hidden]
    if not seen:
        raise UserError("every class was named as unseen: leave at least one to learn")
    renumbered = torch.full((len(names) + 1,), -1)  # the last entry serves the label −1
    renumbered[seen] = torch.arange(len(seen))
    before = _column(data, "class")
    labels = renumbered[before]
    labels[_test(data) & (before >= 0) & (labels < 0)] = len(seen)
    settings = {**data.info.settings, "unseen": [names[label] for label in sorted(hidden)]}
    renamed = data.with_info(class_names=tuple(names[label] for label in seen), settings=settings)
    return renamed.with_columns(**{"class": labels})


def only_tested(data: Dataset) -> list[str]:
    """Return the names of the classes that occur in test rows and in no other; none where no other has a class."""
    if "class" not in data or "unseen" in data.info.settings:
        return []
    labels, test, names = data["class"], _test(data) & data.known("class"), _names(data, "class")
    seen = set(labels[~_test(data) & data.known("class")].tolist())
    return [names[label] for label in sorted(set(labels[test].tolist()) - seen)] if seen else []


def unknown_class(data: Dataset) -> int | None:
    """Return the id K that `open_set` gave test rows of unseen classes; None where there are no unseen classes."""
    return len(data.info.class_names) if "unseen" in data.info.settings else None


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _column(data: Dataset, column: str) -> Tensor:
    if column not in data:
        raise UserError(f"the data has no column '{column}' to hide labels in; it has {', '.join(data.label_names)}")
    return data[column]


def _test(data: Dataset) -> Bool[Tensor, "rows"]:
    return data["fold"] == TEST if "fold" in data else torch.zeros(len(data), dtype=torch.bool)


def _training_rows(data: Dataset, column: str) -> Int[Tensor, "known"]:
    return (data.known(column) & ~_test(data)).nonzero().flatten()


def _training_labels(data: Dataset, column: str, classes: bool = False) -> Int[Tensor, "rows"]:
    """Return the class of each row; one class for all where the column has none (an error if classes are needed)."""
    values = _column(data, column)
    if values.ndim == 1 and values.dtype == torch.int64:
        return values
    if classes:
        raise UserError(f"the column '{column}' has no one class a row: use 'class' or 'domain', or hide a fraction")
    return torch.zeros(len(data), dtype=torch.int64)


def _rank_in_class(labels: Int[Tensor, "n"], seed: int) -> Int[Tensor, "n"]:
    """Return each row's place (from 0) in a random order of its class."""
    shuffled = torch.randperm(len(labels), generator=_generator(seed))
    order = shuffled[labels[shuffled].argsort(stable=True)]
    counts = torch.bincount(labels)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    return rank


def _keep(data: Dataset, column: str, kept: Int[Tensor, "kept"]) -> Dataset:
    hidden = ~_test(data)
    hidden[kept] = False
    return data.hide(hidden, [column])


def _draw(candidates: Bool[Tensor, "rows tags"], share: float | int, seed: int) -> Bool[Tensor, "rows tags"]:
    """Draw a share of the candidates, uniformly."""
    places = candidates.flatten().nonzero().flatten()
    drawn = places[torch.randperm(len(places), generator=_generator(seed))[: round(share * len(places))]]
    chosen = torch.zeros(candidates.numel(), dtype=torch.bool)
    chosen[drawn] = True
    return chosen.view_as(candidates)


def _confusion(kind: str | Tensor, classes: int) -> Float[Tensor, "classes classes"]:
    if isinstance(kind, str):
        if kind != "symmetric":
            raise UserError(f"the kind of noise is 'symmetric' or a matrix, not '{kind}'")
        if classes < 2:
            raise UserError("symmetric noise needs at least two classes")
        return (1 - torch.eye(classes)) / (classes - 1)
    matrix = kind.float()
    if matrix.shape != (classes, classes):
        raise UserError(f"the noise matrix must be {classes}×{classes}, not {'×'.join(map(str, matrix.shape))}")
    if (matrix < 0).any() or not torch.allclose(matrix.sum(1), torch.ones(classes), atol=1e-4):
        raise UserError("each row of the noise matrix must hold probabilities that sum to 1")
    return matrix


def _check_share(share: float | int, name: str = "share") -> None:
    if not 0 <= share <= 1:
        raise UserError(f"the {name} must lie between 0 and 1, not be {share}")


def _names(data: Dataset, column: str) -> tuple[str, ...]:
    """Return the classes' names, or their numbers where they have none."""
    names = data.info.domain_names if column == "domain" else data.info.class_names
    if names or not len(data):
        return names
    return tuple(map(str, range(int(_column(data, column).max()) + 1)))


def _class_id(name: str | int, names: tuple[str, ...]) -> int:
    if isinstance(name, str) and name in names:
        return names.index(name)
    if isinstance(name, int) and 0 <= name < len(names):
        return name
    raise UserError(f"there is no class '{name}' to leave unseen.{nearest(str(name), names)}")
