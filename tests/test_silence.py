"""With data present, nothing opens a socket; and starting up imports nothing heavy."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
import torch

import rushlight
from rushlight.data.dataset import Dataset


def test_no_socket_is_opened(photos: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Load, look, fit, predict, audit and export, with every way to a network shut."""

    def shut(*arguments: object, **settings: object) -> None:
        raise AssertionError(f"a socket was opened: {arguments}")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, shut)
    monkeypatch.setattr(socket, "getaddrinfo", shut)
    monkeypatch.setattr(socket, "create_connection", shut)
    rushlight.look("fashion")
    model = rushlight.fit(photos.fold(0), "supervised", budget=300, out=tmp_path / "model")
    assert len(rushlight.predict(model, photos.fold(1))) == 300
    assert rushlight.audit(model, photos.fold(1).select(torch.arange(60)), out=tmp_path / "audit").findings
    with pytest.raises(AssertionError, match="a socket was opened"):  # the trap itself works
        socket.create_connection(("localhost", 9))


@pytest.mark.parametrize("statement", ["import rushlight", "import rushlight.cli"])
def test_starting_up_imports_nothing_heavy(statement: str) -> None:
    code = f"{statement}; import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


HEAVY = ("torch", "lightning_fabric", "pandas", "matplotlib", "scipy", "sklearn", "timm", "tensordict")
