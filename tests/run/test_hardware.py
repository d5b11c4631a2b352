from __future__ import annotations

import pytest

from rushlight.run import hardware


@pytest.mark.parametrize("encoder", ["vit64", "vit96-p7", "vit96-p8+mean"])
def test_small_transformers_train_in_float32_on_a_cpu_whatever_it_has(encoder: str) -> None:
    assert hardware.precision("cpu", encoder) == "32-true"


@pytest.mark.parametrize("encoder", ["", "conv16", "vit_small_patch16_224", "resnet18"])
def test_others_train_in_what_the_processor_has(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for has, want in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(hardware, "_cpu_has_bfloat16", lambda has=has: has)
        hardware.precision.cache_clear()
        assert hardware.precision("cpu", encoder) == want
    hardware.precision.cache_clear()
