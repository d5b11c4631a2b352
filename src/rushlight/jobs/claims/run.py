"""The ledger of claims: for each paper, a small experiment that anyone can run again, and what came out.

A claim is a file `claims/<family>/<id>.py` that holds a `Claim`. It says beforehand what is compared, on what data,
by which metric, in which direction and with how many seeds (0 … n − 1). Its `run(seed)` gives each effect's paired
difference. The verdict follows from the interval over seeds and from nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rushlight._version import VERSION
from rushlight.core.errors import UserError, nearest
from rushlight.measure import stats

Verdict = Literal["holds", "unclear", "fails"]


@dataclass(frozen=True)
class Effect:
    """One paired difference that the claim speaks of; it is claimed to be greater than `margin`.

    Attributes:
        name: a short name. says: the claimed sentence, in words.
        margin: the difference lies on the claimed side above this.
        unit: of the difference, such as `points` (of 100) or `ratio`.
    """

    name: str
    says: str
    margin: float = 0.0
    unit: str = "points"


@dataclass(frozen=True)
class Claim:
    """A small experiment about a paper's headline effect.

    Attributes:
        id: of the method. headline: what the paper says, with its figures.
        data, baseline, metric: in words, fixed before the run.
        effects: the first one decides the claim's verdict; the others stand beside it.
        seeds: how many; they are 0 … seeds − 1.
        run: a seed → {effect name: difference, …}; further keys are recorded, and not judged.
        note: why it is unclear or fails, or what the reader must know.
    """

    id: str
    headline: str
    data: str
    baseline: str
    metric: str
    effects: tuple[Effect, ...]
    seeds: int
    run: Callable[[int], dict[str, float]] = field(repr=False, compare=False)
    note: str = ""

    def __post_init__(self) -> None:
        if self.seeds < 3:
            raise ValueError(f"the claim '{self.id}' has {self.seeds} seeds: three are the fewest")


@dataclass(frozen=True)
class Measured:
    """An effect as it was measured: mean and 95 % interval over seeds, and the verdict."""

    name: str
    says: str
    unit: str
    margin: float
    mean: float
    low: float
    high: float
    verdict: Verdict
    values: list[float]


def folder() -> Path:
    """Return the folder of the claims: in the checkout, or in the installed package."""
    packaged = Path(__file__).parents[2] / "claims"
    return packaged if packaged.is_dir() else Path(__file__).parents[4] / "claims"


def files() -> dict[str, Path]:
    """Return every claim's file by its method's id."""
    found = sorted(folder().glob("*/*.py"))
    return {path.stem.replace("_", "-"): path for path in found if not path.name.startswith("_")}


def load(name: str) -> Claim:
    """Return the claim of a method.

    Raises:
        UserError: there is none (the nearest is suggested).
    """
    known = files()
    if name not in known:
        raise UserError(f"there is no claim '{name}'.{nearest(name, known)} `rushlight claims` lists all of them.")
    specification = importlib.util.spec_from_file_location(f"rushlight_claim_{known[name].stem}", known[name])
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module.CLAIM


def measure(claim: Claim, outcomes: list[dict[str, float]]) -> list[Measured]:
    """Return each effect's mean, interval and verdict from the seeds' outcomes."""
    return [_measure(effect, [float(outcome[effect.name]) for outcome in outcomes]) for effect in claim.effects]


def _measure(effect: Effect, values: list[float]) -> Measured:
    column = np.array(values)[:, None]
    found = stats.paired(column, np.zeros_like(column))
    verdict = stats.claim_verdict(stats.paired(column, np.full_like(column, effect.margin)))
    interval = (found.mean, found.low, found.high)
    return Measured(effect.name, effect.says, effect.unit, effect.margin, *interval, verdict, values)


def run(
    name: str, *, workers: int | None = None, on_seed: Callable[[int, dict[str, float]], None] | None = None
) -> dict[str, Any]:
    """Run a claim over all its seeds, write its entry into the ledger, and return the entry.

    Seeds that a killed run had finished are not run again.
    """
    from rushlight.run.worker_pool import workers_for

    claim, started = load(name), time.monotonic()
    outcomes: dict[int, dict[str, float]] = {}
    for seed, outcome in _outcomes(name, claim.seeds, workers_for(workers)):
        outcomes[seed] = outcome
        if on_seed is not None:
            on_seed(seed, outcome)
    entry = _entry(claim, [outcomes[seed] for seed in range(claim.seeds)], time.monotonic() - started)
    write(name, entry)
    for seed in range(claim.seeds):
        _kept(name, seed).unlink(missing_ok=True)
    return entry


def _outcomes(name: str, seeds: int, workers: int) -> Iterator[tuple[int, dict[str, float]]]:
    from rushlight.run.worker_pool import WorkerPool

    kept = {seed: json.loads(path.read_text()) for seed in range(seeds) if (path := _kept(name, seed)).exists()}
    yield from kept.items()
    left = [seed for seed in range(seeds) if seed not in kept]
    if left:
        yield from WorkerPool(workers).map(run_seed, [(name, seed) for seed in left])


def run_seed(name: str, seed: int) -> tuple[int, dict[str, float]]:
    """Run one seed of a claim; its outcome is kept until the whole claim has run."""
    from rushlight.core.files import write_whole

    started = time.monotonic()
    outcome = {key: float(value) for key, value in load(name).run(seed).items()}
    outcome["minutes"] = (time.monotonic() - started) / 60
    write_whole(_kept(name, seed), json.dumps(outcome).encode())
    return seed, outcome


def _kept(name: str, seed: int) -> Path:
    """Return a finished seed's file; it is valid for one version of the claim's file and of this package's code."""
    import hashlib

    import platformdirs

    version = hashlib.sha256(files()[name].read_bytes() + code().encode()).hexdigest()[:12]
    return Path(platformdirs.user_cache_dir("rushlight")) / "claims" / f"{name}-{version}-{seed}.json"


@cache
def code() -> str:
    """Return a hash of every source file of this package, on which a claim's outcome depends."""
    import hashlib

    package, found = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        found.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes())
    return found.hexdigest()


def _entry(claim: Claim, outcomes: list[dict[str, float]], seconds: float) -> dict[str, Any]:
    from rushlight.run.trial import machine

    effects = [asdict(effect) for effect in measure(claim, outcomes)]
    recorded = {key: [round(o[key], 5) for o in outcomes] for key in outcomes[0]}
    return {
        "verdict": effects[0]["verdict"],
        "headline": claim.headline,
        "data": claim.data,
        "baseline": claim.baseline,
        "metric": claim.metric,
        "seeds": claim.seeds,
        "effects": effects,
        "recorded": {k: v for k, v in recorded.items() if k not in {e["name"] for e in effects}},
        "minutes": round(sum(o["minutes"] for o in outcomes), 2),
        "elapsed_minutes": round(seconds / 60, 2),
        "note": claim.note,
        "version": VERSION,
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "command": f"rushlight claims run {claim.id}",
    }


def judge_again(name: str) -> dict[str, Any]:
    """Judge the recorded values of a claim once more, by the claim as it stands now, without running anything.

    For a note that was written after the run, or an order of effects that makes the verdict stricter.

    Raises:
        UserError: the claim has no entry in the ledger.
    """
    claim, entries = load(name), ledger()
    if name not in entries:
        raise UserError(f"the claim '{name}' has not been run: rushlight claims run {name}")
    entry = entries[name]
    values = {**entry["recorded"], **{effect["name"]: effect["values"] for effect in entry["effects"]}}
    outcomes = [{key: column[seed] for key, column in values.items()} for seed in range(entry["seeds"])]
    effects = [asdict(effect) for effect in measure(claim, outcomes)]
    entry = {**entry, "effects": effects, "verdict": effects[0]["verdict"], "note": claim.note}
    write(name, entry)
    return entry


def ledger() -> dict[str, dict[str, Any]]:
    """Return every entry of the ledger by the method's id."""
    path = folder() / "ledger.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(name: str, entry: dict[str, Any]) -> None:
    """Put one entry into the ledger; the file is replaced whole, under a lock."""
    from filelock import FileLock

    from rushlight.core.files import write_whole

    path = folder() / "ledger.json"
    with FileLock(path.with_suffix(".lock")):
        entries = {**ledger(), name: entry}
        write_whole(path, (json.dumps(dict(sorted(entries.items())), indent=1, ensure_ascii=False) + "\n").encode())
