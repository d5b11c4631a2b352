"""Nothing but a task asks which task it is: their names are strings in few places.

    python tests/test_task_names.py [SRC]        print where they still are

On the data floor they are names of columns too: the kinds themselves stand in `data/columns/`, and what reads or writes
a format may name the columns that it fills.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "rushlight"
NAMES = {"class", "tags", "mask", "boxes", "keypoints"}
HOMES = ("tasks/", "data/columns/", "methods/")
EXCEPTIONS = {
    "data/edit/hide.py": "takes labels away as one kind of them is written: positives of tags, classes left out",
    "data/pack/plan.py": "what a raster is called, in a message, where it has no file",
    "data/pack/shapes.py": "lays COCO's boxes and keypoints on the canvas",
    "data/pack/write.py": "lays masks and painted regions on the canvas; 0 and 255 are a format of masks",
    "data/sources/arrays.py": "arrays of one or two axes are classes or tags",
    "data/sources/coco.py": "COCO's own field `keypoints`",
    "data/sources/folder.py": "names of label files; folders that are classes",
    "data/sources/huggingface.py": "features of the Hub's library are classes or tags",
    "data/sources/join.py": "columns of a table are classes or tags",
    "data/sources/masks.py": "names of folders of masks",
    "data/synthetic/fashion.py": "a data set's own columns",
    "data/synthetic/figures.py": "a data set's own columns",
    "data/synthetic/graph.py": "a data set's own columns",
    "data/synthetic/points.py": "a data set's own columns",
    "data/synthetic/scenes/config.py": "a data set's own columns",
    "data/synthetic/scenes/materials.py": "a data set's own columns",
    "data/synthetic/scenes/paint.py": "a data set's own columns",
    "data/synthetic/tissue.py": "a data set's own columns",
}
"""Files that may name columns that are tasks' too, and why."""


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


def test_exceptions_are_needed():
    stale = EXCEPTIONS.keys() - named(SOURCE).keys()
    assert not stale, "these name no task any more"


if __name__ == "__main__":
    where = named(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE)
    print(f"{sum(map(len, where.values()))} names in {len(where)} files")
    for path, numbers in where.items():
        print(f"{path}: {', '.join(map(str, numbers))}")
