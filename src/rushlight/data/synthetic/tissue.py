"""Histology without patients: composed H&E patches with exact truth, a mask of tissue, and patches of whole images.

A patch is drawn as optical density, c_H·v_H + c_E·v_E: eosin as smooth texture, hematoxylin in nuclei (ellipses). Four
kinds of tissue differ by the number, size, length and clustering of nuclei; laboratories by their stain vectors and
strengths, which mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rushlight.data.columns import encode_text
from rushlight.data.dataset import Dataset, Info, Reader

KINDS = ("stroma", "lymphoid", "muscle", "tumour")
_NUCLEI = torch.tensor([[7.0, 1.6, 1.3, 0.0], [22.0, 1.5, 1.1, 0.2], [10.0, 1.3, 2.6, 0.0], [12.0, 2.6, 1.25, 0.6]])
"""Of each kind: nuclei in 32×32 pixels at 20×, their radius (pixels), their length by width, how much they cluster."""
_HEMATOXYLIN, _EOSIN = torch.tensor([0.65, 0.70, 0.29]), torch.tensor([0.07, 0.99, 0.11])
LABS, MOST, CHUNK = 5, 96, 250
MAGNIFICATIONS = (20, 10)


@dataclass(frozen=True)
class Stain:
    """A laboratory's: unit vectors of density in RGB, and strengths, of hematoxylin and eosin."""

    vectors: Float[Tensor, "2 3"]
    strengths: Float[Tensor, "2"]


def stain(lab: int) -> Stain:
    """Return the stain of a laboratory, always the same."""
    generator = torch.Generator().manual_seed(1000 + lab)
    noise = torch.randn(2, 3, generator=generator)
    vectors = F.normalize((torch.stack([_HEMATOXYLIN, _EOSIN]) + 0.14 * noise).clamp(min=0.02), dim=1)
    return Stain(vectors, 0.75 + 0.6 * torch.rand(2, generator=generator))


def compose(n: int, *, size: int = 32, labs: tuple[int, ...] = (0,), magnification: int = 20, seed: int = 0) -> Dataset:
    """Return patches with `class` (kind of tissue) and `domain` (laboratory).

    Args:
        labs: laboratories, drawn evenly, from 0 to 4.
        magnification: 20, or 10: the same tissue from twice as far.

    Raises:
        ValueError: a laboratory or magnification that is not there.
    """
    if not set(labs) <= set(range(LABS)) or magnification not in MAGNIFICATIONS:
        raise ValueError(f"laboratories are 0 … {LABS - 1} and magnifications {MAGNIFICATIONS}")
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(len(KINDS), (n,), generator=generator)
    lab = torch.tensor(labs)[torch.randint(len(labs), (n,), generator=generator)]
    parts = [
        _patches(k, where, size, 20 / magnification, generator)
        for k, where in zip(kind.split(CHUNK), lab.split(CHUNK), strict=True)
    ]
    info = Info(source="tissue", class_names=KINDS, domain_names=tuple(f"laboratory {i}" for i in range(LABS)))
    return Dataset({"image": torch.cat(parts), "class": kind, "domain": lab}, info)


def slides(
    count: int, *, patches: int = 40, share: float = 0.15, labs: tuple[int, ...] = (0,), size: int = 32, seed: int = 0
) -> Dataset:
    """Return whole slides as bags of patches: `domain` is the slide, `class` the slide's label on each of its patches:
    1 if a share of its patches is tumour (no patch is labelled as such); laboratories differ by slide."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(2, (count,), generator=generator)
    lab = torch.tensor(labs)[torch.randint(len(labs), (count,), generator=generator)]
    kind = torch.randint(3, (count, patches), generator=generator)
    sick = torch.rand(count, patches, generator=generator).argsort(1) < max(round(share * patches), 1)
    kind = torch.where(sick & (label == 1)[:, None], torch.tensor(3), kind).flatten()
    each = lab.repeat_interleave(patches)
    parts = [
        _patches(k, where, size, 1.0, generator) for k, where in zip(kind.split(CHUNK), each.split(CHUNK), strict=True)
    ]
    columns = {"image": torch.cat(parts), "class": label.repeat_interleave(patches)}
    info = Info(
        source="slides", class_names=("healthy", "tumour"), domain_names=tuple(f"slide {i}" for i in range(count))
    )
    return Dataset({**columns, "domain": torch.arange(count).repeat_interleave(patches)}, info)


def concentrations(
    kind: Int[Tensor, "n"], size: int, far: float, generator: torch.Generator
) -> Float[Tensor, "n 2 size size"]:
    """Draw concentrations of hematoxylin and eosin for each kind of tissue; `far` is the factor on the field's side."""
    n, table = len(kind), _NUCLEI[kind]
    wanted = (table[:, 0] * (size / 32) ** 2 * far**2).clamp(max=MOST)
    count = torch.poisson(wanted, generator=generator).clamp(1, MOST)
    most = int(count.max())
    centre = torch.rand(n, most, 2, generator=generator) * size
    hub = centre[:, torch.randint(3, (most,), generator=generator).clamp(max=most - 1)]
    cluster = table[:, 3, None, None]
    centre = centre * (1 - cluster) + cluster * (hub + 0.12 * size * torch.randn(n, most, 2, generator=generator))
    radius = table[:, 1, None] / far * (1 + 0.2 * torch.randn(n, most, generator=generator)).clamp(0.5, 1.6)
    length = table[:, 2, None].sqrt()
    angle = torch.where(table[:, 2, None] > 2, torch.rand(n, 1, generator=generator) * 3.14, torch.zeros(n, 1))
    angle = angle + 0.3 * torch.randn(n, most, generator=generator)
    grid = torch.arange(size) + 0.5
    dx = grid[None, None, None, :] - centre[:, :, 0, None, None]
    dy = grid[None, None, :, None] - centre[:, :, 1, None, None]
    cos, sin = angle.cos()[..., None, None], angle.sin()[..., None, None]
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    distance = (along / (radius * length)[..., None, None]) ** 2 + (across / (radius / length)[..., None, None]) ** 2
    there = (torch.arange(most) < count[:, None])[..., None, None]
    nuclei = ((1.5 - distance).clamp(0, 1) * there).amax(1)
    coarse = torch.rand(n, 1, max(size // 4, 2), max(size // 4, 2), generator=generator)
    texture = F.interpolate(coarse, size=(size, size), mode="bilinear")[:, 0]
    hematoxylin = 0.9 * nuclei + 0.08 * texture
    return torch.stack([hematoxylin, (0.25 + 0.35 * texture) * (1 - 0.6 * nuclei)], 1)


def _patches(kind: Tensor, lab: Tensor, size: int, far: float, generator: torch.Generator) -> UInt8[Tensor, "n 3 s s"]:
    amount = concentrations(kind, size, far, generator)
    stains = [stain(int(one)) for one in range(LABS)]
    vectors, strengths = (torch.stack([getattr(s, name) for s in stains])[lab] for name in ("vectors", "strengths"))
    strengths = strengths * (1 + 0.08 * torch.randn(len(kind), 2, generator=generator))
    density = torch.einsum("nshw,nsc->nchw", amount * strengths[..., None, None], vectors)
    return (255 * (-density * 1.6).exp()).round().clamp(0, 255).byte()


# Whole images ---------------------------------------------------------------------------------------------------------


def tissue(image: UInt8[Tensor, "*n 3 height width"], *, density: float = 0.15) -> Bool[Tensor, "*n height width"]:
    """Return where a slide shows tissue: its mean optical density lies above that of glass."""
    return -(image.float().clamp(min=1) / 255).log().mean(-3) > density


def tissue_share(images: UInt8[Tensor, "n 3 height width"] | Reader, *, side: int = 32) -> Float[Tensor, "n"]:
    """Return the share of each patch that shows tissue, by a grid of at least side × side of its pixels."""
    step = max(min(images.shape[-2:]) // side, 1)
    return torch.cat([tissue(part[..., ::step, ::step]).float().mean((1, 2)) for part in images.split(CHUNK)])


def tiles(
    image: UInt8[Tensor, "3 height width"], *, size: int, least: float = 0.5, step: int | None = None
) -> tuple[UInt8[Tensor, "n 3 size size"], Int[Tensor, "n 2"]]:
    """Return the patches of a large image with at least a share of tissue, and their upper left corners (y, x)."""
    step = step or size
    cut = image.unfold(1, size, step).unfold(2, size, step)
    rows, columns = cut.shape[1:3]
    share = tissue(image).float()[None].unfold(1, size, step).unfold(2, size, step).mean((3, 4))[0]
    kept = (share >= least).flatten()
    corner = torch.stack(torch.meshgrid(torch.arange(rows) * step, torch.arange(columns) * step, indexing="ij"), -1)
    return cut.permute(1, 2, 0, 3, 4).flatten(0, 1)[kept], corner.view(-1, 2)[kept]


def sampled(
    images: dict[str, UInt8[Tensor, "3 height width"]], *, size: int, patches: int, seed: int = 0, least: float = 0.5
) -> Dataset:
    """Draw patches evenly over slides, so that none dominates: `domain` is the slide, `name` gives slide and corner.

    Raises:
        ValueError: no slide shows enough tissue for a patch.
    """
    found = {name: tiles(image, size=size, least=least) for name, image in images.items()}
    some = [name for name, (cut, _) in found.items() if len(cut)]
    if not some:
        raise ValueError(f"no image shows tissue on {least:.0%} of a patch of {size} pixels")
    generator = torch.Generator().manual_seed(seed)
    values, names, domain = [], [], []
    for number in range(patches):
        slide = some[number % len(some)]
        cut, corner = found[slide]
        row = int(torch.randint(len(cut), (1,), generator=generator))
        values.append(cut[row])
        names.append(f"{slide}@{int(corner[row, 0])},{int(corner[row, 1])}#{number}")
        domain.append(list(images).index(slide))
    columns = {"image": torch.stack(values), "domain": torch.tensor(domain), "name": encode_text(names)}
    return Dataset(columns, Info(source="slides", domain_names=tuple(images)))
