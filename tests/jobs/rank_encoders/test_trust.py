"""How far an order without labels can be trusted: what the ledger measured."""

from __future__ import annotations

import pytest

from rushlight.core.errors import UserError
from rushlight.jobs.claims import run as claims
from rushlight.jobs.rank_encoders import trust as trusting


def test_the_judge_is_the_one_whose_card_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trusting.signals().card.serves == "signals"
    monkeypatch.setattr(trusting, "serving", lambda service: [])
    with pytest.raises(UserError, match="serves='signals'"):
        trusting.signals()


def test_trust_is_what_the_ledger_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "ledger", dict)
    assert "has not been measured" in trusting.trust()
    effects = [{"name": "order", "mean": 0.61, "low": 0.4, "high": 0.8}, {"name": "saved", "mean": 0.7}]
    entry = {"effects": effects, "seeds": 3, "recorded": {"models": [16, 16, 16]}}
    monkeypatch.setattr(claims, "ledger", lambda: {"label-free": entry})
    assert "over 16 small encoders" in trusting.trust()
    assert "ρ = 0.61 (0.40 … 0.80, 3 seeds)" in trusting.trust()
    assert "cost 1.3 points" in trusting.trust()
