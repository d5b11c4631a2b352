"""The policies of the literature, by name: weak and strong views, pairs and crops of pretraining, views for masks."""

from __future__ import annotations

from dataclasses import replace

from rushlight.augment.affine import Size
from rushlight.augment.policy import Policy


def _pair(size: int | Size) -> Size:
    return (size, size) if isinstance(size, int) else size


def identity(size: int | Size) -> Policy:
    """Return the policy that shows the whole image as it is (resized if need be)."""
    return Policy(_pair(size), padding="border")


def weak(size: int | Size, *, flip: bool = True, shift: float = 0.125) -> Policy:
    """Return FixMatch's weak view: pad by 12.5 % with the mirror image, crop back, flip half of the images."""
    return Policy(_pair(size), shift=shift, flip=0.5 if flip else 0.0)


def strong(size: int | Size, *, flip: bool = True) -> Policy:
    """Return FixMatch's strong view: the weak one, two RandAugment operations, each applied with probability one half
    at a random level, and a grey square of half the side."""
    return replace(weak(size, flip=flip), operations=2, operation_probability=0.5, cutout=0.5)


def randaugment(size: int | Size, *, n: int = 3, m: int = 5, flip: bool = True) -> Policy:
    """Return the strong view of TorchSSL, USB and IOMatch, "RandAugment(3, 5)": n operations, always applied, and a
    grey square of up to half the side.

    Their code accepts m but draws each level evenly from the operation's whole range, whatever m; so does
    this.
    """
    del m
    return replace(weak(size, flip=flip), operations=n, cutout=0.5, cutout_random=True)


def self_supervised(
    size: int | Size,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    flip: bool = True,
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1),
    jitter_probability: float = 0.8,
    grayscale: float = 0.2,
    blur: float = 0.5,
    sigma: tuple[float, float] | None = None,
    solarize: float = 0.0,
) -> Policy:
    """Return SimCLR's family of views: random resized crop, flip, colour jitter (brightness, contrast, saturation,
    hue), grey, blur, solarize.

    Args:
        sigma: of the blur, in output pixels. By default (0.1, 2) at 224 pixels and in proportion below, but
            up to at least half a pixel.
    """
    height, width = _pair(size)
    brightness, contrast, saturation, hue = jitter
    share = min(1.0, min(height, width) / 224)
    return Policy(
        (height, width),
        crop_scale=scale,
        flip=0.5 if flip else 0.0,
        jitter=jitter_probability,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        grayscale=grayscale,
        blur=blur,
        sigma=sigma or (0.1, max(0.5, 2 * share)),
        solarize=solarize,
        padding="border",
    )


def barlow_pair(
    size: int | Size, *, scale: tuple[float, float] = (0.08, 1.0), flip: bool = True
) -> tuple[Policy, Policy]:
    """Return Barlow Twins' two policies (also BYOL's and MoCo-v3's), different on purpose: blur always and solarize
    never, blur in one of ten and solarize in one of five."""
    jitter = (0.4, 0.4, 0.2, 0.1)
    first = self_supervised(size, scale=scale, flip=flip, jitter=jitter, blur=1.0)
    return first, replace(first, blur=0.1, solarize=0.2)


def multi_crop(
    size: int | Size,
    local_size: int | Size,
    *,
    local: int = 8,
    scale: tuple[float, float] = (0.4, 1.0),
    local_scale: tuple[float, float] = (0.05, 0.4),
    flip: bool = True,
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1),
) -> list[Policy]:
    """Return DINO's crops: two large views of `size`, the first always blurred, the second blurred in one of ten and
    solarized in one of five; then `local` small ones of `local_size`, blurred in one of two."""
    first = self_supervised(size, scale=scale, flip=flip, jitter=jitter, blur=1.0)
    small = self_supervised(local_size, scale=local_scale, flip=flip, jitter=jitter, blur=0.5)
    return [first, replace(first, blur=0.1, solarize=0.2), *[small] * local]


def dense_weak(size: int | Size, *, scale: tuple[float, float] = (0.5, 2.0), flip: bool = True) -> Policy:
    """Return the weak view for masks: rescale by 0.5 to 2, crop at random (outside: black, and 255 in masks), flip."""
    return Policy(_pair(size), zoom=scale, flip=0.5 if flip else 0.0, padding="zeros")


def dense_strong(size: int | Size, *, scale: tuple[float, float] = (0.5, 2.0), flip: bool = True) -> Policy:
    """Return ST++'s strong view for masks: the weak one, jitter (0.5, 0.5, 0.5, 0.25), grey, blur. Draw it with
    `with_view(images, generator=…, like=weak_view)` to lie on a weak view pixel for pixel."""
    height, width = _pair(size)
    colours = self_supervised(
        size,
        jitter=(0.5, 0.5, 0.5, 0.25),
        blur=0.5,
        sigma=(0.1, max(0.5, 2 * min(1, min(height, width) / 224))),
    )
    return replace(colours, crop_scale=None, zoom=scale, flip=0.5 if flip else 0.0, padding="zeros")
