from __future__ import annotations

import rushlight


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
