"""torchvision's data sets by name, downloaded by their ordinary loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.data.sources.arrays import from_arrays, resized

NAMES = {
    "fashion-mnist-full": "FashionMNIST",
    "mnist": "MNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "stl10": "STL10",
    "svhn": "SVHN",
}


def load(name: str, settings: dict[str, Any]) -> Dataset:
    """Return one of torchvision's data sets, downloaded by its ordinary loader if it is not there yet.

    Raises:
        UserError: it can be neither found nor downloaded.
    """
    from platformdirs import user_cache_path

    cache = settings.get("cache")
    root = Path(cache) if cache else user_cache_path("rushlight")
    folds = []
    for fold in (TRAIN, TEST):
        folds.append(_fold(name, root / "torchvision", fold))
    images = np.concatenate([_channels_last(part.data) for part in folds])
    labels = np.concatenate([np.asarray(_targets(part)) for part in folds]).astype(np.int64)
    fold_column = np.repeat([TRAIN, TEST], [len(part.data) for part in folds])
    names = [str(name) for name in getattr(folds[0], "classes", range(10))]
    data = from_arrays(images, labels, class_names=names, fold=fold_column, source=name)
    return resized(data, settings)


def _fold(name: str, root: Path, fold: int) -> Any:
    from torchvision import datasets

    kind = getattr(datasets, NAMES[name])
    if name in ("stl10", "svhn"):
        which: dict[str, Any] = {
            "split": "test" if fold == TEST else ("train" if name == "svhn" else "train+unlabeled")
        }
    else:
        which = {"train": fold == TRAIN}
    try:
        return kind(str(root), download=True, **which)
    except Exception as error:  # urllib, http, ssl, tar and hash errors have no common class
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(
            f"'{name}' could not be downloaded ({reason}): check the network, or put torchvision's files "
            f"into '{root}'; 'fashion' needs no download"
        ) from error


def _targets(part: Any) -> Any:
    return part.targets if hasattr(part, "targets") else part.labels


def _channels_last(data: Any) -> np.ndarray:
    array = data.numpy() if isinstance(data, Tensor) else np.asarray(data)
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 and array.shape[1] == 3 else array
