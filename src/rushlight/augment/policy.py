"""Policies: how views are drawn.

A policy is a few plain settings. It draws one number after another for the whole batch, turns them into
matrices, multiplies these, and touches the pixels once; what no matrix can do (blur, solarize, cut-out, …)
follows on the images that drew it. All randomness comes from one `torch.Generator`, which must live on the
images' device.

    policy = strong(32)
    images = policy(batch["image"], generator=generator)                # Float[B, 3, 32, 32] in [0, 1]
    images, view = policy.with_view(batch["image"], generator=generator)
    masks = view.masks(batch["mask"])

How this differs from transforms in a row: colours are clipped once, at the end; images are resampled once,
and bilinearly; contrast moves about the mean grey of the whole image, not of its crop; hue turns YIQ's
chroma, not HSV's hexagon; the crop's corners are not rounded to pixels; turns and shears are about the
centre, and see the mirrored image outside, not black; RandAugment's effects that no matrix can do come
after its matrices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from rushlight.augment import affine as matrices
from rushlight.augment.affine import Size
from rushlight.augment.ops import effects
from rushlight.augment.view import Padding, Sampling, View

MATRIX_OPERATIONS = (
    "identity",
    "autocontrast",
    "brightness",
    "contrast",
    "saturation",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
EFFECT_OPERATIONS = ("equalize", "posterize", "sharpness", "solarize")
OPERATIONS = MATRIX_OPERATIONS + EFFECT_OPERATIONS
"""RandAugment's operations as FixMatch's code lists them."""


@dataclass(frozen=True)
class Tone:
    """What colour operations need to know of each image.

    Attributes:
        levels: of each channel (rows) the mean, smallest and largest value (columns), in [0, 1].
    """

    levels: Float[Tensor, "batch 3 3"]

    @classmethod
    def of(cls, images: Num[Tensor, "batch 3 height width"], *, extremes: bool = True) -> Tone:
        """Measure the tone of images (uint8, or float in [0, 1]); without `extremes` these are taken as 0 and 1."""
        flat = images.flatten(2)
        unit = 1 if images.is_floating_point() else 255
        mean = flat.float().mean(2)
        if extremes:
            return cls(torch.stack([mean, flat.amin(2).float(), flat.amax(2).float()], 2) / unit)
        return cls(torch.stack([mean / unit, torch.zeros_like(mean), torch.ones_like(mean)], 2))

    @classmethod
    def middle(cls, n: int, device: torch.device | str = "cpu") -> Tone:
        """Return the tone to assume without measuring: around mid-grey, from black to white."""
        return cls(torch.tensor([0.5, 0, 1], device=device).expand(n, 3, 3))

    def painted(self, colour: Float[Tensor, "batch 3 4"]) -> Tone:
        """Return the tone after a colour matrix (the mean up to clipping, the extremes by where they are mapped to)."""
        return Tone((colour[:, :, :3] @ self.levels + colour[:, :, 3:]).clamp_(0, 1))

    @property
    def grey(self) -> Float[Tensor, "batch"]:
        """Return the mean grey level."""
        return matrices.grey_level(self.levels[:, :, 0])


@dataclass(frozen=True)
class Slots:
    """What RandAugment drew: a number of operations for each image, in order.

    Attributes:
        drawn: 1 at each slot's operation.
        levels: its level, in [−1, 1], and 0 at all others.
    """

    drawn: Bool[Tensor, "batch slots operations"]
    levels: Float[Tensor, "batch slots operations"]

    def of(self, name: str) -> tuple[Tensor, Tensor]:
        """Return where one operation was drawn in any slot, and the largest magnitude of its level."""
        index = OPERATIONS.index(name)
        return self.drawn[:, :, index].any(1), self.levels[:, :, index].abs().amax(1)


@dataclass(frozen=True)
class Policy:
    """How to draw views. Every setting's default leaves the image alone.

    Attributes:
        size: (height, width) of the output.
        crop_scale: a crop's area as a share of the image's (RandomResizedCrop); None takes the whole image.
        crop_ratio: the crop's width by height, drawn evenly on a log scale.
        zoom: a window whose sides are the image's divided by a factor from this range, at a random place; it
            may exceed the image (dense tasks' "scale 0.5–2, then crop").
        shift: largest shift by whole pixels, as a share of the size (pad-and-crop).
        flip: probability of mirroring left and right.
        turns: turn by a random number of quarters (with `flip` at one half: all eight symmetries of a square).
        rotation, shear, scale: largest turn (degrees), shear (tangent), and range of enlargement about the
            centre.
        jitter: probability of colour jitter, of which
        brightness, contrast, saturation: largest departure of the factor from 1, and
        hue: largest turn as a share of the colour circle.
        grayscale: probability of greyscale.
        operations: slots of RandAugment operations, each filled with probability `operation_probability` at a
            level drawn up to `magnitude` (1 is the strongest).
        blur: probability, with sigma drawn from `sigma` (output pixels).
        solarize: probability, at a threshold of one half.
        cutout: largest side of a grey square at a random place, as a share of the size; drawn from 0 up to
            that if `cutout_random`.
        padding: what is seen outside of the image.
    """

    size: Size
    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    zoom: tuple[float, float] | None = None
    shift: float = 0.0
    flip: float = 0.0
    turns: bool = False
    rotation: float = 0.0
    shear: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    operations: int = 0
    operation_probability: float = 1.0
    magnitude: float = 1.0
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    cutout: float = 0.0
    cutout_random: bool = False
    padding: Padding = "reflect"

    def __call__(
        self, images: Num[Tensor, "batch 3 height width"], *, generator: torch.Generator
    ) -> Float[Tensor, "batch 3 h w"]:
        """Return a view of each image (uint8, or float in [0, 1]) as float in [0, 1]."""
        return self.with_view(images, generator=generator)[0]

    def with_view(
        self,
        images: Num[Tensor, "batch 3 height width"],
        *,
        generator: torch.Generator,
        like: View | None = None,
        shared: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch 3 h w"], View]:
        """Return a view of each image, and the matrices that it was made with.

        Args:
            shared: a generator from which one colour jitter is drawn for the whole batch.
            like: take this view's geometry and draw only the colours (a strong view that must lie pixel for
                pixel on a weak one). RandAugment's geometric operations are left out then.
        """
        n, source = len(images), (images.shape[-2], images.shape[-1])
        tone = self._tone(images)
        slots = self._slots(n, generator)
        view = self._view(n, source, generator, tone, slots, like, shared)
        seen = view.images(images, reduce=self.reduction(source))
        return self._effects(seen, slots, generator), view

    def sample(
        self,
        n: int,
        *,
        source: Size,
        generator: torch.Generator,
        tone: Tone | None = None,
        like: View | None = None,
    ) -> View:
        """Draw the matrices alone, for n images of (height, width) `source`.

        Args:
            tone: of the images, for contrast and autocontrast; without it, contrast moves about mid-grey.
            like: see `with_view`.
        """
        tone = tone or Tone.middle(n, generator.device)
        return self._view(n, source, generator, tone, self._slots(n, generator), like)

    def reduction(self, source: Size) -> int:
        """Return the factor by which the input is averaged before sampling: the whole number of input pixels that one
        output pixel covers for a crop of middling size. It keeps strong reductions free of aliasing."""
        shrink = min(source[0] / self.size[0], source[1] / self.size[1])
        if self.crop_scale is not None:
            shrink *= (self.crop_scale[0] * self.crop_scale[1]) ** 0.25
        return max(1, int(shrink))

    def _tone(self, images: Tensor) -> Tone:
        if self.operations:
            return Tone.of(images)
        if self.jitter and self.contrast:
            return Tone.of(images, extremes=False)
        return Tone.middle(len(images), images.device)

    # Drawing the matrices.

    def _view(
        self,
        n: int,
        source: Size,
        generator: torch.Generator,
        tone: Tone,
        slots: Slots | None,
        like: View | None,
        shared: torch.Generator | None = None,
    ) -> View:
        colour = self._colour(n, generator, tone, shared)
        if like is None:
            geometry, sampling, padding = (
                self._geometry(n, source, generator),
                self._sampling(source),
                self.padding,
            )
        elif (like.size, like.source, len(like)) != (self.size, source, n):
            raise ValueError(f"the view to be like is {like.size} of {like.source}, not {self.size} of {source}")
        else:
            geometry, sampling, padding = like.geometry, like.sampling, like.padding
        if slots is not None:
            if like is None:
                geometry = self._slot_geometry(geometry, slots)
            colour = self._slot_colour(colour, tone, slots)
        return View(geometry, colour, self.size, source, padding, sampling)

    def _sampling(self, source: Size) -> Sampling:
        bends = self.crop_scale or self.zoom or self.rotation or self.shear or self.scale != (1, 1) or self.operations
        if bends or source != self.size:
            return "bilinear"
        return "nearest" if self.shift or self.flip or self.turns else "none"

    def _geometry(self, n: int, source: Size, generator: torch.Generator) -> Tensor:
        draw = torch.rand(n, 10, generator=generator, device=generator.device)
        geometry = self._window(draw[:, :4], source)
        if self.flip:
            geometry = matrices.compose(geometry, matrices.flip(draw[:, 4] < self.flip, self.size[1]))
        if self.turns:
            quarters = torch.randint(4, (n,), generator=generator, device=generator.device)
            geometry = matrices.compose(geometry, matrices.rotate(90.0 * quarters, self.size))
        if self.shift:
            geometry = matrices.compose(geometry, matrices.translate(self._shifts(draw[:, 5:7])))
        if self.rotation or self.shear or self.scale != (1, 1):
            geometry = matrices.compose(geometry, self._bend(draw[:, 7:10]))
        return geometry

    def _window(self, draw: Tensor, source: Size) -> Tensor:
        """Return the part of the input that the view shows, as a geometry."""
        n, (height, width) = len(draw), source
        if self.crop_scale is not None:
            area = _between(draw[:, 0], self.crop_scale) * (height * width)
            ratio = _between(draw[:, 1], tuple(map(math.log, self.crop_ratio))).exp()
            w, h = (area * ratio).sqrt().clamp(max=width), (area / ratio).sqrt().clamp(max=height)
        elif self.zoom is not None:
            factor = _between(draw[:, 0], self.zoom)
            w, h = width / factor, height / factor
        else:
            return matrices.resize(source, self.size, n, draw.device)
        left, top = draw[:, 2] * (width - w), draw[:, 3] * (height - h)
        return matrices.crop(torch.stack([left, top, left + w, top + h], 1), self.size)

    def _shifts(self, draw: Tensor) -> Tensor:
        limit = torch.tensor([round(self.shift * self.size[1]), round(self.shift * self.size[0])], device=draw.device)
        return (draw * (2 * limit + 1)).floor() - limit

    def _bend(self, draw: Tensor) -> Tensor:
        turn = matrices.rotate((2 * draw[:, 0] - 1) * self.rotation, self.size)
        slant = torch.stack([(2 * draw[:, 1] - 1) * self.shear, torch.zeros_like(draw[:, 1])], 1)
        grow = matrices.scale(_between(draw[:, 2], self.scale), self.size)
        return matrices.chain(turn, matrices.shear(slant, self.size), grow)

    def _colour(self, n: int, generator: torch.Generator, tone: Tone, shared: torch.Generator | None = None) -> Tensor:
        """Draw brightness, contrast, saturation, hue and grey as one matrix. They commute, so no order is drawn."""
        device = generator.device
        if not self.jitter and not self.grayscale:
            return matrices.identity_colour(n, device)
        if shared is None:
            draw = torch.rand(n, 6, generator=generator, device=device)
        else:
            draw = torch.rand(1, 6, generator=shared, device=device).expand(n, 6)
        drawn = draw[:, :1] < self.jitter
        strength = torch.tensor([self.brightness, self.contrast, self.saturation], device=device)
        low, high = (1 - strength).clamp(min=0), 1 + strength
        bright, contrast, saturation = torch.where(drawn, torch.lerp(low, high, draw[:, 1:4]), 1.0).unbind(1)
        turn = (2 * draw[:, 4] - 1) * self.hue * drawn[:, 0]
        colour = matrices.chroma(saturation * (draw[:, 5] >= self.grayscale), turn)
        grey = bright * tone.grey
        colour = colour * (bright * contrast)[:, None, None]
        colour[:, :, 3] = ((1 - contrast) * grey)[:, None]
        return colour

    # RandAugment: each slot's operation, as a matrix or as an effect.

    def _slots(self, n: int, generator: torch.Generator) -> Slots | None:
        if not self.operations:
            return None
        device = generator.device
        draw = torch.rand(3, n, self.operations, generator=generator, device=device)
        operation = (draw[0] * len(OPERATIONS)).long()
        operation.masked_fill_(draw[1] >= self.operation_probability, OPERATIONS.index("identity"))
        drawn = operation[..., None] == torch.arange(len(OPERATIONS), device=device)
        return Slots(drawn, drawn * ((2 * draw[2] - 1) * self.magnitude)[..., None])

    def _slot_geometry(self, geometry: Tensor, slots: Slots) -> Tensor:
        height, width = self.size
        strongest = {"rotate": math.radians(30), "shear_x": 0.3, "shear_y": 0.3}
        strongest |= {"translate_x": 0.3 * width, "translate_y": 0.3 * height}
        columns = [OPERATIONS.index(name) for name in strongest]
        amounts = slots.levels[:, :, columns] * torch.tensor(list(strongest.values()), device=geometry.device)
        for amount in amounts.unbind(1):
            # At most one of the five is not zero, so one matrix can hold them all.
            angle, shear_x, shear_y, shift_x, shift_y = amount.unbind(1)
            cos, sin = angle.cos(), angle.sin()
            matrix = torch.stack([cos, shear_x - sin, shift_x, shear_y + sin, cos, shift_y], 1)
            matrix = matrices.about_centre(matrix.unflatten(1, (2, 3)), self.size)
            geometry = matrices.compose(geometry, matrix)
        return geometry

    def _slot_colour(self, colour: Tensor, tone: Tone, slots: Slots) -> Tensor:
        columns = [OPERATIONS.index(name) for name in ("brightness", "contrast", "saturation", "autocontrast")]
        # PIL's enhancers, at 0.95 to 0.05 (the strongest), as in FixMatch's pool: they only ever take away.
        factors = torch.where(slots.drawn, 0.95 - 0.9 * slots.levels.abs(), 1.0)[:, :, columns[:3]]
        stretched = slots.drawn[:, :, columns[3]]
        for slot in range(self.operations):
            now = tone.painted(colour)
            bright, contrast, saturation = factors[:, slot].unbind(1)
            stretch, lift = _autocontrast(now, stretched[:, slot])
            matrix = matrices.saturation(saturation) * (bright * contrast)[:, None, None] * stretch[..., None]
            matrix[:, :, 3] = ((1 - contrast) * now.grey)[:, None] + lift
            colour = matrices.compose(matrix, colour)
        return colour

    def _slot_effects(self, images: Tensor, slots: Slots) -> Tensor:
        drawn, _ = slots.of("equalize")
        images = effects.on_rows(effects.equalize, images, drawn)
        drawn, level = slots.of("solarize")
        images = effects.on_rows(effects.solarize, images, drawn, 1 - level)
        drawn, level = slots.of("posterize")
        images = effects.on_rows(effects.posterize, images, drawn, 8 - (4 * level).round().long())
        drawn, level = slots.of("sharpness")
        return effects.on_rows(effects.sharpness, images, drawn, 0.95 - 0.9 * level)

    def _effects(self, images: Tensor, slots: Slots | None, generator: torch.Generator) -> Tensor:
        if slots is not None:
            images = self._slot_effects(images, slots)
        if not (self.blur or self.solarize or self.cutout):
            return images
        draw = torch.rand(len(images), 6, generator=generator, device=generator.device)
        if self.blur:
            sigma = _between(draw[:, 1], self.sigma)
            drawn = draw[:, 0] < self.blur
            images = self._blur(images, sigma) if self.blur >= 1 else effects.on_rows(self._blur, images, drawn, sigma)
        if self.solarize:
            half = torch.full_like(draw[:, 0], 0.5)
            images = effects.on_rows(effects.solarize, images, draw[:, 2] < self.solarize, half)
        return self._cutout(images, draw[:, 3:]) if self.cutout else images

    def _blur(self, images: Tensor, sigma: Tensor) -> Tensor:
        return effects.blur(images, sigma, largest=self.sigma[1])

    def _cutout(self, images: Tensor, draw: Tensor) -> Tensor:
        """Paint a grey square whose centre lies anywhere in the image, so that part of the square may fall outside."""
        height, width = self.size
        centre = draw[:, :2] * torch.tensor([width, height], device=draw.device)
        side = self.cutout * min(height, width) * (draw[:, 2:] if self.cutout_random else torch.ones_like(draw[:, 2:]))
        corner = (centre - side / 2).round()
        return effects.cutout(images, torch.cat([corner, corner + side.round()], 1))


def _between(draw: Tensor, limits: tuple[float, ...]) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * draw


def _autocontrast(tone: Tone, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Return factor and offset per channel that stretch it from black to white where drawn (a flat one is left
    alone)."""
    _, low, high = tone.levels.unbind(2)
    spread = high - low
    drawn = drawn[:, None] & (spread > 1 / 255)
    stretch = torch.where(drawn, 1 / spread.clamp(min=1 / 255), 1.0)
    return stretch, torch.where(drawn, -low * stretch, 0.0)
