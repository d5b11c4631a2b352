from __future__ import annotations

from pathlib import Path

import pytest

import rushlight
from rushlight.cli.app import app
from rushlight.core.errors import UserError


def test_the_catalogue_and_the_ledger_show_themselves() -> None:
    from rich.console import Console

    console = Console(width=160, record=True)
    console.print(rushlight.catalogue())
    console.print(rushlight.claims())
    shown = console.export_text()
    assert "iomatch" in shown
    assert "barlow-twins" in rushlight.catalogue()._repr_html_()
    assert len(rushlight.catalogue().to_pandas()) >= 13
    assert rushlight.catalogue("rankme").role == "judge"


@pytest.mark.parametrize("job", ["fit", "audit", "judge", "curate", "export", "compare", "predict"])
def test_a_place_that_is_a_file_ends_a_job_before_its_work(job: str, tmp_path: Path) -> None:
    """The data and the model are not there either: the place is looked at first."""
    (tmp_path / "file").write_bytes(b"")
    place = str(tmp_path / "file") if job != "predict" else str(tmp_path / "file" / "table.csv")
    words = {
        "fit": ["nowhere", "supervised"],
        "audit": ["nowhere", "nowhere"],
        "judge": ["rankme", "nowhere"],
        "curate": ["nowhere", "pass(cap=1)"],
        "export": ["nowhere"],
        "compare": ["nowhere"],
        "predict": ["nowhere", "nowhere"],
    }
    place = str(tmp_path / "file" / "model.onnx") if job == "export" else place
    with pytest.raises(UserError, match=r"is a file"):
        app([job, *words[job], "--out", place], standalone_mode=False)
