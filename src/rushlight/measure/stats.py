"""How far a difference between two recipes can be trusted.

A score matrix holds one row a seed and one column a test image. Seeds and images are crossed: every seed's model
sees the same images, and seed s gives every recipe the same split and the same initial encoder. So a difference
``d = a - b`` varies for two reasons, another seed and another test image, and an honest interval covers both:

    d[s, i] = mean + seed[s] + image[i] + rest[s, i]
    Var(mean) = (MS_seed + MS_image - MS_rest) / (S I)                                 (two-way random effects)

With three to ten seeds only MS_seed is poorly known, on S - 1 degrees of freedom. Satterthwaite's t quantile then
covers a little too rarely when seeds dominate (92 % at three seeds), adding the two squared margins (Graybill and
Wang's modified large sample) a little too often (97.6 %); the mean of both margins stays within 94 to 97 %, and is
used. Seeds alone would cover 20 to 95 %. ``benchmarks/coverage.py`` measures this on correctness matrices.

Many comparisons (all pairs of recipes) need larger margins. With three seeds each pair's own variance is so poorly
known that honest margins would show nothing, so a pair takes the seeds' variance pooled over pairs, or its own where
that is larger. Pooling pretends that recipes vary alike; counting no more than three recipes' degrees of freedom
keeps false winners at 5 % where one recipe varies three times as much as the others.

Scores are fractions (0.83, not 83); a *point* is a hundredth of them.

References: Searle, Casella, McCulloch, Variance Components, 1992, ch. 4; Satterthwaite, Biometrics Bulletin 2, 1946;
Graybill and Wang, JASA 75, 1980; Hsu, Multiple Comparisons, 1996; Wilson, JASA 22, 1927.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import combinations
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

Scores = Float[np.ndarray, "seeds images"]
UNBOUNDED, SHARE = (-math.inf, math.inf), (0.0, 1.0)
"""The least and the greatest value of a metric."""


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval, standard error and (Satterthwaite's) degrees of freedom."""

    mean: float
    low: float
    high: float
    se: float
    df: float

    def __neg__(self) -> Interval:
        return Interval(-self.mean, -self.high, -self.low, self.se, self.df)

    def __contains__(self, value: float | int) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Ranking:
    """Recipes from the highest mean to the lowest, and which of them cannot be told from the best.

    `alone` holds each recipe's own interval; `gaps[a, b]` the simultaneous intervals of a - b for all pairs, a
    ranked above b; `gains[a]` those of a - reference (empty without a reference).
    """

    names: tuple[str, ...]
    best: tuple[str, ...]
    alone: Mapping[str, Interval]
    gaps: Mapping[tuple[str, str], Interval]
    gains: Mapping[str, Interval] = field(default_factory=dict)
    reference: str | None = None
    level: float = 0.95


def paired(a: Scores, b: Scores, *, level: float = 0.95) -> Interval:
    """Return the interval of the mean of ``a - b`` over seeds and test images, both varying.

    Rows are seeds and columns images (or blocks of images), the same in both. With one seed the interval covers
    other images only, with one column other seeds only: nothing else can be known from such data.

    Raises ValueError if the shapes differ, a score is not finite, or there is only one number.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"paired scores need equal shapes, not {np.shape(a)} and {np.shape(b)}")
    return _interval(_checked(a) - _checked(b), level)


def single(a: Scores, *, level: float = 0.95, bounds: tuple[float, float] = UNBOUNDED) -> Interval:
    """Return the interval of one recipe's mean over seeds and test images, both varying.

    Scores within [0, 1] get Wilson's form, which stays within [0, 1] and covers near its ends. Pseudo-values of a
    metric may lie outside of its `bounds`, and so may their interval: it is cut there, which leaves out no value that
    the metric can have, so that it covers as often as before.
    """
    a = _checked(a)
    plain = _interval(a, level)
    within = bounds in (UNBOUNDED, SHARE) and a.min() >= 0 and a.max() <= 1
    return _cut(_wilson(plain, images=a.shape[1], level=level) if within else plain, bounds)


def _cut(interval: Interval, bounds: tuple[float, float]) -> Interval:
    """Return the part of an interval that lies within bounds, widened to the mean where rounding puts it outside."""
    low, high = (min(max(end, bounds[0]), bounds[1]) for end in (interval.low, interval.high))
    return replace(interval, low=min(low, interval.mean), high=max(high, interval.mean))


def compare_with_best(
    scores: Mapping[str, Scores],
    *,
    level: float = 0.95,
    reference: str | None = None,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Ranking:
    """Rank recipes, and say which cannot be told from the best.

    A recipe leaves the set of the best when the simultaneous interval of some other recipe's lead over it lies
    above zero. The intervals hold together for all pairs (max-t with the correlation of the differences estimated
    from the scores), so a study of equals excludes any of them in at most 1 - level of studies.
    `reference` adds simultaneous intervals of each recipe's gain over it (Dunnett's comparison). Each recipe's own
    interval stays within the metric's `bounds` (see `single`); differences are compared as they are.

    Raises ValueError if shapes differ, fewer than one recipe is given, or the reference is not among them.
    """
    if not scores or len({np.shape(m) for m in scores.values()}) != 1:
        raise ValueError("a ranking needs score matrices of equal shape, one a recipe")
    if reference is not None and reference not in scores:
        raise ValueError(f"the reference {reference!r} is not among {sorted(scores)}")
    names = tuple(sorted(scores, key=lambda name: -float(np.mean(scores[name]))))
    stack = np.stack([_checked(scores[name]) for name in names])
    gaps = _simultaneous(names, stack, tuple(combinations(names, 2)), level)
    behind = {low for (_, low), gap in gaps.items() if gap.low > 0}
    versus = tuple((name, reference) for name in names if reference is not None and name != reference)
    gains = {a: gap for (a, _), gap in _simultaneous(names, stack, versus, level).items()}
    alone = {name: single(scores[name], level=level, bounds=bounds) for name in names}
    best = tuple(name for name in names if name not in behind)
    return Ranking(names, best, alone, gaps, gains, reference, level)


def pseudo_values(
    metric: Callable[[Any], float],
    parts: Sequence[Any] | np.ndarray,
    blocks: int | None = None,
    groups: Int[np.ndarray, " images"] | None = None,
) -> Float[np.ndarray, " blocks"]:
    """Turn a metric of a whole test set (mAP, mIoU) into one number per block of images, whose mean is the metric.

    ``metric`` maps a selection of `parts` (what is kept of each image: its confusion counts, its detections) to
    one number. Leaving out block j gives the jackknife's pseudo-value

        p[j] = h metric(all) - (h - 1) metric(all but j),    h = images / images of block j,

    and the p of different blocks are nearly independent with the metric's own variance, so that rows of them
    (one a seed) are score matrices for `paired` and `compare_with_best`. For a mean over images the pseudo-values
    of single images are the scores themselves. Image i falls in block i mod `blocks` (default: each alone);
    use the same blocks for all recipes and seeds, and 50 or more of them.

    Images of one group (a patient, a slide) are not independent: with `groups` a block is a group, or several where
    `blocks` asks for fewer. Blocks of different sizes count by their size: p[j] is drawn towards the metric by
    blocks / h, so that the mean of the p has the variance of the metric (for a mean over images: `by_group`).

    Reference: Busing, Meijer, van der Leeden, Statistics and Computing 9, 1999, equation 5 (delete-m jackknife).
    """
    block = blocks_of(len(parts), blocks, groups)
    without = np.array([metric(_select(parts, block != j)) for j in range(block.max() + 1)])
    return from_left_out(metric(parts), without, block, grouped=groups is not None)


def blocks_of(
    n: int, blocks: int | None = None, groups: Int[np.ndarray, " images"] | None = None
) -> Int[np.ndarray, " images"]:
    """Return the block of each of n images, as `pseudo_values` takes them.

    Raises ValueError if there are fewer than 2 blocks, or not an image (a group) for each.
    """
    unit = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(unit.max(initial=-1)) + 1
    count = min(blocks or units, units) if groups is not None else blocks or n
    if not 2 <= count <= units:
        what = "images" if groups is None else "groups"
        raise ValueError(f"{count} blocks of {units} {what}: need at least 2 blocks and one for each")
    return unit % count


def from_left_out(
    whole: float, without: Float[np.ndarray, " blocks"], block: Int[np.ndarray, " images"], *, grouped: bool = False
) -> Float[np.ndarray, " blocks"]:
    """Return pseudo-values from a metric of all images and the same without each block; see `pseudo_values`."""
    share = len(block) / np.bincount(block)
    values = share * whole - (share - 1) * without
    return whole + len(without) / share * (values - whole) if grouped else values


def by_group(
    values: Float[np.ndarray, "*seeds images"], groups: Int[np.ndarray, " images"]
) -> Float[np.ndarray, "*seeds groups"]:
    """Turn scores of images into one number per group (patient, slide, video), whose mean is the mean over images.

    Images of one group err together, so intervals over images are too narrow. With G groups, the j-th of m[j] images,

        v[j] = mean + G m[j] / n (mean of group j - mean),

    whose variance divided by G is the cluster-robust variance of the mean over images. Rows of v (one a seed) are score
    matrices for `single`, `paired` and `compare_with_best`.

    Reference: Cameron and Miller, Journal of Human Resources 50, 2015, section II.
    """
    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1
    mean = values.mean(-1, keepdims=True)
    belongs = np.eye(count)[group]  # images × groups
    # m[j] (mean of group j - mean) = Σ over its images (value - mean)
    return mean + count / len(group) * ((values - mean) @ belongs)


def claim_verdict(
    interval: Interval, direction: Literal["higher", "lower"] = "higher"
) -> Literal["holds", "unclear", "fails"]:
    """Return what an interval of a difference says of the claim that it is above (or below) zero, nothing else."""
    if direction not in ("higher", "lower"):
        raise ValueError(f"a claim's direction is 'higher' or 'lower', not {direction!r}")
    claimed = interval if direction == "higher" else -interval
    if claimed.low > 0:
        return "holds"
    return "fails" if claimed.high < 0 else "unclear"


# --- the crossed estimate; every function below takes leading batch dimensions ---


def _components(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the variance of the mean of (..., recipes, seeds, images): the seeds' part, the images' part, and what
    the rest has of it, as matrices (..., recipes, recipes). The seeds' part is on S - 1 degrees of freedom."""
    seeds, images = x.shape[-2:]
    centred = x - x.mean((-2, -1), keepdims=True)
    by_seed, by_image = centred.mean(-1), centred.mean(-2)
    ms_seed = _gram(by_seed) * (images / max(seeds - 1, 1))
    ms_image = _gram(by_image) * (seeds / max(images - 1, 1))
    rest = centred - by_seed[..., :, None] - by_image[..., None, :]
    ms_rest = _gram(rest.reshape(*rest.shape[:-2], -1)) / max((seeds - 1) * (images - 1), 1)
    return ms_seed / (seeds * images), (ms_image - ms_rest) / (seeds * images), ms_rest / (seeds * images)


def _gram(rows: np.ndarray) -> np.ndarray:
    return rows @ np.swapaxes(rows, -1, -2)


def _margin(
    seed: np.ndarray, image: np.ndarray, rest: np.ndarray, dfs: tuple[int, int], level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (margin, standard error, degrees of freedom) from a variance's two parts and their degrees of freedom.

    Where seeds agree by chance, both parts can be estimated as nothing at all; the variance is then the rest's part.
    """
    image = np.maximum(image, 0)
    image = np.where(seed + image > 1e-9 * rest, image, rest)
    total = seed + image
    share = seed / np.where(total > 0, total, 1) + (total <= 0)
    df = 1 / (share**2 / dfs[0] + (1 - share) ** 2 / dfs[1])
    t, t_seed, t_image = (stats.t.ppf((1 + level) / 2, of) for of in (df, *dfs))
    satterthwaite = t * np.sqrt(total)
    separate = np.sqrt(t_seed**2 * seed + t_image**2 * image)
    return (satterthwaite + separate) / 2, np.sqrt(total), df


def _freedom(x: np.ndarray, recipes: int = 2) -> tuple[int, int]:
    """Return the degrees of freedom of the seeds' and the images' part when the seeds' is pooled over recipes."""
    seeds, images = x.shape[-2:]
    return max(seeds - 1, 1) * min(recipes - 1, 3), max(images - 1, 1)


def _interval(x: np.ndarray, level: float) -> Interval:
    margin, se, df = (float(v[0, 0]) for v in _margin(*_components(x[None]), _freedom(x), level))
    mean = float(x.mean())
    return Interval(mean, mean - margin, mean + margin, se, df)


def _wilson(plain: Interval, *, images: int, level: float) -> Interval:
    """Return Wilson's interval with the number of independent images that would give the same standard error."""
    p, variance = plain.mean, plain.mean * (1 - plain.mean)
    n = variance / plain.se**2 if variance > 0 and plain.se > 0 else float(images)
    t = (plain.high - p) / plain.se if plain.se > 0 else float(stats.norm.ppf((1 + level) / 2))
    centre = (p + t**2 / (2 * n)) / (1 + t**2 / n)
    half = t / (1 + t**2 / n) * np.sqrt(variance / n + t**2 / (4 * n**2))
    low, high = float(min(p, centre - half)), float(max(p, centre + half))
    return Interval(p, max(low, 0.0), min(high, 1.0), plain.se, plain.df)


def _simultaneous(
    names: tuple[str, ...], stack: np.ndarray, pairs: tuple[tuple[str, str], ...], level: float
) -> dict[tuple[str, str], Interval]:
    """Return intervals of the pairs' differences that all hold together with probability `level`."""
    if not pairs:
        return {}
    means = stack.mean((-2, -1))
    contrast = np.array([[(n == a) - (n == b) for n in names] for a, b in pairs], dtype=float)
    margin, se, df = _margins(*_components(stack), contrast, _freedom(stack, len(names)), level)
    gaps = contrast @ means
    return {
        pair: Interval(float(g), float(g - m), float(g + m), float(s), float(d))
        for pair, g, m, s, d in zip(pairs, gaps, margin, se, df)
    }


def _margins(
    seed: np.ndarray, image: np.ndarray, rest: np.ndarray, contrast: np.ndarray, dfs: tuple[int, int], level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return margins of several differences that hold together, the seeds' variance pooled over pairs of recipes."""
    recipes = len(seed)
    pooled = (np.trace(seed) - seed.sum() / recipes) / max(recipes - 1, 1)
    together = _each_level(image + pooled * np.eye(recipes), contrast, level)
    own, image, rest = (np.diag(contrast @ part @ contrast.T) for part in (seed, image, rest))
    return _margin(np.maximum(own, 2 * pooled), image, rest, dfs, together)


def _each_level(covariance: np.ndarray, contrast: np.ndarray, level: float) -> float:
    """Return the level at which each contrast's interval must be drawn for all of them to hold at `level` (max-t)."""
    values, vectors = np.linalg.eigh(covariance)
    root = contrast @ (vectors * np.sqrt(np.maximum(values, 0)))
    sd = np.sqrt(np.sum(root**2, -1))
    z = np.abs(_normals(len(covariance)) @ (root / np.where(sd > 0, sd, 1)[:, None]).T)
    return float(max(level, 1 - 2 * stats.norm.sf(np.quantile(z.max(-1), level))))


@lru_cache(maxsize=16)
def _normals(dimensions: int) -> np.ndarray:
    """Return fixed draws, so that equal scores always have equal intervals."""
    return np.random.default_rng(0).standard_normal((20_000, dimensions))


def _checked(a: np.ndarray) -> np.ndarray:
    a = np.asarray(a, dtype=np.float64)
    if a.ndim != 2 or a.size < 2 or not np.isfinite(a).all():
        raise ValueError(f"scores must be a finite matrix of seeds by images, two numbers at least, not {a.shape}")
    return a


def _select(parts: Any, keep: np.ndarray) -> Any:
    return parts[keep] if isinstance(parts, np.ndarray) else [p for p, k in zip(parts, keep) if k]


def over_seeds(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the mean and Student's interval of paired differences over seeds; its ends are NaN for fewer than two."""
    from scipy.stats import t

    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.nan, math.nan
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * error
    return mean, mean - half, mean + half
