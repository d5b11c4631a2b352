from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight.data.columns import encode_text
from rushlight.data.dataset import Dataset
from rushlight.data.edit.pool import Pool, read_names, stage_of

REASONS = ("face: a face was found", "person: a person was found", "licence: not allowed", "too small")


def images(n: int, names: list[str] | None = None) -> Dataset:
    columns = {"image": torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 2, 2).contiguous()}
    return Dataset(columns | ({"name": encode_text(names)} if names else {}))


@st.composite
def plans(draw: st.DrawFn) -> tuple:
    """Some of eight images, reasons against them, and which scores were measured of them."""
    numbers = draw(st.lists(st.integers(0, 7), unique=True))
    flags = st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers))
    return (
        numbers,
        {reason: draw(flags) for reason in sorted(draw(st.sets(st.sampled_from(REASONS))))},
        {score: draw(flags) for score in sorted(draw(st.sets(st.sampled_from(["face", "person"]))))},
    )


def made(plan: tuple) -> Pool:
    """The pool; an image's score is the same in all of them, where it is measured."""
    numbers, reasons, measured = plan
    pool = Pool(tuple(f"{number}.png" for number in numbers))
    for reason, rows in reasons.items():
        pool = pool.remove(reason, torch.tensor(rows, dtype=torch.bool))
    for score, rows in measured.items():
        values = torch.where(torch.tensor(rows, dtype=torch.bool), torch.tensor(numbers) / 8, torch.nan)
        pool = pool.score(score, values)
    return pool


def told(pool: Pool) -> dict[str, object]:
    """What is said of each image, whatever the order of the images, reasons and scores."""
    scores = {name: [None if v != v else v for v in values.tolist()] for name, values in pool.scores.items()}
    rows = [dict(zip(sorted(scores), each)) for each in zip(*(scores[name] for name in sorted(scores)))]
    rows = rows or [{} for _ in pool.names]
    images = {n: (k, r, s) for n, k, r, s in zip(pool.names, pool.kept.tolist(), pool.reasons, rows)}
    return {"images": images, "reasons": sorted(pool.against)}


@settings(deadline=None)
@given(plans(), plans(), plans())
def test_merging_does_not_depend_on_the_order(one: tuple, two: tuple, three: tuple) -> None:
    a, b, c = map(made, (one, two, three))
    assert told(a | b) == told(b | a)
    assert told((a | b) | c) == told(a | (b | c))
    assert told(a | a) == told(a)


@settings(deadline=None)
@given(plans(), plans())
def test_reasons_add_up(first: tuple, second: tuple) -> None:
    """The slow rule, image by image: reasons are united, and an image is kept exactly if it has none."""
    a, b = made(first), made(second)
    merged = a | b
    one, other = dict(zip(a.names, a.reasons)), dict(zip(b.names, b.reasons))
    for name, kept, reasons in zip(merged.names, merged.kept.tolist(), merged.reasons):
        assert set(reasons) == set(one.get(name, ())) | set(other.get(name, ()))
        assert kept == (not reasons)


@settings(deadline=None)
@given(plans())
def test_rates_count_what_the_reasons_say(plan: tuple) -> None:
    pool = made(plan)
    for rate in pool.rates():
        hit = [reasons for reasons in pool.reasons if rate["reason"] in reasons]
        assert rate["images"] == len(hit)
        assert rate["alone"] == sum(len(reasons) == 1 for reasons in hit)
        assert rate["share"] == pytest.approx(len(hit) / len(pool) if len(pool) else 0)
    for stage, share in pool.stage_rates().items():
        hit = [reasons for reasons in pool.reasons if any(stage_of(reason) == stage for reason in reasons)]
        assert share == pytest.approx(len(hit) / len(pool) if len(pool) else 0)


@settings(deadline=None)
@given(plans())
def test_the_file_says_what_the_pool_says(plan: tuple) -> None:
    pool = made(plan)
    rows = list(csv.DictReader(io.StringIO(pool.to_csv())))
    assert [row["name"] for row in rows] == list(pool.names)
    assert [row["kept"] == "1" for row in rows] == pool.kept.tolist()
    assert [tuple(filter(None, row["reasons"].split("; "))) for row in rows] == pool.reasons
    for name, values in pool.scores.items():
        read = [float(row[name]) if row[name] else float("nan") for row in rows]
        torch.testing.assert_close(torch.tensor(read, dtype=torch.float32), values, equal_nan=True)
    table = pool.to_pandas()
    assert list(table.columns) == ["name", "kept", "reasons", *pool.scores]
    assert table["kept"].tolist() == pool.kept.tolist()


def test_selecting_goes_by_name() -> None:
    data = images(4, ["a.png", "b.png", "c.png", "d.png"])
    pool = Pool.of(data).remove("too small", torch.tensor([False, True, False, False]))
    assert pool.select(data).names == ["a.png", "c.png", "d.png"]
    turned = data.select(torch.tensor([3, 2, 1, 0]))
    assert pool.select(turned).names == ["d.png", "c.png", "a.png"]
    with pytest.raises(ValueError, match=r"does not know 'e\.png'"):
        pool.select(images(1, ["e.png"]))


def test_where_nothing_speaks_against_any_the_data_stays_itself() -> None:
    data = images(3)
    assert Pool.of(data).select(data) is data


def test_a_later_pool_of_what_an_earlier_one_kept() -> None:
    data = images(3, ["a", "b", "c"])
    first = Pool.of(data).remove("too small", torch.tensor([True, False, False]))
    second = Pool.of(first.select(data)).remove("face: found", torch.tensor([False, True]))
    both = first | second.score("face", torch.tensor([0.1, 0.9]))
    assert both.reasons == [("too small",), (), ("face: found",)]
    assert both.scores["face"].isnan().tolist() == [True, False, False]
    assert both.select(data).names == ["b"]


def test_of_two_measures_the_later_stages_stays() -> None:
    first = Pool(("a", "b", "c")).score("review", torch.tensor([1.0, 2.0, 3.0])).score("side", torch.tensor([5.0] * 3))
    later = Pool(("c", "a")).score("review", torch.tensor([1.0, torch.nan])).score("side", torch.tensor([5.0] * 2))
    both = first.then(later)
    assert both.scores["review"].nan_to_num(-1).tolist() == [-1, -1, 1]
    assert both.scores["side"].tolist() == [5, 5, 5]
    with pytest.raises(ValueError, match="other values of 'review'"):
        first.merge(later)


def test_it_writes_and_shows_itself(tmp_path: Path) -> None:
    from rich.console import Console

    pool = Pool(("a, b.png", 'c "d".png')).remove("licence: not [allowed]", torch.tensor([True, False]))
    pool.write(tmp_path / "curation.csv")
    assert read_names(tmp_path / "curation.csv") == ['c "d".png']
    assert [path.name for path in tmp_path.iterdir()] == ["curation.csv"]
    console = Console(width=100, record=True)
    console.print(pool)
    assert "not [allowed]" in console.export_text()
    assert "50.0" in pool._repr_html_()
    assert repr(pool) == "Pool(2 images, 1 kept)"


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Pool(("a", "a"))
    with pytest.raises(ValueError, match="2 values for 1 images"):
        Pool(("a",), {"x": torch.tensor([True, False])})
    with pytest.raises(ValueError, match="a reason is words"):
        Pool(("a",), {"x; y": torch.tensor([True])})
    a, b = Pool(("a",)).score("face", torch.tensor([0.1])), Pool(("a",)).score("face", torch.tensor([0.2]))
    with pytest.raises(ValueError, match="other values of 'face'"):
        a.merge(b)
