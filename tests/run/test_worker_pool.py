from __future__ import annotations

import subprocess
import sys
from operator import truediv  # a worker finds it however pytest was started
from pathlib import Path

import pytest

from rushlight.run.executor import Executor
from rushlight.run.worker_pool import WorkerPool, workers_for


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_jobs_are_done_wherever_they_run(workers: int) -> None:
    executor: Executor = WorkerPool(workers)
    assert sorted(executor.map(truediv, [(number, 2) for number in range(5)])) == [0, 0.5, 1, 1.5, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_job_that_fails_is_heard_of(workers: int) -> None:
    with pytest.raises(ZeroDivisionError):
        list(WorkerPool(workers).map(truediv, [(1, 0)]))


def test_a_gpu_is_shared_by_one_and_cores_by_all() -> None:
    assert workers_for(None, "cuda") == 1
    assert workers_for(None) >= 1
    assert workers_for(-3) == 0


@pytest.mark.slow
def test_a_script_is_not_run_again_by_its_workers(tmp_path: Path) -> None:
    """The script of the README has no `if __name__ == "__main__":`."""
    script = tmp_path / "script.py"
    script.write_text(
        "from operator import truediv\n"
        "from rushlight.run.worker_pool import WorkerPool\n"
        "open('ran', 'a').write('once\\n')\n"
        "print(sorted(WorkerPool(2).map(truediv, [(1, 1), (4, 2)])), __file__)\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == f"[1.0, 2.0] {script}\n", done.stderr
    assert (tmp_path / "ran").read_text() == "once\n"
