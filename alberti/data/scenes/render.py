"""From scene ids to pictures: materials, light, and everything put together."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alberti.data.scenes.captions import write_captions
from alberti.data.scenes.casting import Grid, Hits, cast
from alberti.data.scenes.config import SceneConfig
from alberti.data.scenes.facades import shade_facades
from alberti.data.scenes.ground import shade_ground
from alberti.data.scenes.layout import CABIN, CAR, FACADE, GROUND, LEAF, TRIM
from alberti.data.scenes.scene import SKY_SLOT, Scenes, build_scenes
from alberti.data.scenes.shadows import shadowed
from alberti.data.scenes.surfaces import shade_cabin, shade_car, shade_leaves, shade_sky, shade_trim
from alberti.data.scenes.tracing import Rays, Vectors, column, select
from alberti.data.scenes.visible import Visible, look, vanishing_points
from alberti.errors import ConfigError


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
        return shade_ground(scenes, rays, points, scale), []
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


def paint(scenes: Scenes, config: SceneConfig) -> Tensor:
    """(B, 3, H, W) uint8: radiance averaged over each pixel's samples, encoded with gamma 2."""
    bands = []
    for grid in Grid(config.width, config.height, config.supersample).bands(scenes.view.eye.device):
        hits = cast(scenes, grid, config.max_depth)
        albedo, emitted = _materials(scenes, hits)
        radiance = _light(scenes, hits, albedo, emitted, config.max_depth)
        bands.append(torch.stack([grid.image(_expose(channel), len(scenes)) for channel in radiance], dim=1))
    encoded = torch.cat(bands, dim=2).clamp(0, 1).sqrt() * 255 + 0.5
    return encoded.clamp(0, 255).to(torch.uint8)


def _expose(radiance: Tensor) -> Tensor:
    """Roll highlights off above 0.6 instead of clipping them."""
    high = (radiance - 0.6).clamp(min=0)
    return radiance.clamp(0, 0.6) + 0.4 * high / (high + 0.4)


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
    if not ids:
        raise ConfigError("ids: expected at least one scene")
    device = torch.device(device)
    with torch.no_grad():
        scenes = build(ids, seed, config, device)
        step = Grid(config.width, config.height, config.supersample).scenes_at_once(device)
        parts = [scenes.part(first, first + step) for first in range(0, len(scenes), step)]
        seen = Visible.join([look(part, config) for part in parts])
        if with_images:
            image = torch.cat([paint(part, config) for part in parts])
        else:
            image = torch.zeros(len(scenes), 3, config.height, config.width, dtype=torch.uint8, device=device)
        return {
            "image": image,
            "depth": seen.depth,
            "intrinsics": scenes.view.intrinsics,
            "vanishing_points": vanishing_points(scenes, seen, config),
            "captions": write_captions(scenes, seen, config),
        }


def build(ids: Sequence[str], seed: int, config: SceneConfig, device: torch.device) -> Scenes:
    """The scenes that ``config`` describes."""
    size = {"width": config.width, "height": config.height}
    return build_scenes(ids, seed, style=config.style, camera=config.camera, device=device, **size)
