from __future__ import annotations

import pytest
from hostile import save

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST
from rushlight.data.edit.split import hold_out
from rushlight.data.sources.read import from_arrays, load
from rushlight.jobs.look.run import look
from rushlight.present.dataset import blocks as facts


def folder_of(root, heading: str, patients: int = 6, each: int = 4):
    """Images of patients, and a table of their classes."""
    root.mkdir()
    rows = [f"image,class,{heading}"]
    for number in range(patients * each):
        save(root / f"{number:02}.png", seed=number)
        rows.append(f"{number:02}.png,{'ab'[number % 2]},p{number // each}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root


@pytest.mark.parametrize("heading", ["patient", "Patient_ID", "subject", "slide", "video", "site", "group"])
def test_a_column_that_is_called_so_keeps_rows_together(tmp_path, heading):
    data = load(folder_of(tmp_path / "d", heading), size=32, cache=False)
    assert data["group"].tolist() == [row // 4 for row in range(24)]
    assert data.info.group_names[:2] == ("p0", "p1")
    assert "tags" not in data
    assert f"'{heading}'" in data.info.settings["group"]
    split = hold_out(data, 0.3)
    for group in range(6):
        assert len(set(split["fold"][data["group"] == group].tolist())) == 1
    assert 4 <= int((split["fold"] == TEST).sum()) <= 12


def test_a_named_column_or_none(tmp_path):
    root = folder_of(tmp_path / "d", "batch_of_glass")
    assert "group" not in load(root, size=32, cache=False)
    assert load(root, size=32, cache=False, group="batch_of_glass")["group"].max() == 5
    with pytest.raises(UserError, match="no such column"):
        load(root, size=32, cache=False, group="batch")
    other = folder_of(tmp_path / "e", "patient")
    assert "group" not in load(other, size=32, cache=False, group="none")


def test_a_folder_without_a_table_has_no_groups(tmp_path):
    for name in ("a/1.png", "b/2.png"):
        save(tmp_path / name)
    with pytest.raises(UserError, match="--labels"):
        load(tmp_path, size=32, cache=False, group="patient")


def test_a_column_of_the_data_can_be_the_group():
    import numpy as np

    data = from_arrays(np.zeros((4, 8, 8), np.uint8), domain=[0, 0, 1, 1])
    assert load(data, group="domain")["group"].tolist() == [0, 0, 1, 1]
    with pytest.raises(UserError, match="no column"):
        load(data, group="patient")


@pytest.mark.parametrize("spelling", ["NaN", "nan", "NULL"])
@pytest.mark.parametrize(("column", "value"), [("class", "a"), ("tags", "a|b"), ("wet", "1"), ("domain", "x")])
def test_what_pandas_writes_for_nothing_is_unknown_and_told(tmp_path, column, value, spelling):
    for name in ("1.png", "2.png"):
        save(tmp_path / name)
    (tmp_path / "labels.csv").write_text(f"image,{column}\n1.png,{value}\n2.png,{spelling}\n")
    data = load(tmp_path, size=32, cache=False)
    assert data.known({"wet": "tags"}.get(column, column)).tolist() == [True, False]
    assert f"1 cell '{spelling}'" in data.info.settings["blanks"]
    assert any("read as blank" in said for said in look(data).warnings)


def test_look_and_a_report_name_the_column_of_the_groups(tmp_path):
    data = load(folder_of(tmp_path / "d", "patient"), size=32, cache=False)
    assert any("column 'patient': 6 groups" in said for said in look(data).warnings)
    assert "column 'patient': 6 groups" in facts(data)[0].info["groups"]
