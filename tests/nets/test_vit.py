"""The token core: it is timm's transformer, token by token; positions, patches, decoders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.layers import DropPath

from rushlight.augment import mask
from rushlight.nets import encoders, vit


def small(size: int = 28, name: str = "vit64-p7") -> torch.nn.Module:
    return encoders.create(name, image_size=size, seed=0)


def official_positions(rows: int, columns: int, width: int) -> np.ndarray:
    """MAE's sine–cosine positions, place by place: the column's half first."""
    table = np.zeros((rows * columns, width))
    for r in range(rows):
        for c in range(columns):
            for half, place in enumerate((c, r)):
                for k in range(width // 4):
                    angle = place / 10000 ** (k / (width / 4))
                    table[r * columns + c, half * width // 2 + k] = np.sin(angle)
                    table[r * columns + c, half * width // 2 + width // 4 + k] = np.cos(angle)
    return table


def test_positions_are_the_official_ones_and_turn_about_for_others() -> None:
    found = vit.sincos(3, 5, 16)
    np.testing.assert_allclose(found.numpy(), official_positions(3, 5, 16), atol=1e-6)
    other = vit.sincos(3, 5, 16, column_first=False)
    torch.testing.assert_close(other, torch.cat([found[:, 8:], found[:, :8]], 1))
    with pytest.raises(ValueError, match="divisible by 4, not 6"):
        vit.sincos(2, 2, 6)


def test_what_is_a_vit() -> None:
    assert vit.is_vit(small())
    assert vit.is_vit(encoders.create("vit_tiny_patch16_224", image_size=32))
    assert not vit.is_vit(encoders.create("vit_tiny_r_s16_p8_224", image_size=64))  # its patches are a ResNet's
    assert not vit.is_vit(encoders.create("conv16"))
    assert not vit.is_vit(encoders.create("resnet18", image_size=32))


@pytest.mark.parametrize("size", [28, 42])
@pytest.mark.parametrize("name", ["vit64-p7", "vit64-p7+mean"])
def test_with_everything_visible_it_is_the_encoder(size: int, name: str) -> None:
    encoder, images = small(28, name).eval(), torch.rand(2, 3, size, size)
    prefix, patches = vit.encode(encoder, images)
    torch.testing.assert_close(vit.pooled(encoder, prefix, patches), encoder(images))
    rows, columns = vit.grid_of(encoder, size, size)
    torch.testing.assert_close(patches.transpose(1, 2).unflatten(2, (rows, columns)), encoder.maps(images))
    everything = torch.arange(rows * columns).expand(2, -1)
    torch.testing.assert_close(vit.encode(encoder, images, visible=everything)[1], patches)


@pytest.mark.parametrize(
    ("name", "patch", "prefix"),
    [("vit_tiny_patch16_224", 16, 1), ("vit_medium_patch16_gap_256", 16, 0), ("vit_small_patch14_reg4_dinov2", 14, 5)],
)
def test_timms_vits_take_other_sizes_with_and_without_class_token_and_registers(
    name: str, patch: int, prefix: int
) -> None:
    encoder, images = encoders.create(name, image_size=4 * patch).eval(), torch.rand(1, 3, 2 * patch, 3 * patch)
    first, patches = vit.encode(encoder, images)
    assert (first.shape[1], patches.shape[1]) == (prefix, 6)
    torch.testing.assert_close(patches.transpose(1, 2).unflatten(2, (2, 3)), encoder.maps(images))
    torch.testing.assert_close(vit.pooled(encoder, first, patches), encoder(images))


def test_visible_tokens_see_each_other_alone() -> None:
    encoder, images = small().eval(), torch.rand(1, 3, 28, 28)
    rows = torch.tensor([[2, 3, 9]])
    before = vit.encode(encoder, images, visible=rows)[1]
    hidden = torch.ones(1, 16, dtype=torch.bool).scatter(1, rows, False).view(1, 4, 4)
    changed = torch.where(mask.masked_pixels(hidden, 7)[:, None], torch.rand_like(images), images)
    torch.testing.assert_close(vit.encode(encoder, changed, visible=rows)[1], before)


def test_masked_tokens_are_replaced_before_positions_are_added() -> None:
    encoder, images = small().eval(), torch.rand(2, 3, 28, 28)
    seen = []
    encoder.model.blocks.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    masked = torch.zeros(2, 4, 4, dtype=torch.bool)
    masked[0, 1, 2] = True
    token = torch.full((64,), 3.0)
    vit.encode(encoder, images, masked=masked, mask_token=token)
    place = 1 * 4 + 2
    torch.testing.assert_close(seen[0][0, 1 + place], token + encoder.model.pos_embed[0, 1 + place])
    vit.encode(encoder, images)
    torch.testing.assert_close(seen[0][1], seen[1][1])


def test_patches_go_there_and_back_and_are_in_reading_order() -> None:
    images = torch.rand(2, 3, 8, 12)
    patches = vit.patchify(images, 4)
    assert patches.shape == (2, 6, 48)
    torch.testing.assert_close(patches[1, 4].view(4, 4, 3), images[1, :, 4:8, 4:8].permute(1, 2, 0))
    torch.testing.assert_close(vit.unpatchify(patches, 4, (2, 3)), images)


def test_the_decoder_puts_each_token_in_its_place() -> None:
    decoder = vit.PatchDecoder(inputs=64, outputs=12, width=32, depth=1, heads=2).eval()
    seen = []
    decoder.blocks.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    prefix, tokens, rows = torch.rand(2, 1, 64), torch.rand(2, 3, 64), torch.tensor([[0, 5, 7], [3, 1, 2]])
    said = decoder(prefix, tokens, rows, (2, 4))
    assert said.shape == (2, 8, 12)
    positions = vit.sincos(2, 4, 32)
    for n in range(2):
        for cell in range(8):
            where = (rows[n] == cell).nonzero().flatten().tolist()
            token = decoder.embed(tokens[n, where[0]]) if where else decoder.mask_token
            torch.testing.assert_close(seen[0][n, 1 + cell], token + positions[cell])


def test_decoders_are_the_papers_at_full_size_and_in_proportion_below() -> None:
    base = encoders.create("vit_base_patch16_224", image_size=32)
    assert vit.decoder_size(base) == {"width": 512, "depth": 8, "heads": 16}
    assert vit.decoder_size(small()) == {"width": 32, "depth": 1, "heads": 1}


def test_patches_are_normalised_by_themselves() -> None:
    patches = vit.normalised_patches(torch.rand(2, 5, 48, dtype=torch.float64) * 3 + 1)
    torch.testing.assert_close(patches.mean(2), torch.zeros(2, 5, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(patches.var(2), torch.ones(2, 5, dtype=torch.float64), atol=1e-4, rtol=0)
    assert not vit.normalised_patches(torch.ones(1, 1, 48)).any()


def test_paths_drop_more_with_depth_and_can_be_kept_again() -> None:
    encoder = small()
    vit.drop_paths(encoder, 0.3)
    rates = [module.drop_prob for module in encoder.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    vit.drop_paths(encoder, 0.0)
    assert not [module for module in encoder.modules() if isinstance(module, DropPath)]


def test_fixed_positions_leave_registers_and_class_tokens_at_zero() -> None:
    encoder = encoders.create("vit_tiny_patch16_224", image_size=64)
    vit.fix_positions(encoder)
    found = encoder.model.pos_embed[0]
    assert not found[0].any()
    torch.testing.assert_close(found[1:], vit.sincos(4, 4, 192))
