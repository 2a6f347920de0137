"""What everything but facades and ground looks like: roofs and details, cars, foliage, sky."""

import torch
from torch import Tensor

from alberti.data.scenes.scene import SLOTS, Scenes
from alberti.data.scenes.textures import beyond, cell, leaf_noise, mix, noise, strip
from alberti.data.scenes.tracing import Rays, Vectors, column


def _flat(slot: Tensor, rays: Rays) -> Tensor:
    return slot + (rays.scene * SLOTS).to(torch.int32)[:, None]


def _colours(table: Tensor, flat: Tensor) -> list[Tensor]:
    return [column(table[..., i].flatten(), flat) for i in range(3)]


def _per_row(values: Tensor, rays: Rays) -> Tensor:
    return values.index_select(0, rays.scene)[:, None]


def shade_trim(scenes: Scenes, rays: Rays, slot: Tensor, points: Vectors, normal: Vectors, scale: Tensor) -> list[Tensor]:
    """Plain colours with darker lines: tiles on roofs, boards, stripes."""
    flat = _flat(slot, rays)
    upright = ((0.3 - normal[1].abs()) * 1e3).clamp(0, 1)
    level = ((normal[1].abs() - 0.97) * 1e3).clamp(0, 1)
    period = column(scenes.bodies.stripe.flatten(), flat)
    striped = (period * 1e3).clamp(0, 1)
    _, offset = cell(mix(points[1], points[2], level), period.clamp(min=1e-2))
    facing = (rays.d[0] * normal[0] + rays.d[1] * normal[1] + rays.d[2] * normal[2]).abs() + 0.05
    width = scale / facing
    fine = (1.4 - 1.8 * width / period.clamp(min=1e-2)).clamp(0, 1)
    lines = strip(0.5 * period - offset.abs(), 0.14 * period, width.reciprocal()) * striped * fine
    shade = (1 - 0.45 * lines) * (0.88 + 0.24 * noise((points[0] + points[2]) * 3.1, points[1] * 3.1))
    top, side = _colours(scenes.bodies.top, flat), _colours(scenes.bodies.side, flat)
    return [mix(a, b, upright) * shade for a, b in zip(top, side, strict=True)]


def shade_car(
    scenes: Scenes, rays: Rays, slot: Tensor, points: Vectors, normal: Vectors, scale: Tensor, sky: Vectors
) -> tuple[list[Tensor], list[Tensor]]:
    """Bodies: wheels in their arches, sills, doors, lights and plates at the ends, a little gloss."""
    bodies, flat = scenes.bodies, _flat(slot, rays)
    centre = [column(bodies.centre[..., i].flatten(), flat) for i in (0, 2)]
    half_x, half_z = (column(bodies.half[..., i].flatten(), flat) for i in (0, 2))
    turned = ((half_x - half_z) * 1e6).clamp(0, 1)
    px, pz, y = points[0] - centre[0], points[2] - centre[1], points[1]
    along, aside = mix(pz, px, turned), mix(px, pz, turned)
    front, side = mix(normal[2], normal[0], turned), mix(normal[0], normal[2], turned)
    long_half, wide_half = mix(half_z, half_x, turned), mix(half_x, half_z, turned)
    facing = (rays.d[0] * normal[0] + rays.d[1] * normal[1] + rays.d[2] * normal[2]).abs() + 0.1
    sharp = (facing / scale).clamp(max=1e3)
    end, flank = front * front, side * side
    dx, dy = along.abs() - 0.62 * long_half, y - 0.32
    radius = (dx * dx + dy * dy + 1e-9).sqrt()
    tyre, rim = beyond(0.37 - radius, sharp) * flank, beyond(0.2 - radius, sharp) * flank
    under = beyond(0.2 - y, sharp) * (1 - tyre) * (flank + end).clamp(max=1)
    seam = strip((along - 0.06 * long_half).abs(), 0.015, sharp) + strip((along + 0.42 * long_half).abs(), 0.015, sharp)
    crease = strip((y - 0.58).abs(), 0.02, sharp)
    lamp = strip((aside.abs() - 0.74 * wide_half).abs(), 0.2 * wide_half, sharp) * strip((y - 0.62).abs(), 0.08, sharp)
    plate = strip(aside.abs(), 0.25, sharp) * strip((y - 0.42).abs(), 0.06, sharp)
    bumper = strip((y - 0.32).abs(), 0.06, sharp) * end
    lamp, plate = lamp * end, plate * end
    rear = ((front + 0.5) * -1e3).clamp(0, 1)
    night = _per_row(scenes.light.lit, rays)
    albedo, emitted = [], []
    for i, paint in enumerate(_colours(bodies.top, flat)):
        colour = paint * (1 - 0.5 * (seam * flank + crease * (flank + end)).clamp(0, 1)) * (1 - 0.4 * bumper)
        colour = mix(mix(colour, 0.012, tyre), 0.28, rim)
        colour = mix(colour, 0.006, under)
        light = rear * (0.45, 0.02, 0.02)[i] + (1 - rear) * (0.7, 0.68, 0.6)[i]
        colour = mix(mix(colour, light, lamp), 0.6, plate)
        albedo.append(colour)
        gloss = 0.05 * (1 - tyre) * (1 - under) * (0.4 + normal[1])
        emitted.append(gloss * sky[i] + lamp * light * night * 0.9)
    return albedo, emitted


def shade_cabin(
    scenes: Scenes, rays: Rays, slot: Tensor, points: Vectors, normal: Vectors, scale: Tensor, sky: Vectors
) -> tuple[list[Tensor], list[Tensor]]:
    """Cabins: a painted roof over a band of dark glass with pillars."""
    bodies, flat = scenes.bodies, _flat(slot, rays)
    middle, half = column(bodies.centre[..., 1].flatten(), flat), column(bodies.half[..., 1].flatten(), flat)
    low_x, low_z = (points[i] - column(bodies.centre[..., i].flatten(), flat) for i in (0, 2))
    half_x, half_z = (column(bodies.half[..., i].flatten(), flat) for i in (0, 2))
    turned = ((half_x - half_z) * 1e6).clamp(0, 1)
    along = mix(low_z, low_x, turned)
    flank = mix(normal[0] * normal[0], normal[2] * normal[2], turned)
    sharp = (1 / scale).clamp(max=1e3)
    pane = (half - 0.09).clamp(0.01, 0.3)
    glass = strip((points[1] - middle - half + 0.09 + pane).abs(), pane, sharp)
    glass = glass * ((0.86 - normal[1]) * 1e3).clamp(0, 1)
    glass = glass * (1 - strip(along.abs(), 0.045, sharp) * ((flank - 0.4) * 1e3).clamp(0, 1))
    albedo = [mix(paint, 0.015, glass) for paint in _colours(bodies.top, flat)]
    return albedo, [glass * 0.22 * sky[i] + (1 - glass) * 0.04 * sky[i] for i in range(3)]


def shade_leaves(scenes: Scenes, rays: Rays, slot: Tensor, points: Vectors) -> list[Tensor]:
    """Foliage: clumps of light and dark."""
    clumps = leaf_noise(points[0], points[1], points[2])
    coarse = noise(points[0] * 11 + points[2] * 7, points[1] * 12)
    shade = 0.25 + 1.1 * clumps * clumps + 0.5 * coarse
    return [colour * shade for colour in _colours(scenes.bodies.top, _flat(slot, rays))]


def _smooth_noise(u: Tensor, v: Tensor) -> Tensor:
    iu, iv = u.floor(), v.floor()
    su, sv = u - iu, v - iv
    near = mix(noise(iu, iv), noise(iu + 1, iv), su)
    return mix(near, mix(noise(iu, iv + 1), noise(iu + 1, iv + 1), su), sv)


def shade_sky(scenes: Scenes, rays: Rays) -> list[Tensor]:
    """Radiance of the sky: a gradient, clouds on a plane overhead, a glow around the sun."""
    light = scenes.light
    dx, dy, dz = rays.d
    length = (dx * dx + dy * dy + dz * dz).sqrt()
    up = (dy / length).clamp(min=0)
    rise = up.sqrt()
    over = (up + 0.12).reciprocal() / length
    shift = [_per_row(light.cloud_shift[:, i], rays) for i in range(2)]
    u, v = dx * over * 6 + shift[0], dz * over * 6 + shift[1]
    cloud = 0.8 * _smooth_noise(u, v) + 0.2 * _smooth_noise(u * 2.6 + 31, v * 2.6)
    cover = _per_row(light.clouds, rays)
    density = ((cloud - (0.92 - 0.75 * cover)) * 2.0).clamp(0, 1) * 0.8
    towards = sum(d * _per_row(light.sun[:, i], rays) for i, d in enumerate((dx, dy, dz))) / length
    glow = towards.clamp(min=0)
    glow = glow * glow * glow * glow
    glow = glow * glow * glow * 0.22
    radiance = []
    for i in range(3):
        base = mix(_per_row(light.horizon[:, i], rays), _per_row(light.zenith[:, i], rays), rise)
        white = _per_row(light.ambient[:, i] * 1.15 + light.sun_colour[:, i] * 0.3, rays) * (0.7 + 0.6 * cloud)
        radiance.append(mix(base, white, density) + glow * _per_row(light.sun_colour[:, i], rays))
    return radiance
