"""Which tasks there are, read from the entry points of the group `rushlight.tasks`."""

from __future__ import annotations

from functools import cache

from rushlight.core.entries import TASKS as GROUP
from rushlight.core.entries import entries
from rushlight.core.errors import UserError, nearest
from rushlight.data.dataset import Dataset
from rushlight.tasks.base import Task


def names() -> tuple[str, ...]:
    """Return the ids of all tasks."""
    return tuple(entries(GROUP))


@cache
def find(name: str) -> Task:
    """Return the task with this id.

    Raises:
        UserError: there is none; the nearest id is suggested.
    """
    if not entries(GROUP):
        raise UserError("no task is installed: install rushlight again, since its entry points have changed")
    if name not in entries(GROUP):
        raise UserError(f"there is no task '{name}', only {', '.join(names())}.{nearest(name, names())}")
    return entries(GROUP)[name].load()()


@cache
def all() -> tuple[Task, ...]:
    """Return all tasks, the one that is tried first at the front."""
    return tuple(sorted((find(name) for name in names()), key=lambda task: (task.place, task.id)))


def of(data: Dataset) -> Task | None:
    """Return the task of the labels: the first of `all` whose column has any known value."""
    return next((task for task in all() if data.known(task.column).any()), None)


def chosen(data: Dataset, name: str | None = None) -> str | None:
    """Return the id of the named task, or of the labels' task; None where no label is known.

    Raises:
        UserError: there is no task of this name.
    """
    found = of(data) if name is None else find(name)
    return found.id if found else None
