"""From scene ids to pictures: casting, shading, and what is visible in the result."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alberti.data.scenes.captions import write_captions
from alberti.data.scenes.config import SceneConfig
from alberti.data.scenes.facades import shade_facades
from alberti.data.scenes.ground import shade_ground, side_street
from alberti.data.scenes.layout import CABIN, CAR, FACADE, GROUND, LEAF, TRIM
from alberti.data.scenes.scene import SKY_SLOT, SLOTS, Scenes, build_scenes
from alberti.data.scenes.shadows import shadowed
from alberti.data.scenes.surfaces import shade_cabin, shade_car, shade_leaves, shade_sky, shade_trim
from alberti.data.scenes.tracing import Rays, Vectors, column, nearest, refine, screen_bounds, select, touching

_TILE = 16


@dataclass
class Hits:
    """First hits of tiled rays, (T, R) each; ``points`` in street axes."""

    rays: Rays
    slot: Tensor
    depth: Tensor
    normal: Vectors
    points: Vectors
    scale: Tensor
    """Metres that one sample spans at the hit, facing it."""


@dataclass
class Grid:
    """How an image is cut into tiles of ``size`` x ``size`` samples, ``per_pixel`` samples along each pixel's side."""

    width: int
    height: int
    per_pixel: int

    @property
    def size(self) -> int:
        """Samples along a tile's side: a whole number of pixels."""
        return self.per_pixel * max(1, _TILE // self.per_pixel)

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles down and across."""
        return -(-self.height * self.per_pixel // self.size), -(-self.width * self.per_pixel // self.size)

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
        starts_x, starts_y = (torch.arange(count, device=device)[:, None, None] * step for count in (across, down))
        return starts_x + x, starts_y + y

    def image(self, values: Tensor, batch: int) -> Tensor:
        """(T, R) samples -> (B, H, W) means over pixels."""
        down, across = self.tiles
        n, s = self.size // self.per_pixel, self.per_pixel
        blocks = values.view(batch, down, across, n, s, n, s)
        total = blocks[:, :, :, :, 0, :, 0].clone()
        for i in range(s):
            for j in range(s):
                if i or j:
                    total += blocks[:, :, :, :, i, :, j]
        pixels = total.permute(0, 1, 3, 2, 4).reshape(batch, down * n, across * n)[:, : self.height, : self.width]
        return pixels / (s * s) if s > 1 else pixels.contiguous()


def cast(scenes: Scenes, grid: Grid, max_depth: float) -> Hits:
    """Cast the grid's rays from the scenes' cameras."""
    view, device = scenes.view, scenes.view.eye.device
    down, across = grid.tiles
    batch = len(scenes)
    xs, ys = grid.positions(device)
    fx, fy, cx, cy = (view.intrinsics[:, i, None, None, None] for i in range(4))
    right, below = (xs - cx) / fx, (ys - cy) / fy
    d = []
    for axis in range(3):
        r, q, f = (view.axes[:, i, axis, None, None, None] for i in range(3))
        sideways, downwards = right * r + f, below * q
        d.append((sideways[:, None] + downwards[:, :, None]).view(-1, grid.size * grid.size))
    scene = torch.arange(batch, device=device).repeat_interleave(down * across)
    eye = tuple(view.eye[:, i].index_select(0, scene)[:, None] for i in range(3))
    rays = Rays((d[0], d[1], d[2]), (eye[0], eye[1], eye[2]), scene)
    edges_x, edges_y = (torch.stack([side.amin((1, 2)), side.amax((1, 2))], 1) for side in (xs, ys))
    tiles = torch.stack(
        [
            edges_x[None, :, 0].expand(down, across),
            edges_y[:, None, 0].expand(down, across),
            edges_x[None, :, 1].expand(down, across),
            edges_y[:, None, 1].expand(down, across),
        ],
        dim=-1,
    ).reshape(-1, 4)
    mask = touching(screen_bounds(scenes.bodies, view.eye, view.axes, view.intrinsics), tiles)
    slot, touched = nearest(scenes.bodies, view.eye, rays, mask, max_depth)
    depth, normal = refine(scenes.bodies, view.eye, rays, slot, touched)
    inside = 1 - ((depth - max_depth) * 1e6).clamp(0, 1)
    slot = (slot * inside.to(torch.int32)) + (1 - inside).to(torch.int32) * SKY_SLOT
    reach = depth.clamp(max=max_depth)
    points = tuple(e + t * reach for e, t in zip(rays.eye, rays.d, strict=True))
    pixel = (view.intrinsics[:, 0] * grid.per_pixel).reciprocal().index_select(0, scene)[:, None]
    return Hits(rays, slot, reach, normal, (points[0], points[1], points[2]), reach * pixel)


def _mirrored_sky(scenes: Scenes, rays: Rays) -> Vectors:
    light = scenes.light
    colour = (light.horizon * 0.6 + light.zenith * 0.4).index_select(0, rays.scene)
    return (colour[:, 0:1], colour[:, 1:2], colour[:, 2:3])


def _materials(scenes: Scenes, hits: Hits) -> tuple[list[Tensor], list[Tensor]]:
    """Albedo and emitted light, three (T, R) each: every kind is evaluated on the tiles where it shows."""
    kind = column(scenes.bodies.kind, hits.slot)
    albedo = [torch.zeros_like(hits.depth) for _ in range(3)]
    emitted = [torch.zeros_like(hits.depth) for _ in range(3)]
    for which in (0, GROUND, FACADE, TRIM, CAR, CABIN, LEAF):
        mine = 1 - (kind - which).abs().clamp_(max=1)
        rows = mine.amax(1).nonzero()[:, 0]
        if not len(rows):
            continue
        mine = mine.index_select(0, rows)
        rays = hits.rays.rows(rows)
        slot = hits.slot.index_select(0, rows) * mine.to(torch.int32)
        points, normal = select(hits.points, rows), select(hits.normal, rows)
        scale = hits.scale.index_select(0, rows)
        colour, light = _shade(scenes, which, rays, slot, points, normal, scale)
        for target, values in ((albedo, colour), (emitted, light)):
            for total, value in zip(target, values, strict=False):
                total.index_add_(0, rows, value * mine)
    return albedo, emitted


def _shade(
    scenes: Scenes, kind: int, rays: Rays, slot: Tensor, points: Vectors, normal: Vectors, scale: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    if kind == 0:
        return [], shade_sky(scenes, rays)
    if kind == GROUND:
        return shade_ground(scenes, rays, points, scale)[0], []
    if kind == TRIM:
        return shade_trim(scenes, rays, slot, points, normal, scale), []
    if kind == LEAF:
        return shade_leaves(scenes, rays, slot, points), []
    sky = _mirrored_sky(scenes, rays)
    if kind == FACADE:
        return shade_facades(scenes, rays, slot, points, normal, sky, scale)
    shader = shade_car if kind == CAR else shade_cabin
    return shader(scenes, rays, slot, points, normal, scale, sky)


def _light(scenes: Scenes, hits: Hits, albedo: list[Tensor], emitted: list[Tensor], max_depth: float) -> list[Tensor]:
    """Radiance, three (T, R): sun with cast shadows, sky light, street lamps, haze."""
    light, scene = scenes.light, hits.rays.scene

    def row(values: Tensor) -> Tensor:
        return values.index_select(0, scene)[:, None]

    n = hits.normal
    solid = 1 - (hits.slot.float() - SKY_SLOT).abs().clamp(max=1)
    solid = 1 - solid
    facing = n[0] * row(light.sun[:, 0]) + n[1] * row(light.sun[:, 1]) + n[2] * row(light.sun[:, 2])
    facing = facing.clamp(min=0) * solid
    asks = (facing * 1e6).clamp(0, 1)
    shade = shadowed(scenes.bodies, light.sun, hits.points, asks, scene)
    direct = facing * (1 - shade)
    open_sky = (0.74 + 0.26 * n[1] + 0.06 * n[0] - 0.05 * n[2] * n[2]).clamp(min=0)
    first, step = row(scenes.furniture.lamp_z[:, 0]), row(scenes.furniture.lamp_z[:, 1])
    dz = hits.points[2] - first
    dz = dz - (dz / step).round() * step
    dx, dy = hits.points[0].abs() - row(scenes.furniture.lamp_x), hits.points[1] - 3.5
    pool = row(light.lamps) * 0.75 / (1 + (dz * dz + dx * dx + dy * dy * 0.5) * 0.12)
    haze = (hits.depth * row(-light.haze)).exp()
    fade = ((hits.depth - 0.86 * max_depth) / (0.14 * max_depth)).clamp(0, 1)
    keep = haze * (1 - fade * fade) * solid + (1 - solid)
    radiance = []
    for i in range(3):
        lamp = pool * (1.0, 0.74, 0.42)[i]
        lit = row(light.ambient[:, i]) * open_sky + row(light.sun_colour[:, i]) * direct + lamp
        colour = albedo[i] * lit + emitted[i]
        radiance.append((colour - row(light.horizon[:, i])) * keep + row(light.horizon[:, i]))
    return radiance


def _picture(scenes: Scenes, config: SceneConfig) -> Tensor:
    """(B, 3, H, W) uint8: radiance averaged over each pixel's samples, encoded with gamma 2."""
    grid = Grid(config.width, config.height, config.supersample)
    hits = cast(scenes, grid, config.max_depth)
    albedo, emitted = _materials(scenes, hits)
    radiance = _light(scenes, hits, albedo, emitted, config.max_depth)
    batch = len(scenes)
    planes = [grid.image(_expose(channel), batch) for channel in radiance]
    encoded = torch.stack(planes, dim=1).clamp(0, 1).sqrt() * 255 + 0.5
    return encoded.clamp(0, 255).to(torch.uint8)


def _expose(radiance: Tensor) -> Tensor:
    """Roll highlights off above 0.6 instead of clipping them."""
    high = (radiance - 0.6).clamp(min=0)
    return radiance.clamp(0, 0.6) + 0.4 * high / (high + 0.4)


@dataclass
class Visible:
    """What is seen at the pixels' centres: ``depth`` (B, H, W) with 0 for the sky, ``slots`` (B, SLOTS) pixel counts
    of things, ``walls`` (B, 2) of walls across x and across z, ``ground`` (B, 3) of carriageway-and-pavement, of
    crossings, of side streets."""

    depth: Tensor
    slots: Tensor
    walls: Tensor
    ground: Tensor


def look(scenes: Scenes, config: SceneConfig) -> Visible:
    """Cast one ray through the centre of each pixel."""
    grid = Grid(config.width, config.height, 1)
    hits = cast(scenes, grid, config.max_depth)
    batch = len(scenes)
    slot = grid.image(hits.slot, batch)
    solid = (slot != SKY_SLOT).to(torch.float32)
    depth = grid.image(hits.depth, batch) * solid
    offset = torch.arange(batch, device=depth.device)[:, None, None] * SLOTS
    counts = torch.bincount((slot + offset).flatten(), minlength=batch * SLOTS).view(batch, SLOTS)
    kind = column(scenes.bodies.kind, hits.slot)
    facade = 1 - (kind - FACADE).abs().clamp(max=1)
    across_x, across_z = (grid.image(facade * (hits.normal[i].abs() > 0.9), batch) for i in (0, 2))
    on_ground = 1 - (kind - GROUND).abs().clamp(max=1)
    zebra = shade_ground(scenes, hits.rays, hits.points, hits.scale)[1] * on_ground
    side = side_street(scenes, hits.rays, hits.points, hits.scale) * on_ground
    sums = [(grid.image(v, batch) > 0.4).sum((1, 2)) for v in (across_x, across_z, on_ground, zebra, side)]
    return Visible(depth, counts, torch.stack(sums[:2], 1), torch.stack(sums[2:], 1))


def vanishing_points(scenes: Scenes, seen: Visible, config: SceneConfig) -> Tensor:
    """(B, 3, 3) float64 homogeneous pixels, unit norm, of the street's directions along, across and up that have
    visible structure, those with most of it first; the rest are rows of zeros."""
    view = scenes.view
    axes, k = view.axes.double(), view.intrinsics.double()
    # Direction e_i in camera axes is the i-th column of ``axes``; along first.
    along, across, up = axes[..., 2], axes[..., 0], axes[..., 1]
    points = []
    for direction in (along, across, up):
        x = k[:, 0] * direction[:, 0] + k[:, 2] * direction[:, 2]
        y = k[:, 1] * direction[:, 1] + k[:, 3] * direction[:, 2]
        w = direction[:, 2]
        norm = (x * x + y * y + w * w).sqrt()
        points.append(torch.stack([x / norm, y / norm, w / norm], dim=1))
    stacked = torch.stack(points, dim=1)
    wall_x, wall_z = seen.walls[:, 0], seen.walls[:, 1]
    ground, cars = seen.ground[:, 0], seen.slots[:, scenes.slots["cars"]].sum(1)
    across_share = 4 * wall_z + 0.4 * ground + seen.ground[:, 2] + 2 * cars
    scores = torch.stack([4 * wall_x + ground, across_share, 3 * (wall_x + wall_z)], dim=1)
    present = scores >= 0.08 * config.width * config.height
    order = torch.argsort(scores * present, dim=1, descending=True, stable=True)
    chosen = stacked * present[..., None]
    return chosen.gather(1, order[..., None].expand(-1, -1, 3))


def render_batch(
    ids: Sequence[str],
    seed: int,
    config: SceneConfig,
    device: str | torch.device = "cpu",
    *,
    with_images: bool = True,
) -> dict[str, Any]:
    """Render scenes on ``device`` and leave the tensors there. Without ``with_images`` the pictures are black.

    Returns:
        ``image`` (B, 3, H, W) uint8, ``depth`` (B, H, W) float32 metres along the optical axis (0 = sky),
        ``intrinsics`` (B, 4), ``vanishing_points`` (B, 3, 3) float64 with rows of zeros for absent ones, ``captions``.
    """
    device = torch.device(device)
    with torch.no_grad():
        scenes = build(ids, seed, config, device)
        blank = torch.zeros(len(scenes), 3, config.height, config.width, dtype=torch.uint8, device=device)
        image = _picture(scenes, config) if with_images else blank
        seen = look(scenes, config)
        return {
            "image": image,
            "depth": seen.depth,
            "intrinsics": scenes.view.intrinsics,
            "vanishing_points": vanishing_points(scenes, seen, config),
            "captions": write_captions(scenes, seen.slots, seen.ground, config),
        }


def build(ids: Sequence[str], seed: int, config: SceneConfig, device: torch.device) -> Scenes:
    """The scenes that ``config`` describes."""
    size = {"width": config.width, "height": config.height}
    return build_scenes(ids, seed, style=config.style, camera=config.camera, device=device, **size)
