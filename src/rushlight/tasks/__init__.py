"""Tasks: what is predicted. Each is one file, found by the entry-point group `rushlight.tasks`."""

from __future__ import annotations

from rushlight.tasks.base import Metric, Task
from rushlight.tasks.registry import all, chosen, find, names, of

__all__ = ["Metric", "Task", "all", "chosen", "find", "names", "of"]
