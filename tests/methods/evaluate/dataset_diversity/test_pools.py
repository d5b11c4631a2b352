from __future__ import annotations

import pytest
import torch

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, encode_text
from rushlight.data.dataset import Dataset, Info
from rushlight.methods.evaluate.dataset_diversity import pools


def made(n: int = 60, *, fold: bool = False) -> Dataset:
    """Images told apart by their noise; domain i % 3; the class known of the first half."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 3, 16, 16), dtype=torch.uint8, generator=generator)
    rows = torch.arange(n)
    columns = {
        "image": images,
        "name": encode_text([str(i) for i in range(n)]),
        "domain": rows % 3,
        "class": torch.where(rows < n // 2, rows % 2, -1),
    }
    if fold:
        columns["fold"] = (rows < 12).to(torch.int8)
    return Dataset(columns, Info(domain_names=("rome", "paris", "oslo")))


def names(data: Dataset) -> set[str]:
    return set(data.names)


def test_pools_hold_what_they_say_and_no_test_image() -> None:
    data = pools.divided(made(), 1, "class", seed=0)
    test = names(data.select(data["fold"] == TEST))
    assert test
    assert {int(name) % 3 for name in test} == {1}
    found = pools.pools(data, 1, seed=0)
    assert names(found["target"]) == {str(i) for i in range(60) if i % 3 == 1} - test
    assert names(found["target"]) < names(found["all"])
    assert names(found["all"]) == {str(i) for i in range(60)} - test
    size = len(found["target"])
    assert len(found["few of all"]) == len(found["few of others"]) == size
    assert all(int(name) % 3 != 1 for name in names(found["few of others"]))
    assert {int(name) % 3 for name in names(found["few of all"])} == {0, 1, 2}
    for pool in found.values():
        assert not any(pool.known(name).any() for name in pool.label_names), "no label is handed to the pretraining"
    assert names(pools.pools(data, 1, seed=0)["few of all"]) == names(found["few of all"])
    assert names(pools.pools(data, 1, seed=1)["few of all"]) != names(found["few of all"])


def test_the_datas_own_fold_stays_and_twins_of_its_images_go() -> None:
    data = made(fold=True)
    images = data["image"].clone()
    images[40], images[41] = images[4], images[20]  # a test image's twin in training, and two equal training images
    smooth = (
        torch.nn.functional.interpolate(
            torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1)), size=(16, 16), mode="bilinear"
        )
        * 200
    )
    images[7], images[50] = smooth[0].byte(), (smooth[0] + 2).byte()
    data = pools.divided(data.with_columns(image=images), 1, "class", seed=0)
    assert names(data.select(data["fold"] == TEST)) == {str(i) for i in range(12)}
    assert {str(i) for i in range(60)} - names(data) == {"40", "50"}


def test_labelled_images_are_the_targets_training_ones() -> None:
    data = pools.divided(made(), 1, "class", seed=0)
    every = pools.labelled(data, 1, "class", None, seed=0)
    assert bool((every["domain"] == 1).all() & (every["fold"] != TEST).all() & every.known("class").all())
    few = pools.labelled(data, 1, "class", 3, seed=0)
    assert len(few) == 3
    assert names(few) < names(every)


def test_the_target_by_name_or_by_labels() -> None:
    data = made()
    hidden = data.hide((data["domain"] != 2) & (torch.arange(60) > 5), ["class"])
    assert pools.target_of(hidden, "class", None) == 2
    assert pools.target_of(data, "class", "rome") == 0
    with pytest.raises(UserError, match="Did you mean 'paris'"):
        pools.target_of(data, "class", "pari")
    with pytest.raises(UserError, match="column 'domain'"):
        pools.target_of(data.without("domain"), "class", None)
    with pytest.raises(UserError, match="'oslo' has 2 images"):
        pools.divided(data.hide(torch.arange(60) > 5, ["class"]), 2, "class", seed=0)
