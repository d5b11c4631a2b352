"""Kinds of column that an installed package adds."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import torch

from rushlight.data import columns
from rushlight.data.columns.base import Kind

SPECTRA = (Kind("spectrum", torch.float32, ("B",), "never", label=False, input=True),)


def test_a_package_adds_kinds(monkeypatch):
    entry = EntryPoint("spectra", f"{__name__}:SPECTRA", columns.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: SPECTRA)
    monkeypatch.setattr(columns, "entry_points", lambda group: [entry] if group == columns.GROUP else [])
    assert [kind.name for kind in columns.installed()] == ["spectrum"]


def test_every_own_kind_is_in_its_file_once():
    names = [kind.name for module in columns.OWN for kind in module.KINDS]
    assert len(set(names)) == len(names)
    assert set(names) <= set(columns.KINDS)
