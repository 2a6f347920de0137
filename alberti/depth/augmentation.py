"""What augmentation does to a training picture: drawn on the host, applied by numpy or, to whole batches, by torch.

Both ways give the same pixels: rotation samples at 32nds of a pixel with whole-numbered weights, colours change through a
table of the 256 values that a byte has.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alberti.data.transforms import View, transform
from alberti.depth.config import Augmentation
from alberti.geometry.camera import Camera

FRACTION_BITS = 5
FRACTION = 1 << FRACTION_BITS
"""Parts of a pixel that a rotation tells apart, as OpenCV's bilinear interpolation does."""


@dataclass(frozen=True)
class Change:
    """What happens to one picture at one visit, in this order: rotation, crop, mirroring, colours."""

    degrees: float
    """Counter-clockwise."""
    x0: int
    y0: int
    """The crop's first pixel."""
    flip: bool
    gamma: float
    colours: tuple[float, float, float]
    """Factors of red, green and blue behind the gamma."""


def draw_change(options: Augmentation, size: tuple[int, int], random: np.random.Generator) -> Change:
    """A change for a picture of ``size`` (width, height), which is at least the crop's."""
    degrees = random.uniform(-options.rotate_degrees, options.rotate_degrees) if options.rotate_degrees else 0.0
    x0 = int(random.integers(size[0] - options.crop[1] + 1))
    y0 = int(random.integers(size[1] - options.crop[0] + 1))
    flip = bool(random.random() < options.flip)
    gamma, colours = 1.0, np.ones(3)
    if random.random() < options.jitter:
        gamma, brightness = random.uniform(0.9, 1.1, size=2)
        colours = brightness * random.uniform(0.9, 1.1, size=3)
    red, green, blue = colours.tolist()
    return Change(degrees, x0, y0, flip, float(gamma), (red, green, blue))


def cut(view: View, change: Change, crop: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rotated, cropped (height, width) and mirrored picture (h, w, 3) uint8 and depth (h, w) metres; colours as they were."""
    window = (change.x0, change.y0, crop[1], crop[0])
    if change.degrees:
        view = transform(rotate(view, change.degrees, window), flip=change.flip)
    else:
        view = transform(view, crop=window, flip=change.flip)
    assert view.image is not None
    assert view.depth is not None
    return view.image, view.depth


def rotate(view: View, degrees: float, window: tuple[int, int, int, int] | None = None) -> View:
    """Rotate image and depth counter-clockwise about :func:`centre_of` the picture; what comes in is mirrored and has no depth.

    ``window`` (x0, y0, width, height) says which part of the outcome is wanted; all by default.
    """
    import cv2

    assert view.image is not None
    assert view.depth is not None
    x0, y0, width, height = window or (0, 0, *view.size)
    across, down = torch.arange(x0, x0 + width)[None], torch.arange(y0, y0 + height)[:, None]
    x, y = Turn.of(degrees, centre_of(view.camera, view.size)).source(across, down)
    smooth_x, smooth_y = ((part.float() / FRACTION).numpy() for part in (x, y))
    near_x, near_y = ((part + FRACTION // 2 >> FRACTION_BITS).float().numpy() for part in (x, y))
    image = cv2.remap(view.image, smooth_x, smooth_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    depth = cv2.remap(view.depth, near_x, near_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return View(image=image, depth=depth)


def centre_of(camera: Camera | None, size: tuple[int, int]) -> tuple[float, float]:
    """The principal point, or the middle of a picture of ``size`` (width, height) where it is unknown, in pixels (x, y)."""
    if camera is not None:
        return camera.cx, camera.cy
    return (size[0] - 1) / 2, (size[1] - 1) / 2


class Turn(NamedTuple):
    """A rotation about a point; floats, or float64 tensors (B, 1, 1) for a batch of them."""

    cos: float | Tensor
    sin: float | Tensor
    cx: float | Tensor
    cy: float | Tensor

    @classmethod
    def of(cls, degrees: float, centre: tuple[float, float]) -> "Turn":
        return cls(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), *centre)

    def source(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Where the pixels at ``x`` and ``y`` (broadcastable integers) of the rotated picture lie in the original, in 32nds."""
        across, down = x.double() - self.cx, y.double() - self.cy
        source_x = self.cos * across + (self.cx - self.sin * down)
        source_y = self.sin * across + (self.cy + self.cos * down)
        rounded = ((source * FRACTION + 0.5).floor().long() for source in (source_x, source_y))
        return next(rounded), next(rounded)


def colour_tables(changes: Sequence[Change]) -> Tensor:
    """(B, 3, 256) float32: what each channel's byte becomes, in [0, 1]. Exactly value / 255 where nothing changes."""
    levels = np.arange(256) / 255
    bent = levels[None, :] ** np.array([change.gamma for change in changes])[:, None]
    factors = np.array([change.colours for change in changes])
    return torch.from_numpy((bent[:, None, :] * factors[:, :, None]).clip(0, 1).astype(np.float32))


def apply_tables(images: Tensor, tables: Tensor) -> Tensor:
    """Bytes (B, 3, H, W) through :func:`colour_tables` (B, 3, 256): (B, 3, H, W) float32 in [0, 1]."""
    return tables.gather(2, images.flatten(2).long()).view(images.shape)
