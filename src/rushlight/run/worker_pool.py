"""Jobs side by side on this machine: one process a core, one thread a process.

Two single-threaded trainings do more images a second than one with two threads, and one thread makes bits repeatable.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from rushlight.run import hardware

T = TypeVar("T")


def workers_for(workers: int | None, device: str = "cpu") -> int:
    """Return how many processes to use: one per core, one where a GPU is shared; 0 is this process itself."""
    if workers is not None:
        return max(workers, 0)
    return hardware.cores() if device == "cpu" else 1


class WorkerPool:
    """An executor of processes on this machine.

    Args:
        workers: how many; 0 runs the jobs in this process, one after the other.
    """

    def __init__(self, workers: int):
        self.workers = workers

    def map(
        self, job: Callable[..., T], jobs: Iterable[tuple[Any, ...]], *, on_idle: Callable[[], None] | None = None
    ) -> Iterator[T]:
        """Yield `job(*arguments)` for each of the jobs, as they are done.

        If one fails, the others that have begun are finished before the error is raised. When this process dies, the
        workers end by themselves.
        """
        jobs = list(jobs)
        if self.workers == 0:
            yield from (job(*each) for each in jobs)
            return
        with ProcessPoolExecutor(
            max_workers=min(self.workers, len(jobs)) or 1,
            mp_context=_context(),
            initializer=_settle,
            initargs=(os.getpid(), hardware.cores() if self.workers == 1 else 1),
        ) as executor:
            with _unimported(job):  # this is where processes are started
                waiting = {executor.submit(job, *each) for each in jobs}
            try:
                while waiting:
                    done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                    if on_idle is not None:
                        on_idle()
                    yield from (future.result() for future in done)
            finally:
                for future in waiting:
                    future.cancel()


@contextmanager
def _unimported(job: Callable[..., Any]) -> Iterator[None]:
    """Keep the processes that are started from importing the user's script again, which would run it once more.

    `multiprocessing.spawn.get_preparation_data` finds the script by these two; jobs are functions of modules.
    """
    main = sys.modules["__main__"]
    named = {"__spec__", "__file__"} & vars(main).keys() if job.__module__ != "__main__" else set()
    hidden = {name: getattr(main, name) for name in named}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


def _context() -> multiprocessing.context.BaseContext:
    """Return the workers' context: on Linux a server process that has imported everything and is forked for each."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rushlight.run.trial", "rushlight.augment.presets"])
    return context


def _settle(parent: int, threads: int) -> None:
    """Set a worker up: few threads, and an end when the parent has ended."""
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while _alive(parent):
        time.sleep(0.5)
    os._exit(1)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
