"""A picture on a page: the bare picture, and what was found in it as vectors that are drawn on request."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from alberti.geometry.vanishing_points import assign_segments

WITHIN = 2.0
"""Degrees within which a line is said to point at a vanishing point."""
_RAYS = 18
_POINTS = 4
"""Vanishing points that get a colour of their own; further ones share the last."""
_WIDE = 1.75


@dataclass(frozen=True)
class Line:
    """A line of an overlay in pixels; ``point`` is the vanishing point it belongs to, None for none."""

    x1: float
    y1: float
    x2: float
    y2: float
    point: int | None


@dataclass(frozen=True)
class Picture:
    """One tile; overlays are (style class, path) pairs in the pixels of ``width`` and ``height``."""

    label: str
    kind: str
    """"depth", "reference" or "arm"."""
    data_uri: str
    width: int
    height: int
    alt: str
    lines: tuple[tuple[str, str], ...] = ()
    """Detected lines."""
    rays: tuple[tuple[str, str], ...] = ()
    """Lines through the vanishing points."""
    note: str = ""

    @property
    def wide(self) -> bool:
        """Whether it is much wider than high."""
        return self.width > _WIDE * self.height


def coloured(segments: np.ndarray, points: np.ndarray) -> list[Line]:
    """(N, 4) segments with the vanishing point, of (K, 3), that each meets within :data:`WITHIN` degrees."""
    assigned = assign_segments(segments, points, WITHIN)
    ends = np.asarray(segments, np.float64).reshape(-1, 4).tolist()
    return [
        Line(x1, y1, x2, y2, int(point) if point >= 0 else None) for (x1, y1, x2, y2), point in zip(ends, assigned, strict=True)
    ]


def vanishing_lines(points: np.ndarray, width: int, height: int) -> list[Line]:
    """Lines from points spread along the picture's border through each vanishing point, across the picture."""
    perimeter = np.linspace(0, 4, _RAYS, endpoint=False)
    side, along = perimeter.astype(int), perimeter % 1
    x = np.choose(side, [along, np.ones(_RAYS), 1 - along, np.zeros(_RAYS)]) * width - 0.5
    y = np.choose(side, [np.zeros(_RAYS), along, np.ones(_RAYS), 1 - along]) * height - 0.5
    reach = float(np.hypot(width, height))
    lines = []
    for index, point in enumerate(points):
        towards = point[:2] - point[2] * np.column_stack([x, y])
        norm = np.linalg.norm(towards, axis=1)
        for start_x, start_y, (dx, dy), length in zip(x, y, towards, norm, strict=True):
            if length > 0:
                step = reach / length
                lines.append(Line(start_x - dx * step, start_y - dy * step, start_x + dx * step, start_y + dy * step, index))
    return lines


def overlay(lines: Sequence[Line]) -> tuple[tuple[str, str], ...]:
    """Lines as (style class, path of an SVG), a path a class."""
    paths: dict[str, list[str]] = {}
    for line in lines:
        name = "vp-none" if line.point is None else f"vp-{min(line.point, _POINTS - 1)}"
        paths.setdefault(name, []).append(f"M{line.x1:.1f} {line.y1:.1f}L{line.x2:.1f} {line.y2:.1f}")
    return tuple((name, "".join(parts)) for name, parts in sorted(paths.items()))


def data_uri(image: np.ndarray) -> str:
    """A (H, W, 3) uint8 picture as a data URI of WebP: without loss when small, else of high quality."""
    small = image.shape[0] * image.shape[1] <= 256 * 256
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", lossless=small, quality=90, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
