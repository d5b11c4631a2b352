from __future__ import annotations

from operator import truediv  # a worker finds it however pytest was started

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
