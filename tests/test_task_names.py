"""Nothing but a task asks which task it is: their names are strings in few places.

    python tests/test_task_names.py [SRC]        print where they still are

The data floor is not looked at: there `class`, `tags`, … are names of columns.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "rushlight"
NAMES = {"class", "tags", "mask", "boxes", "keypoints"}
HOMES = ("tasks/", "data/", "methods/")
EXCEPTIONS = {
    "jobs/claims/members.py": "one protocol on the embedded photos, whose column it names",
    "run/context.py": "the default of a context that is made by hand",
    "run/stage.py": "the default of a context that is made by hand",
    "run/trial.py": "the default of a trial that is made by hand",
}


def named(source: Path) -> dict[str, list[int]]:
    """Return the lines of each file that hold a task's name as a string."""
    found = {}
    for file in sorted(source.rglob("*.py")):
        place = file.relative_to(source).as_posix()
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        lines = sorted(node.lineno for node in nodes if isinstance(node, ast.Constant) and node.value in NAMES)
        if lines and not place.startswith(HOMES):
            found[place] = lines
    return found


def test_tasks_are_named_where_they_are_made():
    strangers = {place: lines for place, lines in named(SOURCE).items() if place not in EXCEPTIONS}
    assert not strangers


if __name__ == "__main__":
    where = named(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE)
    print(f"{sum(map(len, where.values()))} names in {len(where)} files")
    for path, numbers in where.items():
        print(f"{path}: {', '.join(map(str, numbers))}")
