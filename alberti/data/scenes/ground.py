"""The ground: carriageway with markings, kerbs, paved or grassed edges, side streets and crossings."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alberti.data.scenes.layout import CROSSINGS
from alberti.data.scenes.scene import Scenes
from alberti.data.scenes.textures import beyond, cell, mix, noise, strip
from alberti.data.scenes.tracing import Rays, Vectors

_PAINT = 0.62
_GRASS = (0.075, 0.125, 0.035)
_PAVING = ((0.36, 0.345, 0.32), (0.30, 0.27, 0.24), (0.44, 0.43, 0.42), (0.40, 0.39, 0.37), (0.42, 0.36, 0.31))
_ASPHALT = (0.085, 0.17, 0.07, 0.13, 0.12)
_KERB = (0.5, 0.45, 0.55, 0.5, 0.42)


@dataclass
class _Frame:
    """Ground coordinates of rays: |x|, distance to the nearest side street, signed distance to the carriageway."""

    ax: Tensor
    dz: Tensor
    to_road: Tensor
    sharp_x: Tensor
    sharp_z: Tensor
    sharp_road: Tensor
    zebra: Tensor
    in_street: Tensor


def _per_row(values: Tensor, rays: Rays) -> Tensor:
    """(B,) -> (T, 1)."""
    return values.to(torch.float32).index_select(0, rays.scene)[:, None]


def _frame(scenes: Scenes, rays: Rays, points: Vectors, scale: Tensor) -> _Frame:
    plan = scenes.plan
    x, z = points[0], points[2]
    slope = rays.d[1] - 1e-4
    fx, fz = torch.zeros_like(x), torch.zeros_like(x)
    for i in range(2):
        step = scenes.view.axes[:, i].index_select(0, rays.scene)
        fx = fx + (step[:, 0:1] - rays.d[0] / slope * step[:, 1:2]).abs()
        fz = fz + (step[:, 2:3] - rays.d[2] / slope * step[:, 1:2]).abs()
    fx, fz = (fx * scale).clamp(1e-3, 50.0), (fz * scale).clamp(1e-3, 50.0)
    ax = x.abs()
    right = (x * 1e6).clamp(0, 1)
    road = _per_row(plan.road, rays)
    outside = ((ax - road) * 1e6).clamp(0, 1)
    nearest, zebra = torch.full_like(x, 1e3), torch.zeros_like(x)
    for j in range(CROSSINGS):
        left_open, right_open = (_per_row(plan.cross_side[:, j, k], rays) for k in range(2))
        either = torch.maximum(left_open, right_open)
        here = mix(either, mix(left_open, right_open, right), outside)
        distance = (z - _per_row(plan.cross_z[:, j], rays)).abs() + (1 - here) * 1e3
        closer = ((nearest - distance) * 1e6).clamp(0, 1)
        zebra = mix(zebra, _per_row(plan.zebra[:, j], rays), closer)
        nearest = torch.minimum(nearest, distance)
    over_x, over_z = ax - road, nearest - _per_row(plan.cross_road, rays)
    by_x = ((over_z - over_x) * 1e6).clamp(0, 1)
    filter_road = mix(fz, fx, by_x)
    closed, end = _per_row(plan.closed, rays), _per_row(plan.end, rays)
    in_street = 1 - ((z - end) * 1e6).clamp(0, 1) * closed
    sharp = (fx.reciprocal(), fz.reciprocal(), filter_road.reciprocal())
    return _Frame(ax, nearest, torch.minimum(over_x, over_z), *sharp, zebra, in_street)


def _zebra(frame: _Frame, scenes: Scenes, rays: Rays, x: Tensor) -> Tensor:
    """Coverage of painted bars of pedestrian crossings over the street, beside side streets."""
    road, cross_road = _per_row(scenes.plan.road, rays), _per_row(scenes.plan.cross_road, rays)
    _, cx = cell(x, 1.1)
    blurred = (2 / frame.sharp_x - 1).clamp(0, 1)
    bars = mix(strip(cx.abs(), 0.28, frame.sharp_x), 0.51, blurred)
    length = strip((frame.dz - cross_road - 2.4).abs(), 1.4, frame.sharp_z)
    return bars * length * beyond(road - 0.25 - frame.ax, frame.sharp_x) * frame.zebra


def _markings(frame: _Frame, scenes: Scenes, rays: Rays, x: Tensor, z: Tensor) -> Tensor:
    """Coverage of white paint."""
    plan = scenes.plan
    road, cross_road = _per_row(plan.road, rays), _per_row(plan.cross_road, rays)
    lanes, wide = _per_row(plan.lanes, rays), (road - 4.0).clamp(0, 0.5) * 2
    clear = beyond(frame.dz - cross_road - 4.2, frame.sharp_z)
    _, dash = cell(z, 6.0)
    dashes = strip(dash.abs(), 1.5, frame.sharp_z)
    centre = strip(frame.ax, 0.07, frame.sharp_x) * dashes
    edge = strip((frame.ax - road + 0.4).abs(), 0.06, frame.sharp_x)
    parking = strip((frame.ax - road + 2.15).abs(), 0.05, frame.sharp_x) * beyond(road - 3.0, frame.sharp_x)
    lane = strip((frame.ax - 0.5 * road).abs(), 0.06, frame.sharp_x) * dashes
    along = torch.maximum(centre, mix(parking, torch.maximum(lane, edge), wide))
    on_road = beyond(road - 0.3 - frame.ax, frame.sharp_x)
    stop = strip((frame.dz - cross_road - 4.5).abs(), 0.18, frame.sharp_z) * on_road
    _, cross_dash = cell(x, 6.0)
    side = strip(frame.dz, 0.07, frame.sharp_z) * strip(cross_dash.abs(), 1.5, frame.sharp_x)
    side = side * beyond(frame.ax - road - 1, frame.sharp_x)
    paint = torch.maximum(along * clear, torch.maximum(side, stop * frame.zebra)) * lanes
    return torch.maximum(paint, _zebra(frame, scenes, rays, x)) * frame.in_street


def _surfaces(frame: _Frame, scenes: Scenes, rays: Rays, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coverage of road, kerb, grass, and the brightness of the paving's joints."""
    plan = scenes.plan
    carriageway = beyond(-frame.to_road, frame.sharp_road) * frame.in_street
    kerb = strip((frame.to_road - 0.13).abs(), 0.13, frame.sharp_road)
    pavement, verge = _per_row(plan.pavement, rays), _per_row(plan.verge, rays)
    green = beyond(frame.to_road - 0.26, frame.sharp_road) * beyond(verge - frame.to_road, frame.sharp_road)
    yards = _per_row((plan.front - plan.road - plan.pavement > 0.8), rays)
    yard = beyond(frame.to_road - pavement, frame.sharp_road) * yards
    grass = torch.maximum(green * (verge * 10).clamp(0, 1), yard)
    slab = 0.9 + 0.5 * _per_row(plan.road - plan.road.floor(), rays)
    _, sx = cell(x, slab)
    _, sz = cell(z, slab)
    near = (1.4 - 1.8 / (torch.minimum(frame.sharp_x, frame.sharp_z) * slab)).clamp(0, 1)
    joints = torch.maximum(
        strip(0.5 * slab - sx.abs(), 0.025, frame.sharp_x), strip(0.5 * slab - sz.abs(), 0.025, frame.sharp_z)
    )
    return carriageway, kerb, grass, 1 - 0.45 * joints * near


def shade_ground(scenes: Scenes, rays: Rays, points: Vectors, scale: Tensor) -> list[Tensor]:
    """Albedo, three (T, R), of the ground at the hits."""
    x, z = points[0], points[2]
    frame = _frame(scenes, rays, points, scale)
    carriageway, kerb, grass, joints = _surfaces(frame, scenes, rays, x, z)
    paint = _markings(frame, scenes, rays, x, z) * carriageway
    coarse, fine = noise(x * 2.7, z * 0.9), noise(x * 23, z * 23) - 0.5
    near = (1.5 - 1.5 / torch.minimum(frame.sharp_x, frame.sharp_z)).clamp(0, 1)
    rough = (0.82 + 0.36 * coarse) * (1 + 0.35 * fine * near)
    gutter = strip((frame.to_road + 0.16).abs(), 0.16, frame.sharp_road)
    lane_middle = 0.5 * _per_row(scenes.plan.road, rays)
    tracks = 1 - 0.12 * strip(((frame.ax - lane_middle).abs() - 0.75).abs(), 0.25, frame.sharp_x)
    style = scenes.plan.style
    device = x.device
    asphalt = _per_row(torch.tensor(_ASPHALT, device=device)[style], rays) * rough * tracks * (1 - 0.3 * gutter)
    stone = _per_row(torch.tensor(_KERB, device=device)[style], rays)
    paving = torch.tensor(_PAVING, device=device)[style]
    albedo = []
    for i in range(3):
        walk = _per_row(paving[:, i], rays) * joints * (0.9 + 0.2 * coarse)
        colour = mix(walk, _GRASS[i] * (0.6 + 0.8 * coarse) * (1 + 0.8 * fine * near), grass)
        colour = mix(colour, asphalt, carriageway)
        colour = mix(colour, stone * (0.85 + 0.3 * coarse), kerb)
        albedo.append(mix(colour, _PAINT * (0.8 + 0.3 * coarse), paint))
    return albedo


def ground_marks(scenes: Scenes, rays: Rays, points: Vectors, scale: Tensor) -> tuple[Tensor, Tensor]:
    """(T, R) each: coverage of pedestrian crossings, and 1 on the carriageway of side streets, off the street's own."""
    frame = _frame(scenes, rays, points, scale)
    zebra = _zebra(frame, scenes, rays, points[0]) * frame.in_street
    off = ((frame.ax - _per_row(scenes.plan.road, rays) - 0.5) * 1e6).clamp(0, 1)
    return zebra, off * ((_per_row(scenes.plan.cross_road, rays) - frame.dz) * 1e6).clamp(0, 1)
