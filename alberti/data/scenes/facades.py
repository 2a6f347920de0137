"""What facades look like: windows in rows and columns, frames, sills, shutters, doors, bands, courses of brick.

A facade is a sheet of cells, whole ones from edge to edge. Everything is drawn as box-filtered strips in metres on the
wall, so that it stays crisp near by and fades to its mean far away instead of flickering.
"""

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
    sharp_u, sharp_v = fu.reciprocal(), fv.reciprocal()
    column_index, cu = cell(u, sheet.pitch_u)
    row_index, cv = cell(v - sheet.start_v, sheet.pitch_v)
    key = (column_index * 37 + row_index * 101 + upper * 509 + axis * 211 + finish.seed).to(torch.int32)
    chance, other = hashed(key), hashed(key + 1907)
    return _compose(scenes, rays, sheet, finish, u, v, cu, cv, sharp_u, sharp_v, fu, fv, chance, other, normal, sky)


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
    scenes: Scenes,
    rays: Rays,
    sheet: _Row,
    finish: _Row,
    u: Tensor,
    v: Tensor,
    cu: Tensor,
    cv: Tensor,
    sharp_u: Tensor,
    sharp_v: Tensor,
    fu: Tensor,
    fv: Tensor,
    chance: Tensor,
    other: Tensor,
    normal: Vectors,
    sky: Vectors,
) -> tuple[list[Tensor], list[Tensor]]:
    au = cu.abs()
    door = ((sheet.door - chance) * 1e6).clamp(0, 1)
    half_width = mix(sheet.half_width, torch.minimum(sheet.half_width, 0.3 * sheet.half_width + 0.4), door)
    half_height = mix(sheet.half_height, 0.4 * sheet.pitch_v, door)
    lift = mix(sheet.lift, -0.1 * sheet.pitch_v, door)
    wv = cv - lift
    av = wv.abs()
    opening = _window(au, av, half_width, half_height, sharp_u, sharp_v, sheet, fu, fv)
    glass = _window(au, av, half_width - sheet.frame, half_height - sheet.frame, sharp_u, sharp_v, sheet, fu, fv)
    bars_u = strip((au - sheet.mullion_u).abs(), sheet.mullion, sharp_u)
    bars_v = strip((wv - sheet.mullion_v).abs(), sheet.mullion, sharp_v)
    glass = glass * (1 - torch.maximum(bars_u, bars_v))
    trim = opening
    sill = sheet.sill
    ledge = strip((wv + half_height + sill).abs(), sill, sharp_v) * strip(au, (half_width + 0.14).clamp(min=0), sharp_u)
    trim = torch.maximum(trim, ledge * (1 - door) * (half_width * 1e6).clamp(0, 1))
    edge = 0.5 * sheet.pitch_v - cv.abs()
    trim = torch.maximum(trim, strip(edge, sheet.band, sharp_v))
    trim = torch.maximum(trim, strip(0.5 * sheet.pitch_u - au, sheet.pilaster, sharp_u))
    wing = 0.5 * sheet.shutter
    shutter = strip((au - half_width - wing).abs(), wing, sharp_u) * strip(av, half_height, sharp_v)
    shutter = shutter * (1 - door)
    wall = _wall(finish, u, v, sharp_u, sharp_v, fu, fv)
    # The opening's head and one jamb lie in their own shade: that is what makes a window a recess.
    depth = 0.5 * sheet.frame + 0.05
    recess = strip((wv - half_height + depth).abs(), depth, sharp_v) * opening
    shade = (1 - 0.55 * recess) * (
        1 - 0.25 * strip((edge - sheet.band - 0.1).abs(), 0.1, sharp_v) * (sheet.band * 20).clamp(0, 1)
    )
    accent = torch.maximum(shutter, glass * door)
    pane = glass * (1 - door)
    roof = (normal[1] * normal[1] * 2).clamp(max=1)
    keep = 1 - roof
    curtain = (
        ((finish.curtain - other) * 1e6).clamp(0, 1) * beyond(wv - half_height * (1.6 * chance - 1), sharp_v) * 0.8
    )
    lit = ((sheet.lit - other) * 1e6).clamp(0, 1) * scenes.light.lit.index_select(0, rays.scene)[:, None]
    lit = lit * (0.35 + 0.65 * chance) * pane * keep
    mirror = pane * finish.shine * keep * (0.55 + 0.5 * chance) * (1 - curtain)
    albedo, emitted = [], []
    walls = (finish.wall_r, finish.wall_g, finish.wall_b)
    trims = (finish.trim_r, finish.trim_g, finish.trim_b)
    accents = (finish.accent_r, finish.accent_g, finish.accent_b)
    for i in range(3):
        colour = mix(walls[i] * wall, trims[i], trim)
        colour = mix(colour, accents[i], accent)
        colour = mix(colour, 0.025 + curtain * _CURTAIN[i], pane) * shade
        albedo.append(mix(colour, walls[i] * 0.3 + 0.08, roof))
        emitted.append(mirror * sky[i] + lit * (0.9 * _WARM[i]))
    return albedo, emitted


def _window(
    au: Tensor,
    av: Tensor,
    half_width: Tensor,
    half_height: Tensor,
    sharp_u: Tensor,
    sharp_v: Tensor,
    sheet: _Row,
    fu: Tensor,
    fv: Tensor,
) -> Tensor:
    """Coverage of the cell's rectangle; where the filter is wider than a cell, the sheet's mean."""
    half_width, half_height = half_width.clamp(min=0), half_height.clamp(min=0)
    blur_u = (fu / sheet.pitch_u * 1.6 - 0.6).clamp(0, 1)
    blur_v = (fv / sheet.pitch_v * 1.6 - 0.6).clamp(0, 1)
    across = mix(strip(au, half_width, sharp_u), 2 * half_width / sheet.pitch_u, blur_u)
    return across * mix(strip(av, half_height, sharp_v), 2 * half_height / sheet.pitch_v, blur_v)


def _wall(finish: _Row, u: Tensor, v: Tensor, sharp_u: Tensor, sharp_v: Tensor, fu: Tensor, fv: Tensor) -> Tensor:
    """Brightness of the wall: courses with staggered joints, stains, grain, and damp near the ground."""
    course = finish.course + 1e-3
    index, cv = cell(v, course)
    fine = (1.3 - 1.6 * fv / course).clamp(0, 1)
    lines = strip(0.5 * course - cv.abs(), 0.06 * course, sharp_v)
    joint = finish.joint + 1e-3
    odd = index - 2 * (index * 0.5).floor()
    brick, cu = cell(u + odd * 0.5 * joint, joint)
    ends = strip(0.5 * joint - cu.abs(), 0.06 * course, sharp_u) * (1.3 - 1.6 * fu / joint).clamp(0, 1)
    mortar = finish.course_depth * torch.maximum(lines, ends) * fine
    each = (hashed((index * 57 + brick * 131 + finish.seed).to(torch.int32)) - 0.5) * finish.course_depth * fine
    stain = noise(u * 2.3 + finish.seed, v * 1.1 + finish.seed)
    grain = noise(u * 21 + finish.seed, v * 21) - 0.5
    foot = 0.72 + 0.28 * (v * 1.2).clamp(max=1)
    return (1 - mortar) * (1 + 0.7 * each) * (0.9 + 0.2 * stain) * (1 + 0.12 * grain * fine) * foot
