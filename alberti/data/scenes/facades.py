"""What facades look like: windows in rows and columns, frames, sills, shutters, doors, bands, courses of brick.

A facade is a sheet of cells, whole ones from edge to edge. Everything is drawn as box-filtered strips in metres on the
wall, so that it stays crisp near by and fades to its mean far away instead of flickering.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alberti.data.scenes.buildings import FINISH, SHEET
from alberti.data.scenes.scene import SLOTS, Scenes
from alberti.data.scenes.textures import beyond, cell, hashed, mix, noise, strip
from alberti.data.scenes.tracing import Rays, Vectors, column

_WARM = (1.0, 0.72, 0.36)
_CURTAIN = (0.62, 0.58, 0.5)


class _Row:
    """Parameters per ray, looked up on first use."""

    def __init__(self, names: list[str], tables: Tensor, index: Tensor):
        self._names, self._tables, self._index = {name: i for i, name in enumerate(names)}, tables, index

    def __getattr__(self, name: str) -> Tensor:
        value = column(self._tables[self._names[name]], self._index)
        setattr(self, name, value)
        return value


@dataclass
class _Spot:
    """Where rays meet a wall, (T, R) each, metres: ``u`` from its edge, ``v`` above the ground, ``cu`` and ``cv`` from
    the middle of the cell; filter widths ``fu``, ``fv`` and their inverses; two random numbers of the cell."""

    u: Tensor
    v: Tensor
    cu: Tensor
    cv: Tensor
    fu: Tensor
    fv: Tensor
    sharp_u: Tensor
    sharp_v: Tensor
    chance: Tensor
    other: Tensor


def shade_facades(
    scenes: Scenes, rays: Rays, slot: Tensor, points: Vectors, normal: Vectors, sky: Vectors, scale: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Albedo and emitted (or mirrored) light, three (T, R) each, of rays whose hits are facades.

    ``sky`` three (T, 1): the colour that windows mirror. ``scale`` (T, R): metres a sample spans at the hit, facing it.
    """
    bodies, buildings = scenes.bodies, scenes.buildings
    u, v, axis, fu, fv = _wall_coordinates(scenes, rays, slot, points, normal, scale)
    facade = column(bodies.facade.to(torch.int32), slot)
    count = buildings.finish.shape[2]
    owner = facade + (rays.scene * count).to(torch.int32)[:, None]
    sheets = buildings.sheets.transpose(0, 1).flatten(1)
    lowest = _Row(SHEET, sheets, owner * 4 + axis * 2 + 1)
    upper = beyond(v - lowest.start_v, torch.full_like(v, 1e30)).round_().to(torch.int32)
    sheet = _Row(SHEET, sheets, owner * 4 + axis * 2 + upper)
    finish = _Row(FINISH, buildings.finish.transpose(0, 1).flatten(1), owner)
    column_index, cu = cell(u, sheet.pitch_u)
    row_index, cv = cell(v - sheet.start_v, sheet.pitch_v)
    key = (column_index * 37 + row_index * 101 + upper * 509 + axis * 211 + finish.seed).to(torch.int32)
    spot = _Spot(u, v, cu, cv, fu, fv, fu.reciprocal(), fv.reciprocal(), hashed(key), hashed(key + 1907))
    night = scenes.light.lit.index_select(0, rays.scene)[:, None]
    return _compose(spot, sheet, finish, night, (normal[1] * normal[1] * 2).clamp(max=1), sky)


def _wall_coordinates(
    scenes: Scenes, rays: Rays, slot: Tensor, points: Vectors, normal: Vectors, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Metres from the wall's edge, height, axis (0: wall across x), and filter widths along both."""
    bodies = scenes.bodies
    flat = slot + (rays.scene * SLOTS).to(torch.int32)[:, None]
    cos, sin = (column(bodies.yaw[..., i].flatten(), flat) for i in range(2))
    centre_x, centre_z = (column(bodies.centre[..., i].flatten(), flat) for i in (0, 2))
    half_x, half_z = (column(bodies.half[..., i].flatten(), flat) for i in (0, 2))

    def turned(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return x * cos - z * sin, x * sin + z * cos

    px, pz = turned(points[0] - centre_x, points[2] - centre_z)
    nx, _ = turned(normal[0], normal[2])
    across_x = (nx * nx * 2).clamp(max=1).round()
    axis = 1 - across_x.to(torch.int32)
    along, half = mix(px, pz, across_x), mix(half_x, half_z, across_x)
    dx, dz = turned(rays.d[0], rays.d[2])
    dn, du = mix(dz, dx, across_x), mix(dx, dz, across_x)
    dn = dn + 1e-4 * dn.sign() + 1e-12
    slant_u, slant_v = du / dn, rays.d[1] / dn
    fu, fv = torch.zeros_like(px), torch.zeros_like(px)
    for i in range(2):
        step = scenes.view.axes[:, i].index_select(0, rays.scene)
        sx, sz = turned(step[:, 0:1], step[:, 2:3])
        sn, su = mix(sz, sx, across_x), mix(sx, sz, across_x)
        fu = fu + (su - slant_u * sn).abs()
        fv = fv + (step[:, 1:2] - slant_v * sn).abs()
    fu, fv = (fu * scale).clamp(1e-3, 50.0), (fv * scale).clamp(1e-3, 50.0)
    return (along + half).clamp(min=0), points[1].clamp(min=0), axis, fu, fv


def _compose(
    spot: _Spot, sheet: _Row, finish: _Row, night: Tensor, roof: Tensor, sky: Vectors
) -> tuple[list[Tensor], list[Tensor]]:
    """Albedo and emitted light of the layers: wall, trim, shutters and doors, panes; ``roof`` is 1 on flat tops."""
    door = ((sheet.door - spot.chance) * 1e6).clamp(0, 1)
    half_width = mix(sheet.half_width, torch.minimum(sheet.half_width, 0.3 * sheet.half_width + 0.4), door)
    half_height = mix(sheet.half_height, 0.4 * sheet.pitch_v, door)
    wv = spot.cv - mix(sheet.lift, -0.1 * sheet.pitch_v, door)
    opening = _window(spot, wv, half_width, half_height, sheet)
    glass = _window(spot, wv, half_width - sheet.frame, half_height - sheet.frame, sheet)
    glass = glass * (1 - _bars(spot, wv, sheet))
    trim = torch.maximum(opening, _mouldings(spot, wv, half_width, half_height, sheet, door))
    wing = 0.5 * sheet.shutter
    shutter = strip((spot.cu.abs() - half_width - wing).abs(), wing, spot.sharp_u)
    shutter = shutter * strip(wv.abs(), half_height, spot.sharp_v) * (1 - door)
    # The opening's head lies in its own shade, and so does the wall under a band: that is what gives them depth.
    head = 0.5 * sheet.frame + 0.05
    recess = strip((wv - half_height + head).abs(), head, spot.sharp_v) * opening
    under = strip((0.5 * sheet.pitch_v - spot.cv.abs() - sheet.band - 0.1).abs(), 0.1, spot.sharp_v)
    shade = (1 - 0.55 * recess) * (1 - 0.25 * under * (sheet.band * 20).clamp(0, 1))
    accent, pane, keep = torch.maximum(shutter, glass * door), glass * (1 - door), 1 - roof
    drawn = beyond(wv - half_height * (1.6 * spot.chance - 1), spot.sharp_v)
    curtain = ((finish.curtain - spot.other) * 1e6).clamp(0, 1) * drawn * 0.8
    lit = ((sheet.lit - spot.other) * 1e6).clamp(0, 1) * night * (0.35 + 0.65 * spot.chance) * pane * keep
    mirror = pane * finish.shine * keep * (0.55 + 0.5 * spot.chance) * (1 - curtain)
    walls, brightness = (finish.wall_r, finish.wall_g, finish.wall_b), _wall(spot, finish)
    trims, accents = (finish.trim_r, finish.trim_g, finish.trim_b), (finish.accent_r, finish.accent_g, finish.accent_b)
    albedo, emitted = [], []
    for i in range(3):
        colour = mix(mix(walls[i] * brightness, trims[i], trim), accents[i], accent)
        colour = mix(colour, 0.025 + curtain * _CURTAIN[i], pane) * shade
        albedo.append(mix(colour, walls[i] * 0.3 + 0.08, roof))
        emitted.append(mirror * sky[i] + lit * (0.9 * _WARM[i]))
    return albedo, emitted


def _bars(spot: _Spot, wv: Tensor, sheet: _Row) -> Tensor:
    """Glazing bars: one or two upright, a crossbar."""
    upright = strip((spot.cu.abs() - sheet.mullion_u).abs(), sheet.mullion, spot.sharp_u)
    return torch.maximum(upright, strip((wv - sheet.mullion_v).abs(), sheet.mullion, spot.sharp_v))


def _mouldings(spot: _Spot, wv: Tensor, half_width: Tensor, half_height: Tensor, sheet: _Row, door: Tensor) -> Tensor:
    """Sills under windows, bands between floors, pilasters between columns of windows."""
    sill = strip((wv + half_height + sheet.sill).abs(), sheet.sill, spot.sharp_v)
    sill = sill * strip(spot.cu.abs(), (half_width + 0.14).clamp(min=0), spot.sharp_u)
    sill = sill * (1 - door) * (half_width * 1e6).clamp(0, 1)
    band = strip(0.5 * sheet.pitch_v - spot.cv.abs(), sheet.band, spot.sharp_v)
    pilaster = strip(0.5 * sheet.pitch_u - spot.cu.abs(), sheet.pilaster, spot.sharp_u)
    return torch.maximum(torch.maximum(sill, band), pilaster)


def _window(spot: _Spot, wv: Tensor, half_width: Tensor, half_height: Tensor, sheet: _Row) -> Tensor:
    """Coverage of the cell's rectangle; where the filter is wider than a cell, the sheet's mean."""
    half_width, half_height = half_width.clamp(min=0), half_height.clamp(min=0)
    blur_u = (spot.fu / sheet.pitch_u * 1.6 - 0.6).clamp(0, 1)
    blur_v = (spot.fv / sheet.pitch_v * 1.6 - 0.6).clamp(0, 1)
    across = mix(strip(spot.cu.abs(), half_width, spot.sharp_u), 2 * half_width / sheet.pitch_u, blur_u)
    return across * mix(strip(wv.abs(), half_height, spot.sharp_v), 2 * half_height / sheet.pitch_v, blur_v)


def _wall(spot: _Spot, finish: _Row) -> Tensor:
    """Brightness of the wall: courses with staggered joints, stains, grain, and damp near the ground."""
    u, v = spot.u, spot.v
    course = finish.course + 1e-3
    index, cv = cell(v, course)
    fine = (1.3 - 1.6 * spot.fv / course).clamp(0, 1)
    lines = strip(0.5 * course - cv.abs(), 0.06 * course, spot.sharp_v)
    joint = finish.joint + 1e-3
    odd = index - 2 * (index * 0.5).floor()
    brick, cu = cell(u + odd * 0.5 * joint, joint)
    ends = strip(0.5 * joint - cu.abs(), 0.06 * course, spot.sharp_u) * (1.3 - 1.6 * spot.fu / joint).clamp(0, 1)
    mortar = finish.course_depth * torch.maximum(lines, ends) * fine
    each = (hashed((index * 57 + brick * 131 + finish.seed).to(torch.int32)) - 0.5) * finish.course_depth * fine
    stain = noise(u * 2.3 + finish.seed, v * 1.1 + finish.seed)
    grain = noise(u * 21 + finish.seed, v * 21) - 0.5
    foot = 0.72 + 0.28 * (v * 1.2).clamp(max=1)
    return (1 - mortar) * (1 + 0.7 * each) * (0.9 + 0.2 * stain) * (1 + 0.12 * grain * fine) * foot
