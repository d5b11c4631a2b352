from __future__ import annotations

import json

import pytest

from rushlight.nets.heads import MLP, Chain, Linear, describe, rebuild


@pytest.mark.parametrize(
    "kind",
    [
        "os:system",
        "rushlight.nets.heads:os",
        "rushlight.nets.encoders:Encoder",
        "rushlight.run.model:Model",
        "rushlight.cli.app:app",
        "rushlight.netsx:Head",
        "x",
    ],
)
def test_a_description_builds_heads_alone(kind: str) -> None:
    with pytest.raises(ValueError, match="no head"):
        rebuild({"kind": kind})


def test_heads_of_methods_are_built_too() -> None:
    described = {"kind": "rushlight.methods.labels.pu_mlc.decoupling:Decoupling", "width": 4, "outputs": 3}
    head = rebuild(described)
    assert head.reads == "maps"
    assert describe(head).items() >= described.items()


def test_descriptions_are_plain_json() -> None:
    described = json.loads(json.dumps(describe(Chain(MLP(widths=[4, 3, 2]), Linear(width=2, outputs=2)))))
    assert describe(rebuild(described)) == described


def test_what_a_head_reads_is_described_where_it_was_chosen() -> None:
    assert "reads" not in describe(Linear(width=2, outputs=2))
    described = json.loads(json.dumps(describe(Linear(width=2, outputs=2).reading("text.pooled"))))
    assert rebuild(described).reads == "text.pooled"
    both = json.loads(json.dumps(describe(Linear(width=2, outputs=2).reading("image.pooled", "text.pooled"))))
    assert rebuild(both).reads == ("image.pooled", "text.pooled")
    chain = Chain(Linear(width=2, outputs=3), Linear(width=3, outputs=2)).reading("text.pooled")
    assert chain.reads == rebuild(json.loads(json.dumps(describe(chain)))).reads == "text.pooled"
