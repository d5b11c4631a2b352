"""z-scores, ranks and correlations beside SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr, zscore

from rushlight.methods.evaluate.backbones.zscore_ranking import zscore_ranking

NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def scores() -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    return {f"t{i}": list(rng.random(5)) for i in range(4)}


def test_each_task_has_mean_0_and_standard_deviation_1_over_backbones(scores) -> None:
    found = zscore_ranking(NAMES, scores)
    np.testing.assert_allclose(found.z, zscore(np.array(list(scores.values())).T, axis=0))
    np.testing.assert_allclose(found.z.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(found.z.std(0), 1)
    np.testing.assert_allclose(found.mean, found.z.mean(1))
    assert [NAMES[i] for i in found.rank.argsort()] == [NAMES[i] for i in (-found.mean).argsort()]
    assert sorted(found.rank) == [1, 2, 3, 4, 5]


def test_an_affine_change_of_a_tasks_metric_changes_nothing(scores) -> None:
    changed = {**scores, "t1": [100 * value - 40 for value in scores["t1"]]}
    one, other = zscore_ranking(NAMES, scores), zscore_ranking(NAMES, changed)
    np.testing.assert_allclose(one.z, other.z, atol=1e-9)
    np.testing.assert_allclose(one.spearman, other.spearman)


def test_correlations_are_scipys(scores) -> None:
    found, columns = zscore_ranking(NAMES, scores), list(scores.values())
    for i in range(4):
        for j in range(4):
            assert found.spearman[i, j] == pytest.approx(spearmanr(columns[i], columns[j]).statistic)
            assert found.pearson[i, j] == pytest.approx(pearsonr(columns[i], columns[j]).statistic)
    pairs = [found.spearman[i, j] for i in range(4) for j in range(i)]
    assert found.agreement == pytest.approx(np.mean(pairs))


def test_a_copied_task_counts_twice(scores) -> None:
    found = zscore_ranking(NAMES, {**scores, "again": scores["t0"]})
    once = zscore_ranking(NAMES, scores)
    np.testing.assert_allclose(found.mean, (once.z.sum(1) + once.z[:, 0]) / 5)


def test_what_was_not_measured_or_tells_nothing_apart_is_left_out(scores) -> None:
    gaps = {**scores, "dense": [np.nan, 0.1, 0.3, np.nan, 0.8], "same": [0.5] * 5, "none": [np.nan] * 5}
    found = zscore_ranking(NAMES, gaps)
    assert found.tasks == (*scores, "dense")
    known = zscore([0.1, 0.3, 0.8])
    np.testing.assert_allclose(found.z[[1, 2, 4], 4], known)
    assert found.mean[0] == pytest.approx(found.z[0, :4].mean())
    assert found.mean[1] == pytest.approx(found.z[1].mean())
    np.testing.assert_allclose(found.of_group(["t0", "dense"])[0], found.z[0, 0])
    assert np.isfinite(found.spearman[0, 4])
    assert len(zscore_ranking(["a", "b"], {"t": [np.nan, np.nan]}).tasks) == 0
