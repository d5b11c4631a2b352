"""Files that hold a number for each pixel of an image: masks and depth maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rushlight.data.pack.decode import Source, Unreadable, blamed_on_the_file, opened, read_header


def decode_mask(source: Source) -> np.ndarray:
    """Decode a mask to the class of each pixel, uint8 H×W: a palette's indices, or a grey image's values.

    Raises:
        Unreadable: it cannot be read, or has colours that name no class.
    """
    with blamed_on_the_file(), opened(source) as image:
        read_header(image)
        values = np.asarray(image)
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise Unreadable("has colours: a mask holds the class of each pixel, as a grey or palette PNG")
        values = colours[..., 0]
    if values.dtype != bool and (values.min() < 0 or values.max() > 255):
        raise Unreadable("has values over 255: a mask holds classes 0 to 254, and 255 for unknown")
    return values.astype(np.uint8)


def decode_depth(source: Source) -> np.ndarray:
    """Decode a depth map to float32 H×W, in the unit of its file; NaN where nothing was measured.

    Read are 16-bit (or 8-bit) grey PNG and TIFF, in which 0 means that nothing was measured (as in KITTI's and NYU's
    files), NPY arrays, and EXR where the extra `depth` is installed (channel Z, Y, R, or the first one).

    Raises:
        Unreadable: it cannot be read, or is no map of one value a pixel.
    """
    with blamed_on_the_file():
        ending = source.suffix.lower() if isinstance(source, Path) else ""
        if ending == ".npy":
            assert isinstance(source, Path)
            values = np.load(source, allow_pickle=False)
        elif ending == ".exr":
            values = _exr(source)
        else:
            with opened(source) as image:
                read_header(image)
                values = np.asarray(image)
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise Unreadable(f"has the shape {values.shape}: a depth map holds one number a pixel")
    depth = values.astype(np.float32)
    measured = depth > 0 if values.dtype.kind in "ui" else np.isfinite(depth)
    return np.where(measured, depth, np.float32("nan"))


def _exr(source: Source) -> np.ndarray:
    """Read the channel Z of an EXR file, or its only one."""
    try:
        import OpenEXR
    except ImportError as error:
        raise Unreadable("an EXR file: pip install 'rushlight[depth]' to read it, or write NPY") from error
    with OpenEXR.File(str(source), separate_channels=True) as file:
        channels = file.channels()
        name = next((name for name in ("Z", "Y", "R") if name in channels), next(iter(channels)))
        return channels[name].pixels
