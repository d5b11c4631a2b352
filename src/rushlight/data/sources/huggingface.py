"""Hugging Face's data sets, from the Hub or a saved folder. No code of a download runs: they are read as tables."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.sources.join import TEXTS, natural
from rushlight.data.sources.listing import Listing


def is_saved(folder: Path) -> bool:
    """Return whether a folder was saved by `datasets`."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    )


def listing(name: str) -> Listing:
    """Return a Hugging Face data set, `hf:NAME`, `hf:NAME:SPLIT` or a saved folder, as a listing.

    Raises:
        UserError: `datasets` is missing, or the data set cannot be read or has no images.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"'{name}' needs the package datasets: pip install 'rushlight[hub]'") from error
    identifier, _, split = name.removeprefix("hf:").partition(":")
    try:
        if Path(name.removeprefix("hf:")).is_dir():
            found = datasets.load_from_disk(name.removeprefix("hf:"))
        else:
            found = datasets.load_dataset(identifier, split=split or None)
    except Exception as error:  # network, hub, format: no common class
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(f"the Hugging Face data set '{name}' cannot be loaded: {reason}") from error
    return listing_of(dict(found) if isinstance(found, dict) else {split: found}, name)


def listing_of(splits: dict[str, Any], source: str) -> Listing:
    """Return the rows of all splits in order; `train` and `test` (or `validation`) are folds."""
    import datasets

    result = Listing(source, [], [])
    image = next((k for k, v in next(iter(splits.values())).features.items() if isinstance(v, datasets.Image)), None)
    if image is None:
        columns = ", ".join(next(iter(splits.values())).features)
        raise UserError(f"the Hugging Face data set '{source}' has no column of images, only {columns}")
    for split, table in splits.items():
        table = table.cast_column(image, datasets.Image(decode=False))
        width = len(str(len(table)))
        result.names += [f"{split or 'row'}/{row:0{width}}" for row in range(len(table))]
        result.images += [partial(_bytes, table, image, row) for row in range(len(table))]
        result.stamp.append((split, table._fingerprint))
    _label_columns(result, list(splits.values()))
    folds = {"train": TRAIN, "test": TEST} | ({} if "test" in splits else {"validation": TEST})
    if len(splits) > 1:
        result.labels["fold"] = np.concatenate([np.full(len(t), folds.get(s, -1)) for s, t in splits.items()])
    return result


def _bytes(table: Any, column: str, row: int) -> bytes:
    cell = table[row][column]
    return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()


def _label_columns(result: Listing, tables: list[Any]) -> None:
    import datasets

    for name, feature in tables[0].features.items():
        values = [value for table in tables for value in table[name]] if _is_label(name, feature) else None
        if values is None:
            continue
        if isinstance(feature, datasets.ClassLabel) and "class" not in result.labels:
            ids = np.array([-1 if value is None else value for value in values], dtype=np.int64)
            result.labels["class"], result.meaning["class_names"] = ids, tuple(feature.names)
        elif isinstance(getattr(feature, "feature", None), datasets.ClassLabel):
            names = tuple(feature.feature.names)
            result.labels["tags"], result.meaning["tag_names"] = _tags(values, len(names)), names
        elif text := next((kind for kind, names in TEXTS.items() if name in names), None):
            result.labels[text] = [str(value or "") for value in values]
        elif name in ("label", "class") and "class" not in result.labels:
            texts = ["" if value is None else str(value) for value in values]
            names = tuple(sorted(set(texts) - {""}, key=natural))
            ids = np.array([names.index(text) if text else -1 for text in texts], dtype=np.int64)
            result.labels["class"], result.meaning["class_names"] = ids, names


def _is_label(name: str, feature: Any) -> bool:
    import datasets

    listed = isinstance(getattr(feature, "feature", None), datasets.ClassLabel)
    texts = {heading for headings in TEXTS.values() for heading in headings}
    return listed or isinstance(feature, datasets.ClassLabel) or name in {"label", "class", *texts}


def _tags(values: list, count: int) -> np.ndarray:
    column = np.full((len(values), count), -1, dtype=np.int8)
    for row, tags in enumerate(values):
        if tags is not None:
            column[row] = 0
            column[row, tags] = 1
    return column
