"""A comparison killed at random instants loses no finished trial, and ends with the bits of an unbroken one.

`pytest tests/test_kill.py --kills 100` kills more often.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rushlight.data.dataset import Dataset
from rushlight.jobs.compare.run import compare
from rushlight.jobs.rank_encoders import run as unlabelled
from rushlight.run import trial

RECIPES = ["supervised", "barlow-twins > fixmatch"]
METHODS = ["barlow-twins(batch=32)", "simclr(batch=32)"]


def brief(data: Path, out: Path, workers: int) -> None:
    """A short comparison, for every run of the tests."""
    trial.run = functools.partial(trial.run, checkpoint_seconds=0.1)
    compare(Dataset.open(data), ["supervised"], budget="400", seeds=1, out=out, workers=workers)


def work(data: Path, out: Path, workers: int) -> None:
    """The comparison under test; it keeps a checkpoint five times a second."""
    trial.run = functools.partial(trial.run, checkpoint_seconds=0.2)
    compare(Dataset.open(data), RECIPES, budget="2k", seeds=2, out=out, workers=workers)


def work_without_labels(data: Path, out: Path, workers: int) -> None:
    """The same for encoders that are ranked without labels."""
    unlabelled.run = functools.partial(unlabelled.run, checkpoint_seconds=0.2)
    unlabelled.rank_encoders(Dataset.open(data), METHODS, budget="1k", seeds=2, out=out, workers=workers)


def forked(job: Callable[[Path, Path, int], None], data: Path, out: Path) -> int:
    """The comparison in a child of this process (which has everything imported), and the child's number."""
    child = os.fork()
    if child:
        return child
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        job(data, out, 0)
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def wait(child: int, seconds: float) -> int | None:
    """The child's exit status, or None if it is still running after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def finished(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "trials").glob("*.safetensors"))}


def models(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted((out / "models").glob("[!.]*/model.safetensors"))}


def same(one: Path, other: Path, trials: int) -> None:
    assert finished(one) == finished(other)
    assert len(finished(one)) == trials
    assert models(one) == models(other)
    assert not list((one / "work").iterdir())


@pytest.mark.parametrize(
    ("job", "share", "trials"),
    [
        (brief, 0.05, 2),  # fixmatch runs beside supervised
        pytest.param(work, 1.0, 6, marks=pytest.mark.slow),  # fixmatch beside two recipes, two seeds
        pytest.param(work_without_labels, 0.25, 6, marks=pytest.mark.slow),  # the untrained encoder beside two methods
    ],
)
def test_kills(
    job: Callable[[Path, Path, int], None],
    share: float,
    trials: int,
    photos: Dataset,
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    kills, rng = max(round(share * pytestconfig.getoption("--kills")), 1), random.Random(0)
    photos.save(tmp_path / "data")
    began = time.monotonic()
    assert wait(forked(job, tmp_path / "data", tmp_path / "whole"), 300) == 0
    length, survived, killed = time.monotonic() - began, {}, 0
    while killed < kills:
        child = forked(job, tmp_path / "data", tmp_path / "broken")
        status = wait(child, rng.uniform(0.02, min(3 / kills + 0.15, 0.9)) * length)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            killed += 1
        now = finished(tmp_path / "broken")
        assert survived.items() <= now.items(), "a finished trial was lost or changed"
        survived = now
        if status is not None:  # it got through: begin again, so that every kill hits something
            assert status == 0
            same(tmp_path / "broken", tmp_path / "whole", trials)
            (tmp_path / "broken").rename(tmp_path / f"through-{killed}")
            survived = {}
    assert wait(forked(job, tmp_path / "data", tmp_path / "broken"), 300) == 0
    same(tmp_path / "broken", tmp_path / "whole", trials)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_kill import work
if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]), workers=2)
"""


@pytest.mark.slow
def test_a_killed_parent_takes_its_workers_with_it_and_the_next_goes_on(photos: Dataset, tmp_path: Path) -> None:
    photos.save(tmp_path / "data")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(Path(__file__).parent)))
    command = [sys.executable, "-W", "ignore", str(script), str(tmp_path / "data"), str(tmp_path / "out")]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("out/work/*/progress.json")) and first.poll() is None:
        time.sleep(0.05)
    first.kill()
    first.wait()
    time.sleep(1.5)
    left = subprocess.run(["pgrep", "-f", str(tmp_path / "out")], capture_output=True, text=True, check=False).stdout
    assert left == ""
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert len(finished(tmp_path / "out")) == 6
