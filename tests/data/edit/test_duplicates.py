from __future__ import annotations

import numpy as np
import torch
from hostile import photo
from PIL import ImageEnhance

from rushlight.data.dataset import Dataset
from rushlight.data.edit import duplicates
from rushlight.data.sources.read import from_arrays
from rushlight.data.synthetic import fashion


def test_near_duplicates_are_found_and_strangers_are_not():
    pictures = [photo(seed, 64, 64) for seed in range(60)]
    brighter = ImageEnhance.Brightness(pictures[7]).enhance(1.02)
    smaller = pictures[20].resize((48, 48)).resize((64, 64))
    images = np.stack([np.asarray(image) for image in [*pictures, brighter, smaller, pictures[3]]])
    pairs = duplicates.near(from_arrays(images))
    assert pairs.tolist() == [[7, 60], [20, 61]]


def test_near_duplicates_agree_with_all_pairs():
    data = fashion.load().select(slice(0, 1500))
    images = data["image"]
    hashes, small = duplicates._describe(iter([images]))
    bits = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = [
        [a, b]
        for a, b in zip(*np.nonzero(np.triu(bits <= 3, 1)))
        if np.abs(small[a].astype(int) - small[b]).mean() <= 6 and not torch.equal(images[a], images[b])
    ]
    assert expected
    assert duplicates.near(data).tolist() == expected


def test_a_thousand_flat_images_are_no_trouble():
    data = Dataset({"image": torch.zeros(1000, 3, 16, 16, dtype=torch.uint8)})
    assert duplicates.exact(data) == [list(range(1000))]
    assert len(duplicates.near(data)) == 0
    assert duplicates.near(data.select([0])).shape == (0, 2)


def test_joined_pairs_are_one_thing():
    pairs = torch.tensor([[0, 3], [3, 5], [1, 2]])
    number = duplicates.joined(pairs, 7).tolist()
    assert number[0] == number[3] == number[5]
    assert number[1] == number[2]
    assert len(set(number)) == 4
