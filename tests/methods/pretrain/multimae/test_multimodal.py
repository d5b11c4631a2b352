"""Several modalities as tokens: adapters, decoders."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rushlight.methods.pretrain.multimae.multimodal import (
    Adapters,
    CrossDecoder,
    TokenSegmenter,
    all_tokens,
    image_tokens,
    label_stride,
    transform,
)
from rushlight.nets import encoders
from rushlight.nets.vit import fix_positions, sincos
from rushlight.run.model import Model, ModelInfo


def vit() -> torch.nn.Module:
    encoder = encoders.create("vit64-p8", image_size=32, seed=0)
    fix_positions(encoder, column_first=False)
    return encoder.eval()


def test_with_images_alone_the_transform_is_the_encoder() -> None:
    encoder, images = vit(), torch.rand(2, 3, 32, 32)
    tokens = all_tokens(encoder, Adapters(width=64, patch=8), {"image": images}, (4, 4))
    torch.testing.assert_close(transform(encoder, tokens)[:, 0], encoder(images))
    torch.testing.assert_close(image_tokens(encoder, images) + sincos(4, 4, 64, column_first=False), tokens)


def test_depth_and_classes_become_tokens_of_the_same_places() -> None:
    adapters = Adapters(width=64, patch=8, classes=5, depth=True)
    depth, masks = torch.rand(2, 32, 32), torch.randint(0, 5, (2, 32, 32), dtype=torch.uint8)
    assert adapters.tokens("depth", depth).shape == adapters.tokens("mask", masks).shape == (2, 16, 64)
    changed, other = depth.clone(), masks.clone()
    changed[:, 8:16, 0:8] += 1
    other[:, 8:16, 0:8] = (other[:, 8:16, 0:8] + 1) % 5
    for name, before, after in (("depth", depth, changed), ("mask", masks, other)):
        moved = (adapters.tokens(name, before) - adapters.tokens(name, after)).abs().sum(2) > 1e-6
        assert moved[0].nonzero().flatten().tolist() == [4]
    with pytest.raises(KeyError, match="know no 'depth'"):
        Adapters(width=64, patch=8, classes=5).tokens("depth", depth)


def test_an_unknown_class_has_an_embedding_of_its_own() -> None:
    adapters = Adapters(width=64, patch=8, classes=5)
    unknown = adapters.tokens("mask", torch.full((1, 32, 32), 255, dtype=torch.uint8))
    named = adapters.tokens("mask", torch.full((1, 32, 32), 4, dtype=torch.uint8))
    assert not torch.allclose(unknown, named)


def test_adapters_travel_with_a_model(tmp_path) -> None:
    model = Model(
        vit(), {"adapters": Adapters(width=64, patch=8, classes=3, depth=True)}, ModelInfo(image_size=(32, 32))
    )
    model.save(tmp_path / "m")
    loaded = Model.load(tmp_path / "m").head("adapters")
    depth = torch.rand(1, 32, 32)
    torch.testing.assert_close(loaded.tokens("depth", depth), model.head("adapters").tokens("depth", depth))


def test_the_decoder_has_no_residual_from_its_queries_and_sees_the_visible_alone() -> None:
    torch.manual_seed(0)
    decoder = CrossDecoder(inputs=64, outputs=12, modalities=2, width=32, depth=0, heads=2).eval()
    first, visible, rows = torch.rand(1, 1, 64), torch.rand(1, 3, 64), torch.tensor([[1, 4, 6]])
    seen = []
    decoder.attention.register_forward_hook(lambda m, given, out: seen.append((given, out[0])))
    said = decoder(first, visible, rows, (2, 2), own=1)
    (queries, keys, _), attended = seen[0]
    assert said.shape == (1, 4, 12)
    assert keys.shape[1] == 4  # three visible tokens and the class token
    torch.testing.assert_close(said, decoder.predict(attended + decoder.mlp(decoder.mlp_norm(attended))))
    positions = sincos(2, 2, 32, column_first=False)
    own = decoder.project(visible)
    expected = decoder.mask_token.expand(4, -1).clone()
    expected[0], expected[2] = own[0, 1], own[0, 2]
    torch.testing.assert_close(queries[0], decoder.query_norm(expected + positions + decoder.modality[1]))


def test_a_segmenter_answers_cell_by_cell_in_reading_order() -> None:
    segmenter = TokenSegmenter(vit(), None, ("image",), classes=3)
    images = torch.rand(2, 3, 32, 32)
    logits = segmenter({"image": images})
    assert logits.shape == (2, 3, 16, 16)
    tokens = transform(segmenter.encoder, all_tokens(segmenter.encoder, segmenter.adapters, {"image": images}, (4, 4)))
    cells = F.linear(tokens[:, 1:], segmenter.linear.weight, segmenter.linear.bias).view(2, 4, 4, 4, 4, 3)
    torch.testing.assert_close(logits[1, :, 4 * 2 + 3, 4 * 1 + 2], cells[1, 2, 1, 3, 2])
    assert [label_stride(patch) for patch in (32, 16, 14, 9, 8, 7, 4, 2)] == [8, 4, 2, 1, 2, 1, 1, 1]
