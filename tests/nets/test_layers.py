from __future__ import annotations

import pytest
import torch
from torch import nn

from rushlight.nets import encoders
from rushlight.nets.heads import Linear
from rushlight.nets.layers import decayed_groups, depths


@pytest.mark.parametrize(
    ("name", "last", "some"),
    [
        ("conv16", 5, {"stages.0.0.0.weight": 1, "stages.3.0.1.bias": 4}),
        ("vit64", 5, {"model.pos_embed": 0, "model.patch_embed.proj.weight": 0, "model.blocks.3.mlp.fc1.weight": 4,
                      "model.norm.weight": 5}),
        ("resnet18", 9, {"model.conv1.weight": 0, "model.layer1.0.conv1.weight": 1, "model.layer4.1.bn2.bias": 8}),
        ("convnext_atto", 13, {"model.stem.0.weight": 0, "model.stages.0.blocks.0.gamma": 1}),
        ("ngram64", 3, {"embedding.weight": 1, "refine.3.bias": 2}),
        ("conv16+local-global", 5, {"stages.1.0.0.branch.give.bias": 2}),
    ],
)  # fmt: skip
def test_depths(name: str, last: int, some: dict[str, int]) -> None:
    encoder = encoders.create(name, image_size=32, seed=0)
    found, head = depths(encoder)
    assert head == last
    assert {key: found[key] for key in some} == some
    assert set(found) == {name for name, _ in encoder.named_parameters()}


@pytest.mark.parametrize("name", ["conv16", "vit64", "resnet18"])
def test_each_trained_parameter_is_in_one_group_at_its_layers_rate(name: str) -> None:
    encoder = encoders.create(name, image_size=32, seed=0)
    module = nn.ModuleDict({"encoder": encoder, "head": Linear(width=encoder.width, outputs=2)})
    frozen = next(encoder.parameters())
    frozen.requires_grad_(False)
    groups = decayed_groups(module, encoder, decay=0.5, weight_decay=0.1)
    scale = {id(parameter): group["scale"] for group in groups for parameter in group["params"]}
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(
        id(p) for p in module.parameters() if p is not frozen
    )
    layers, last = depths(encoder)
    for key, parameter in encoder.named_parameters():
        assert parameter is frozen or scale[id(parameter)] == 0.5 ** (last - layers[key])
    assert all(scale[id(parameter)] == 1 for parameter in module["head"].parameters())


def test_positions_tokens_biases_and_norms_have_no_weight_decay() -> None:
    encoder = encoders.create("vit64", image_size=32, seed=0)
    groups = decayed_groups(encoder, encoder, decay=0.75, weight_decay=0.1)
    spared = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    named = {name: id(parameter) in spared for name, parameter in encoder.named_parameters()}
    assert named["model.pos_embed"]  # has 3 axes: ranks alone would decay it
    assert named["model.cls_token"]
    assert named["model.norm.weight"]
    assert named["model.blocks.0.attn.qkv.bias"]
    assert not named["model.blocks.0.attn.qkv.weight"]
    assert not named["model.patch_embed.proj.weight"]
    assert {group["plain"] for group in groups if group["weight_decay"]} == {False}


def test_the_optimiser_takes_the_groups() -> None:
    from rushlight.train.optim import optimiser

    encoder = encoders.create("conv16", seed=0)
    made = optimiser("adamw", decayed_groups(encoder, encoder, decay=0.5, weight_decay=0.1), learning_rate=1.0)
    assert sorted({group["lr"] for group in made.param_groups}) == [0.0625, 0.125, 0.25, 0.5]
    assert torch.is_tensor(made.param_groups[0]["params"][0])
