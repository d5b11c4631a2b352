"""`rushlight look`."""

from __future__ import annotations

from rushlight.cli import options
from rushlight.cli.show import read, show


def look(
    source: options.Source,
    labels: options.Labels = None,
    masks: options.Masks = None,
    depth: options.Depth = None,
    group: options.Group = None,
    size: options.Size = None,
    fit: options.Fit = "squash",
    cache: options.Cache = None,
) -> None:
    """Show what is known, unknown, odd and corrupt in a folder of images, and which methods fit it."""
    import rushlight

    show(rushlight.look(read(source, labels, masks, depth, group, size, fit, cache, device=None)))
