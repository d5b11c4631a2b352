from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rushlight.core.errors import UserError
from rushlight.jobs.claims import run as claims
from rushlight.jobs.claims.run import Claim, Effect

SOURCE = """
from rushlight.jobs.claims.run import Claim, Effect

def run(seed):
    if seed in {broken}:
        raise RuntimeError("power cut")
    return {{"gain": {value} + seed % 2, "other": -1.0 - seed, "accuracy": 50.0}}

CLAIM = Claim(id="toy", headline="h", data="d", baseline="b", metric="m", seeds=4, run=run,
              effects=(Effect("gain", "gains"), Effect("other", "other gains")))
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "family").mkdir()
    monkeypatch.setattr(claims, "folder", lambda: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "family" / "toy.py"
    path.write_text(SOURCE.format(value=5.0, broken=[]))
    return path


def test_a_claim_runs_over_fixed_seeds_into_the_ledger(toy: Path) -> None:
    seen: list[int] = []
    entry = claims.run("toy", workers=0, on_seed=lambda seed, outcome: seen.append(seed))
    assert seen == [0, 1, 2, 3]
    assert entry["verdict"] == "holds"
    assert [effect["verdict"] for effect in entry["effects"]] == ["holds", "fails"]
    assert entry["effects"][0]["values"] == [5.0, 6.0, 5.0, 6.0]
    assert entry["recorded"]["accuracy"] == [50.0] * 4
    assert claims.ledger() == {"toy": json.loads(json.dumps(entry))}


@pytest.mark.parametrize(("value", "verdict"), [(5.0, "holds"), (-6.0, "fails"), (-0.5, "unclear")])
def test_the_verdict_follows_from_the_interval(toy: Path, value: float, verdict: str) -> None:
    toy.write_text(SOURCE.format(value=value, broken=[]))
    assert claims.run("toy", workers=0)["verdict"] == verdict


def test_seeds_that_were_finished_are_not_run_again(toy: Path) -> None:
    """The kept seeds belong to one version of the claim's file, so the cut is made by the environment, not by it."""
    toy.write_text(
        SOURCE.format(value=5.0, broken="__import__('os').environ.get('BROKEN', '')").replace("seed in", "str(seed) in")
    )
    os.environ["BROKEN"] = "2"
    try:
        with pytest.raises(RuntimeError, match="power cut"):
            claims.run("toy", workers=0)
    finally:
        del os.environ["BROKEN"]
    assert claims.ledger() == {}
    kept = sorted(path.name for path in (toy.parents[1] / "cache" / "rushlight" / "claims").iterdir())
    assert len(kept) == 2
    again: list[int] = []
    claims.run("toy", workers=0, on_seed=lambda seed, outcome: again.append(seed))
    assert again == [0, 1, 2, 3]
    assert not list((toy.parents[1] / "cache" / "rushlight" / "claims").iterdir())


def test_kept_seeds_hold_for_one_version_of_the_claim_and_of_the_code(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = claims._kept("toy", 0)
    assert claims._kept("toy", 0) == first != claims._kept("toy", 1)
    toy.write_text(SOURCE.format(value=6.0, broken=[]))
    other = claims._kept("toy", 0)
    assert other != first
    monkeypatch.setattr(claims, "code", lambda: "another version")
    assert claims._kept("toy", 0) not in (first, other)


@pytest.mark.parametrize("change", ["content", "name", "new"])
def test_the_codes_hash_is_of_every_source_file(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    (package / "jobs" / "claims").mkdir(parents=True)
    monkeypatch.setattr(claims, "__file__", str(package / "jobs" / "claims" / "run.py"))
    (package / "a.py").write_text("x = 1\n")
    (package / "jobs" / "b.py").write_text("y = 1\n")
    measure = claims.code.__wrapped__
    before = measure()
    (package / "note.txt").write_text("no source")
    assert measure() == before
    if change == "content":
        (package / "jobs" / "b.py").write_text("y = 2\n")
    elif change == "name":
        (package / "jobs" / "b.py").rename(package / "jobs" / "c.py")
    else:
        (package / "jobs" / "claims" / "d.py").write_text("")
    assert measure() != before


def test_seeds_of_other_code_are_run_again(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims.run_seed("toy", 0)
    monkeypatch.setattr(claims, "load", lambda name: pytest.fail("a kept seed was run"))
    assert [seed for seed, _ in claims._outcomes("toy", 1, 0)] == [0]
    monkeypatch.setattr(claims, "code", lambda: "another version")
    with pytest.raises(pytest.fail.Exception, match="was run"):
        list(claims._outcomes("toy", 1, 0))


def test_a_margin_moves_the_claimed_side() -> None:
    claim = Claim(
        "x", "", "", "", "", (Effect("gain", "", margin=-2.0), Effect("gain", "", margin=2.0)), 3, lambda s: {}
    )
    outcomes = [{"gain": value} for value in (-0.1, 0.0, 0.1)]
    assert [effect.verdict for effect in claims.measure(claim, outcomes)] == ["holds", "fails"]


def test_fewer_than_three_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="three are the fewest"):
        Claim("x", "", "", "", "", (), 2, lambda s: {})


@pytest.mark.parametrize("name", claims.files())
def test_every_claim_says_beforehand_what_it_compares(name: str) -> None:
    claim = claims.load(name)
    assert claim.id == name
    assert claim.headline
    assert claim.data
    assert claim.baseline
    assert claim.metric
    assert claim.effects
    assert all(effect.says for effect in claim.effects)


@pytest.mark.parametrize("name", sorted(claims.ledger()))
def test_the_ledger_follows_from_its_own_values(name: str) -> None:
    """Means, intervals and verdicts are those of the recorded values: nothing was written by hand."""
    entry, claim = claims.ledger()[name], claims.load(name)
    outcomes = [
        {effect["name"]: effect["values"][seed] for effect in entry["effects"]} for seed in range(entry["seeds"])
    ]
    assert entry["seeds"] == claim.seeds
    assert entry["note"] == claim.note
    assert entry["verdict"] == entry["effects"][0]["verdict"]
    for effect, measured in zip(entry["effects"], claims.measure(claim, outcomes), strict=True):
        assert effect["verdict"] == measured.verdict
        assert [effect["mean"], effect["low"], effect["high"]] == pytest.approx(
            [measured.mean, measured.low, measured.high]
        )


def test_recorded_values_can_be_judged_again_by_a_stricter_order(toy: Path) -> None:
    before = claims.run("toy", workers=0)
    text = toy.read_text().replace(
        'Effect("gain", "gains"), Effect("other", "other gains")',
        'Effect("other", "other gains"), Effect("gain", "gains")',
    )
    toy.write_text(text.replace('metric="m"', 'metric="m", note="why"'))
    after = claims.judge_again("toy")
    assert (before["verdict"], after["verdict"], after["note"]) == ("holds", "fails", "why")
    assert sorted(map(str, after["effects"])) == sorted(map(str, before["effects"]))
    assert claims.ledger()["toy"] == json.loads(json.dumps(after))


def test_a_claim_that_is_none_is_said() -> None:
    with pytest.raises(UserError, match="there is no claim 'nonesuch'"):
        claims.load("nonesuch")
