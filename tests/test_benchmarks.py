"""Every benchmark starts, and those that reach into a training run."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
RUNS = {
    "throughput.py": ("--method", "barlow-twins", "--seconds", "30"),
    "pretrain.py": ("--methods", "simclr", "--seconds", "30"),
    "memory.py": ("--images", "400", "800", "--budget", "40", "--most", "1000"),
}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_tells_how_it_is_run(path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    monkeypatch.syspath_prepend(FOLDER)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "usage" in said
    assert path.name in said


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_benchmark_of_training_runs(name: str) -> None:
    done = subprocess.run([sys.executable, str(FOLDER / name), *RUNS[name]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 3
