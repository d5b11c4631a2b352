"""The command line that repeats a job."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import torch

from rushlight.data.dataset import Dataset, Info
from rushlight.jobs.command import repeat


def data(source: str = "photos", **settings: Any) -> Dataset:
    return Dataset({"image": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, Info(source=source, settings=settings))


def test_words_are_quoted_as_a_shell_reads_them() -> None:
    line = repeat("fit", data("my photos"), "barlow-twins > iomatch(ratio=2)", budget="2k", out="a'b")
    assert line.startswith("rushlight fit 'my photos' 'barlow-twins > iomatch(ratio=2)' --budget 2k")
    said = ["rushlight", "fit", "my photos", "barlow-twins > iomatch(ratio=2)", "--budget", "2k", "--out", "a'b"]
    assert shlex.split(line) == said


def test_what_was_not_chosen_is_left_out_and_true_is_a_flag() -> None:
    line = repeat("compare", data(), seeds=3, keep=0, weights=None, pretrained=False, unlabelled_only=True)
    assert line == "rushlight compare photos --seeds 3 --keep 0 --unlabelled-only"


def test_how_the_data_were_read_is_said_too() -> None:
    read = data(labels="labels.csv", masks="masks", group="patient", fit="crop", size=[48, 48])
    words = "--labels labels.csv --masks masks --group patient --fit crop --size 48"
    assert repeat("audit", read, "model") == f"rushlight audit photos model {words}"


def test_defaults_of_reading_are_not_said() -> None:
    assert repeat("look", data(fit="squash", labels=None, cache="elsewhere")) == "rushlight look photos"


@pytest.mark.parametrize(("size", "said"), [(32, " --size 32"), ((32, 32), " --size 32"), ((32, 48), ""), (None, "")])
def test_a_size_is_said_where_one_number_says_it(size: Any, said: str) -> None:
    assert repeat("look", data(size=size)) == f"rushlight look photos{said}"
