"""What packages add to this one: the entry points of a group, unloaded."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

METHODS, TASKS, ENCODERS = "rushlight.methods", "rushlight.tasks", "rushlight.encoders"


@cache
def entries(group: str) -> dict[str, EntryPoint]:
    """Return a group's entry points by name."""
    return {entry.name: entry for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)}
