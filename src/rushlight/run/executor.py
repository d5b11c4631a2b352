"""Executors: where jobs run. Local processes today (`run.worker_pool`); another machine's later, in one file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Executor(Protocol):
    """Something that runs jobs, in any order and place.

    A job is a function that can be imported and plain arguments; what it reads and writes lies in a `run.store.Store`,
    so that nothing else needs to be shared.
    """

    def map(
        self, job: Callable[..., T], jobs: Iterable[tuple[Any, ...]], *, on_idle: Callable[[], None] | None = None
    ) -> Iterator[T]:
        """Yield `job(*arguments)` for each of the jobs, as they are done.

        Args:
            on_idle: called about twice a second while jobs run.
        """
        ...
