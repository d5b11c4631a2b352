"""Rules against single images, samples of what is left, and groups of images that are one."""

from __future__ import annotations

import itertools

import torch

from rushlight.data.columns import encode_text
from rushlight.data.dataset import Dataset
from rushlight.data.edit.pool import Pool
from rushlight.methods.curate.pass_.rules import NAMED, judge, licensed, listed, lot, not_first, sample


def images(*licences: str) -> Dataset:
    """One image a licence, named `a`, `b`, … ."""
    n = len(licences)
    return Dataset(
        {
            "image": torch.zeros(n, 3, 4, 4, dtype=torch.uint8),
            "name": encode_text([chr(97 + i) for i in range(n)]),
            "licence": encode_text(list(licences)),
        }
    )


def test_a_rule_is_asked_about_all_images_or_about_those_still_kept() -> None:
    data = images("x", "x", "x", "x")
    pool = Pool.of(data).remove("before", torch.tensor([True, False, False, False]))
    seen = []

    def rule(data: Dataset, rows: torch.Tensor):
        seen.append(rows.tolist())
        return {"second": torch.arange(len(rows)) == 1}, {"place": rows.float()}

    everything, kept = (judge(rule, data, pool, everything=every) for every in (True, False))
    assert seen == [[0, 1, 2, 3], [1, 2, 3]]
    assert everything.against["second"].tolist() == [False, True, False, False]
    assert kept.against["second"].tolist() == [False, False, True, False]
    assert kept.scores["place"][1:].tolist() == [1, 2, 3]
    assert kept.scores["place"][:1].isnan().all()
    assert kept.kept.tolist() == [False, True, False, True]


def test_listed_names_are_removed_among_the_rows_that_are_asked_about() -> None:
    against, scores = listed("gone", ["c", "a", "nobody"])(images("x", "x", "x"), torch.tensor([1, 2]))
    assert (against["gone"].tolist(), scores) == ([False, True], {})


def test_licences_are_compared_in_their_normal_form_and_the_rarest_are_told_together() -> None:
    others = [f"own {number}" for number in range(NAMED + 1) for _ in range(1 if number >= NAMED - 1 else 2)]
    licences = ["CC BY 4.0", "cc-by-4.0", "", "", *others]
    against, scores = licensed(["CC-BY-4.0"])(images(*licences), torch.arange(len(licences)))
    assert scores["licence allowed"].tolist() == [1, 1, *[0] * (len(licences) - 2)]
    assert against["licence: none is given"].nonzero().flatten().tolist() == [2, 3]
    assert len(against) == NAMED + 1
    assert int(against["licence: others are not allowed"].sum()) == 2
    assert (torch.stack(list(against.values())).sum(0) == 1 - scores["licence allowed"]).all()


def test_a_sample_is_of_kept_images_in_the_order_of_the_draw() -> None:
    pool = Pool(tuple("abcdef")).remove("no", torch.tensor([False, True, False, False, False, False]))
    order = sorted("acdef", key=lambda name: lot(name, 3))
    place = sample(pool, 3, seed=3)
    assert [pool.names[row] for row in place.nan_to_num(9).argsort()[:3].tolist()] == order[:3]
    assert int((~place.isnan()).sum()) == 3
    assert sample(pool, 9, seed=3).nan_to_num().sort().values.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_draw_depends_on_seed_and_name() -> None:
    lots = [lot(name, seed) for name, seed in itertools.product(("a", "b", "1a"), (0, 1, 11))]
    assert len(set(lots)) == len(lots)


def test_of_connected_images_the_first_is_kept() -> None:
    assert not_first(6, [(4, 2), (2, 5), (1, 0)]).tolist() == [False, True, False, False, True, True]
