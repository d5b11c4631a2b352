"""Intervals are held to what they promise: measured coverage, and the algebra every estimate of a mean obeys."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rushlight.measure import stats
from rushlight.measure.stats import Interval, claim_verdict, compare_with_best, paired, single

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "coverage.py"


def load_simulation():
    spec = importlib.util.spec_from_file_location("rushlight_benchmark_coverage", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


simulation = load_simulation()
World = simulation.World


def name(world) -> str:
    return f"{world.recipes} recipes, {world.seeds} seeds of sd {world.seed_sd}, accuracy {world.accuracy}"


# --- coverage ---


@pytest.mark.parametrize(
    "world",
    [
        World(3, 300, 0.80, 0.02, 0.0),
        World(3, 300, 0.80, 0.00, 2.0),
        World(3, 300, 0.95, 0.02, 1.0),
        World(4, 400, 0.50, 0.00, 1.0),
        World(5, 300, 0.95, 0.00, 0.3),
        World(6, 300, 0.70, 0.02, 2.0),
        World(10, 300, 0.80, 0.00, 1.0),
    ],
    ids=name,
)
def test_a_95_percent_interval_covers_in_93_to_97_percent_of_studies(world):
    measured = simulation.coverage(world, 2500, np.random.default_rng(11))
    assert 0.93 <= measured <= 0.97


def test_seeds_alone_would_not_cover():
    """The measurement can fail: an interval that forgets the test images is far from its level."""
    world = World(5, 300, 0.8, 0.0, 0.0)
    x = simulation.draw(world, 1000, np.random.default_rng(0))
    by_seed = (x[:, 0] - x[:, 1]).mean(-1)
    half = 2.776 * by_seed.std(-1, ddof=1) / np.sqrt(5)
    assert np.mean(np.abs(by_seed.mean(-1)) <= half) < 0.9


@pytest.mark.parametrize(
    "world",
    [
        World(3, 300, 0.8, seed_sd=2.0, recipes=3),
        pytest.param(World(5, 300, 0.8, seed_sd=1.0, recipes=4), marks=pytest.mark.slow),
        pytest.param(World(3, 300, 0.9, seed_sd=(2.0, *(0.7,) * 7), recipes=8), marks=pytest.mark.slow),
    ],
    ids=name,
)
def test_a_study_of_equals_names_a_false_winner_in_at_most_5_percent(world):
    assert simulation.false_winners(world, 1000, np.random.default_rng(5)) <= 0.05


def test_a_real_lead_is_found():
    world = World(4, 1000, 0.8, gap=0.06, seed_sd=0.5, recipes=4)
    studies = simulation.draw(world, 40, np.random.default_rng(1)).astype(float)
    found = [compare_with_best(dict(zip("abcd", x))).best == ("a",) for x in studies]
    assert np.mean(found) >= 0.8


@pytest.mark.parametrize("accuracy", [0.6, 0.95])
def test_a_single_recipes_interval_covers(accuracy):
    world = World(4, 300, accuracy, seed_sd=1.0)
    studies = simulation.draw(world, 800, np.random.default_rng(3))[:, 0].astype(float)
    held = [accuracy in single(x) for x in studies]
    assert 0.93 <= np.mean(held) <= 0.975


# --- the estimate against plain loops ---


def slow_mean_squares(d):
    s, n = d.shape
    grand = sum(d[i][j] for i in range(s) for j in range(n)) / (s * n)
    rows = [sum(d[i]) / n for i in range(s)]
    columns = [sum(d[i][j] for i in range(s)) / s for j in range(n)]
    by_seed = n * sum((r - grand) ** 2 for r in rows) / (s - 1)
    by_image = s * sum((c - grand) ** 2 for c in columns) / (n - 1)
    rest = sum((d[i][j] - rows[i] - columns[j] + grand) ** 2 for i in range(s) for j in range(n))
    return by_seed, by_image, rest / ((s - 1) * (n - 1))


def test_standard_error_is_that_of_the_two_way_table():
    rng = np.random.default_rng(0)
    d = rng.normal(size=(4, 1)) + 2 * rng.normal(size=(1, 9)) + rng.normal(size=(4, 9))
    by_seed, by_image, rest = slow_mean_squares(d)
    expected = (by_seed + by_image - rest) / 36
    interval = paired(d, np.zeros_like(d))
    assert interval.se == pytest.approx(expected**0.5)
    assert interval.df == pytest.approx(expected**2 / ((by_seed / 36) ** 2 / 3 + ((by_image - rest) / 36) ** 2 / 8))


def test_one_column_is_students_t_over_seeds():
    d = np.array([[0.1], [0.3], [0.2], [0.6]])
    interval = paired(d, np.zeros_like(d))
    half = 3.182446305284263 * d.std(ddof=1) / 2
    assert interval.low == pytest.approx(0.3 - half)
    assert interval.df == pytest.approx(3)


def test_one_seed_is_students_t_over_images():
    d = np.array([[0.1, 0.3, 0.2, 0.6]])
    interval = paired(d, np.zeros_like(d))
    assert interval.high == pytest.approx(0.3 + 3.182446305284263 * d.std(ddof=1) / 2)


def test_equal_scores_give_a_point():
    a = np.ones((3, 5))
    assert paired(a, a) == Interval(0.0, 0.0, 0.0, 0.0, 2.0)


def test_a_perfect_recipe_is_not_certain():
    interval = single(np.ones((3, 100)))
    assert interval.mean == interval.high == 1
    assert 0.93 < interval.low < 0.99


@pytest.mark.parametrize("a", [np.ones((3, 4)), np.full((3, 5), np.nan)])
def test_what_cannot_be_paired_is_refused(a):
    with pytest.raises((ValueError, TypeError)):
        paired(a, np.zeros((3, 5)))


# --- properties ---

matrices = arrays(np.float64, (3, 7), elements=st.floats(-4, 4, width=16))


def same(x: Interval, y: Interval) -> bool:
    ends = [(x.mean, y.mean), (x.low, y.low), (x.high, y.high), (x.se, y.se)]
    return bool(np.allclose(*zip(*ends), atol=1e-6))


@settings(max_examples=40, deadline=None)
@given(matrices, matrices)
def test_paired_is_antisymmetric(a, b):
    assert same(paired(a, b), -paired(b, a))


@settings(max_examples=40, deadline=None)
@given(matrices, matrices, st.floats(-3, 3), st.floats(0.125, 8))
def test_paired_follows_shift_and_scale(a, b, shift, scale):
    x = paired(a, b)
    moved = Interval(*(scale * v + shift for v in (x.mean, x.low, x.high)), scale * x.se, x.df)
    assert same(paired(scale * a + shift, scale * b), moved)


@settings(max_examples=40, deadline=None)
@given(matrices, matrices, st.permutations(range(3)), st.permutations(range(7)))
def test_the_order_of_seeds_and_images_does_not_matter(a, b, seeds, images):
    order = np.ix_(seeds, images)
    assert same(paired(a, b), paired(a[order], b[order]))


@settings(max_examples=40, deadline=None)
@given(matrices, matrices)
def test_a_higher_level_is_wider(a, b):
    wide, narrow = paired(a, b, level=0.99), paired(a, b, level=0.8)
    assert wide.low <= narrow.low <= narrow.high <= wide.high


# --- rankings ---


def study(gap: float = 0.0) -> dict[str, np.ndarray]:
    x = simulation.draw(World(4, 500, 0.8, gap, 0.5, recipes=3), 1, np.random.default_rng(2))[0].astype(float)
    return dict(zip(("winner", "second", "third"), x))


def test_ranking_is_ordered_and_simultaneous():
    scores = study(0.1)
    ranking = compare_with_best(scores, reference="third")
    assert list(ranking.names) == sorted(scores, key=lambda n: -scores[n].mean())
    assert ranking.best == ("winner",)
    for (a, b), gap in ranking.gaps.items():
        alone = paired(scores[a], scores[b])
        assert gap.mean == pytest.approx(alone.mean)
        assert gap.high - gap.low > alone.high - alone.low
    assert set(ranking.gains) == {"winner", "second"}
    gain, gap = ranking.gains["winner"], ranking.gaps["winner", "third"]
    assert gain.high - gain.low < gap.high - gap.low, "fewer comparisons need less"


def test_two_recipes_are_just_a_pair():
    scores = study()
    a, b = scores["winner"], scores["second"]
    ranking = compare_with_best({"a": a, "b": b})
    first, second = ranking.names
    expected = paired(*({"a": a, "b": b}[n] for n in ranking.names))
    assert ranking.gaps[first, second].low == pytest.approx(expected.low, abs=2e-3)


@pytest.mark.parametrize(
    ("scores", "reference"),
    [({}, None), ({"a": np.ones((2, 3)), "b": np.ones((2, 4))}, None), ({"a": np.ones((2, 3))}, "b")],
)
def test_a_ranking_needs_matching_scores(scores, reference):
    with pytest.raises(ValueError):
        compare_with_best(scores, reference=reference)


def test_an_interval_stays_within_the_bounds_of_its_metric():
    rng = np.random.default_rng(0)
    low = np.clip(rng.normal(0.02, 0.3, (3, 40)), -1, 1.2)  # pseudo-values lie outside
    free, cut = single(low), single(low, bounds=(0.0, 1.0))
    assert free.low < 0 <= cut.low <= cut.mean <= cut.high == free.high
    assert (cut.mean, cut.se, cut.df) == (free.mean, free.se, free.df)
    flipped = single(1 - low, bounds=(0.0, 1.0))
    assert flipped.high <= 1 < single(1 - low).high
    scores = {"a": low, "b": np.roll(low, 7)}
    bounded, as_before = compare_with_best(scores, bounds=(0.0, 1.0)), compare_with_best(scores)
    assert all(0 <= i.low <= i.high <= 1 for i in bounded.alone.values())
    assert (bounded.gaps, bounded.best) == (as_before.gaps, as_before.best)


@given(st.floats(-0.3, 1.3), st.floats(0, 2), st.integers(0, 99))
def test_a_bounded_interval_holds_its_mean(centre, spread, seed):
    x = centre + spread * np.random.default_rng(seed).standard_normal((2, 9))
    found = single(x, bounds=(0.0, 1.0))
    assert found.low <= found.mean <= found.high
    if 0 <= found.mean <= 1:
        assert found.low >= 0
        assert found.high <= 1


def test_scores_of_another_range_get_no_form_of_shares():
    x = np.random.default_rng(0).uniform(0, 0.01, (3, 40))
    assert single(x, bounds=(0.0, 50.0)).high < single(x, bounds=(0.0, 1.0)).high


@pytest.mark.parametrize(
    ("low", "high", "direction", "expected"),
    [
        (0.1, 0.3, "higher", "holds"),
        (-0.1, 0.3, "higher", "unclear"),
        (0.0, 0.3, "higher", "unclear"),
        (-0.3, -0.1, "higher", "fails"),
        (-0.3, -0.1, "lower", "holds"),
        (0.1, 0.3, "lower", "fails"),
    ],
)
def test_a_claims_verdict_follows_from_its_interval(low, high, direction, expected):
    assert claim_verdict(Interval((low + high) / 2, low, high, 0.1, 5.0), direction) == expected


def test_a_claim_needs_a_direction():
    with pytest.raises((ValueError, TypeError)):
        claim_verdict(Interval(0.0, 0.0, 0.0, 0.0, 1.0), "up")


# --- pseudo-values ---


def test_pseudo_values_of_a_mean_are_the_scores():
    scores = np.random.default_rng(0).random(20)
    np.testing.assert_allclose(stats.pseudo_values(lambda x: float(x.mean()), scores), scores, atol=1e-12)


def mean_iou(counts: np.ndarray) -> float:
    hit, union = counts.sum(0)
    return float(np.mean(hit / union))


def test_pseudo_values_carry_the_variance_of_mean_iou():
    """Their standard error agrees with the scatter of the metric over fresh test sets."""
    rng = np.random.default_rng(0)

    def test_set() -> np.ndarray:
        union = rng.integers(5, 40, (200, 3))
        return np.stack([rng.binomial(union, rng.beta(8, 3, (200, 1))), union], 1)

    metrics, errors = [], []
    for _ in range(150):
        parts = test_set()
        values = stats.pseudo_values(mean_iou, parts, blocks=50)
        metrics.append(mean_iou(parts))
        errors.append(values.std(ddof=1) / np.sqrt(50))
        assert values.mean() == pytest.approx(metrics[-1], abs=2e-3)
    assert np.mean(errors) == pytest.approx(np.std(metrics), rel=0.15)


def test_pseudo_values_take_lists_and_need_two_blocks():
    values = stats.pseudo_values(lambda x: sum(x) / len(x), [1.0, 2.0, 6.0, 7.0, 9.0], blocks=2)
    np.testing.assert_allclose(np.average(values, weights=[3, 2]), 5.0)
    with pytest.raises(ValueError):
        stats.pseudo_values(sum, [1.0, 2.0], blocks=1)


# --- groups ---


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), min_size=2, max_size=40))
def test_the_mean_over_groups_is_the_mean_over_images(rows):
    groups, values = (np.array(column) for column in zip(*rows, strict=True))
    units = stats.by_group(values, groups)
    assert len(units) == len(set(groups.tolist()))
    assert units.mean() == pytest.approx(values.mean(), abs=1e-9)
    if len(units) > 1:
        jackknife = stats.pseudo_values(lambda x: float(x.mean()), values, groups=groups)
        np.testing.assert_allclose(jackknife, units, atol=1e-9)
        alone = stats.by_group(values, np.arange(len(values)))
        np.testing.assert_allclose(alone, values, atol=1e-9)


def test_intervals_over_groups_cover_where_those_over_images_do_not():
    """Twenty patients of 5 to 40 images that share most of their difficulty."""
    rng = np.random.default_rng(0)
    inside = {"groups": 0, "images": 0}
    for _ in range(300):
        sizes = rng.integers(5, 40, 20)
        groups = np.repeat(np.arange(20), sizes)
        right = (rng.random(len(groups)) < rng.beta(2, 1, 20)[groups]).astype(float)
        inside["groups"] += 2 / 3 in stats.single(stats.by_group(right, groups)[None])
        inside["images"] += 2 / 3 in stats.single(right[None])
    assert inside["groups"] / 300 > 0.88
    assert inside["images"] / 300 < 0.6


def test_seeds_that_agree_by_chance_do_not_make_an_interval_of_no_width() -> None:
    scores = np.zeros((2, 20))
    scores[0, :3] = scores[1, 3:6] = (1.2, -0.1, 0.3)  # equal means on other images: no part is estimated above zero
    found = stats.single(scores, bounds=(0, 1))
    assert found.high - found.mean > 0.05
    assert stats.compare_with_best({"a": scores, "b": scores[::-1]}).best == ("a", "b")
