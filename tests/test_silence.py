"""With data present, nothing opens a socket; and starting up imports nothing heavy."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rushlight
from rushlight.data.dataset import Dataset


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every way to a network raise."""

    def shut(*arguments: object, **settings: object) -> None:
        raise AssertionError(f"a socket was opened: {arguments}")

    for name in ("connect", "connect_ex", "sendto", "bind", "listen"):
        monkeypatch.setattr(socket.socket, name, shut)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, shut)


@pytest.mark.usefixtures("no_network")
def test_no_socket_is_opened(photos: Dataset, tmp_path: Path) -> None:
    """Look, compare, fit, predict, audit and export, in this process, where the trap can see them."""
    rushlight.look("fashion")
    board = rushlight.compare(
        photos, ["supervised", "barlow-twins > supervised"], budget="300", seeds=1, workers=0, out=tmp_path / "board"
    )
    assert not any(result.failed for result in board.results)
    model = rushlight.fit(photos, "supervised", budget=300, out=tmp_path / "model")
    assert len(rushlight.predict(model, photos.fold(1))) == 300
    assert rushlight.audit(model, photos.fold(1).select(torch.arange(60)), out=tmp_path / "audit").findings
    assert rushlight.export(model, tmp_path / "model.onnx") < 1e-4
    with pytest.raises(AssertionError, match="a socket was opened"):  # the trap itself works
        socket.create_connection(("localhost", 9))


@pytest.mark.parametrize("statement", ["import rushlight", "import rushlight.cli"])
def test_starting_up_imports_nothing_heavy(statement: str) -> None:
    code = f"{statement}; import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


HEAVY = ("torch", "lightning_fabric", "pandas", "matplotlib", "scipy", "sklearn", "timm", "tensordict")
