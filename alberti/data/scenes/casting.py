"""The image as a grid of tiles of samples, and the first hits of its rays."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from alberti.data.scenes.scene import SKY_SLOT, Scenes
from alberti.data.scenes.tracing import Rays, Vectors, nearest, refine, screen_bounds, touching

_TILE = 16
_CPU_SAMPLES, _GPU_SAMPLES = 131072, 16777216
"""Samples cast and shaded at once: few on the CPU, so that the arrays fit its cache."""


@dataclass(frozen=True)
class Grid:
    """An image of tiles of ``size`` x ``size`` samples, ``per_pixel`` samples along each side of a pixel.

    ``first`` and ``count`` pick a band of tile rows; ``count`` None takes all that remain.
    """

    width: int
    height: int
    per_pixel: int
    first: int = 0
    count: int | None = None

    @property
    def size(self) -> int:
        """Samples along a tile's side: a whole number of pixels."""
        return self.per_pixel * max(1, _TILE // self.per_pixel)

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles down (in the band) and across."""
        down = -(-self.height * self.per_pixel // self.size) - self.first
        return down if self.count is None else min(down, self.count), -(-self.width * self.per_pixel // self.size)

    def bands(self, device: torch.device) -> Iterator["Grid"]:
        """The whole image in bands small enough to be handled at once."""
        down, across = self.tiles
        each = max(1, _budget(device) // (across * self.size**2))
        for first in range(0, down, each):
            yield Grid(self.width, self.height, self.per_pixel, first, each)

    def scenes_at_once(self, device: torch.device) -> int:
        """How many scenes' whole images may be handled at once."""
        down, across = self.tiles
        return max(1, _budget(device) // (down * across * self.size**2))

    def positions(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Pixel coordinates of the samples: x (tiles across, size, size), y (tiles down, size, size).

        A pixel's samples form a rotated grid, no two in one row or column: edges near the image's axes, most of a
        street's, then pass through all of them one by one.
        """
        down, across = self.tiles
        n = self.per_pixel
        index = torch.arange(self.size, device=device)
        base = (index + 0.5) / n - 0.5
        twist = ((index % n + 0.5) / n - 0.5) / n
        step = self.size // n
        x, y = base[None, :] + twist[:, None], base[:, None] - twist[None, :]
        starts_x = torch.arange(across, device=device) * step
        starts_y = torch.arange(self.first, self.first + down, device=device) * step
        return starts_x[:, None, None] + x, starts_y[:, None, None] + y

    def image(self, values: Tensor, batch: int) -> Tensor:
        """(T, R) samples -> (B, rows of the band, W) means over pixels."""
        down, across = self.tiles
        n, s = self.size // self.per_pixel, self.per_pixel
        blocks = values.view(batch, down, across, n, s, n, s)
        total = blocks[:, :, :, :, 0, :, 0].clone()
        for i in range(s):
            for j in range(s):
                if i or j:
                    total += blocks[:, :, :, :, i, :, j]
        height = min(down * n, self.height - self.first * n)
        pixels = total.permute(0, 1, 3, 2, 4).reshape(batch, down * n, across * n)[:, :height, : self.width]
        return pixels / (s * s) if s > 1 else pixels.contiguous()


@dataclass
class Hits:
    """First hits of tiled rays, (T, R) each; ``points`` in street axes; ``scale`` the metres that one sample spans at
    the hit on a surface that faces it."""

    rays: Rays
    slot: Tensor
    depth: Tensor
    normal: Vectors
    points: Vectors
    scale: Tensor


def cast(scenes: Scenes, grid: Grid, max_depth: float) -> Hits:
    """Cast the grid's rays from the scenes' cameras; depths stop at ``max_depth``, the sky's distance."""
    view, bodies = scenes.view, scenes.bodies
    rays, tiles = _camera_rays(scenes, grid)
    mask = touching(screen_bounds(bodies, view.eye, view.axes, view.intrinsics), tiles)
    slot, touched = nearest(bodies, view.eye, rays, mask, max_depth)
    depth, normal = refine(bodies, view.eye, rays, slot, touched)
    inside = 1 - ((depth - max_depth) * 1e6).clamp(0, 1).to(torch.int32)
    slot = slot * inside + (1 - inside) * SKY_SLOT
    reach = depth.clamp(max=max_depth)
    x, y, z = (e + t * reach for e, t in zip(rays.eye, rays.d, strict=True))
    pixel = (view.intrinsics[:, 0] * grid.per_pixel).reciprocal().index_select(0, rays.scene)[:, None]
    return Hits(rays, slot, reach, normal, (x, y, z), reach * pixel)


def _camera_rays(scenes: Scenes, grid: Grid) -> tuple[Rays, Tensor]:
    """The rays in rows by scene and tile, and the tiles' pixel bounds x0 y0 x1 y1 (tiles, 4)."""
    view, device = scenes.view, scenes.view.eye.device
    down, across = grid.tiles
    xs, ys = grid.positions(device)
    fx, fy, cx, cy = (view.intrinsics[:, i, None, None, None] for i in range(4))
    right, below = (xs - cx) / fx, (ys - cy) / fy
    d = []
    for axis in range(3):
        r, q, f = (view.axes[:, i, axis, None, None, None] for i in range(3))
        sideways, downwards = right * r + f, below * q
        d.append((sideways[:, None] + downwards[:, :, None]).view(-1, grid.size * grid.size))
    scene = torch.arange(len(scenes), device=device).repeat_interleave(down * across)
    eye = [view.eye[:, i].index_select(0, scene)[:, None] for i in range(3)]
    left, last = xs.amin((1, 2)).expand(down, across), xs.amax((1, 2)).expand(down, across)
    top, bottom = (edge[:, None].expand(down, across) for edge in (ys.amin((1, 2)), ys.amax((1, 2))))
    tiles = torch.stack([left, top, last, bottom], dim=-1).reshape(-1, 4)
    return Rays((d[0], d[1], d[2]), (eye[0], eye[1], eye[2]), scene), tiles


def _budget(device: torch.device) -> int:
    return _CPU_SAMPLES if device.type == "cpu" else _GPU_SAMPLES
