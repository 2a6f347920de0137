"""Buildings: boxes along the street, behind it and across its end, their roofs, and the parameters of their facades."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alberti.data.scenes.layout import CROSSINGS, TRIM, Boxes, Draws, Hulls, Plan
from alberti.data.scenes.styles import MATERIALS, accents, roofs, trims, walls

SLOTS = 12
"""Buildings along each side of the street."""
_ROW = 2 * SLOTS
_ENDS, _CROSS_ENDS, SKEWED = 3, 2 * CROSSINGS, 2
OWNERS = 2 * _ROW + _CROSS_ENDS + _ENDS + SKEWED
"""Buildings with parameters of their own: front row, back row, ends of side streets, end of the street, skewed ones."""
FACADES = OWNERS + _ROW
"""Facade slots: the owners, then a bay window for each building of the front row, which borrows its building's."""

SHEET = [
    "pitch_u",
    "pitch_v",
    "start_v",
    "half_width",
    "half_height",
    "lift",
    "frame",
    "mullion_u",
    "mullion_v",
    "mullion",
    "band",
    "pilaster",
    "sill",
    "shutter",
    "door",
    "lit",
]
"""Parameters of one facade sheet, metres (``door`` and ``lit`` are shares of windows): see :func:`_sheets`."""
FINISH = [
    "wall_r",
    "wall_g",
    "wall_b",
    "trim_r",
    "trim_g",
    "trim_b",
    "accent_r",
    "accent_g",
    "accent_b",
    "course",
    "course_depth",
    "joint",
    "seed",
    "shine",
    "curtain",
]
"""Parameters of a building's finish: colours, courses of brick or boards, reflectance of the glass."""


@dataclass
class Buildings:
    """All buildings of a batch of scenes.

    ``low`` and ``high`` (B, FACADES, 3) are boxes, of the skewed ones around their own middle; ``yaw`` (B, SKEWED, 2)
    the (cos, sin) of their heading; ``sheets`` (B, P, FACADES, 2 axes, 2 zones) and ``finish`` (B, Q, FACADES) hold
    SHEET and FINISH; ``material`` (B, FACADES) indexes MATERIALS, ``floors`` counts. ``details`` and ``roofs`` are more
    bodies.
    """

    low: Tensor
    high: Tensor
    yaw: Tensor
    centre: Tensor
    sheets: Tensor
    finish: Tensor
    material: Tensor
    floors: Tensor
    shops: Tensor
    details: list[Boxes]
    roofs: list[Hulls]


def _absent(low: Tensor, high: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    return low, torch.where(present[..., None], high, low - 1)


def _front_row(draws: Draws, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """Extents along and across the street, (B, 2, SLOTS, 2) each, and which buildings stand."""
    width = plan.table.between("width", draws.take(2, SLOTS))
    gap = plan.table.between("gap", draws.take(2, SLOTS)) * plan.table.chance("gap", draws.take(2, SLOTS))
    stop = (width + gap).cumsum(-1) - 16 - 8 * draws.take(2, 1)
    start = stop - width
    for j in range(CROSSINGS):
        middle, reach = plan.cross_z[:, j, None, None], plan.cross_front[:, None, None]
        cut = plan.cross_side[:, j, :, None] & (start < middle + reach) & (stop > middle - reach)
        before = (start + stop) * 0.5 < middle
        stop = torch.where(cut & before, torch.minimum(stop, middle - reach), stop)
        start = torch.where(cut & ~before, torch.maximum(start, middle + reach), start)
    limit = torch.where(plan.closed, plan.end, plan.end + 200)[:, None, None]
    stop = torch.minimum(stop, limit)
    near = plan.front[:, None, None] + plan.table.between("setback", draws.take(2, SLOTS))
    across = torch.stack([near, near + plan.table.between("depth", draws.take(2, SLOTS))], dim=-1)
    return torch.stack([start, stop], dim=-1), across, stop - start > 3.5


def _mirror(across: Tensor) -> Tensor:
    """Signed extents across the street (B, 2, n, 2) of distances from its middle; side 0 is the left one."""
    left = torch.stack([-across[:, 0, :, 1], -across[:, 0, :, 0]], dim=-1)
    return torch.stack([left, across[:, 1]], dim=1)


def _corners(across: Tensor, height: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.stack([across[..., 0], torch.zeros_like(height), along[..., 0]], dim=-1)
    high = torch.stack([across[..., 1], height, along[..., 1]], dim=-1)
    return low.flatten(1, -2), high.flatten(1, -2)


def _heights(draws: Draws, plan: Plan) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ground floor's height, storeys above it, their height, total height: (B, OWNERS) each.

    Neighbours share most of a street's proportions, and in a terrace all of them, so that eaves and bands run on from
    house to house.
    """
    common, own, terrace = draws.take(1), draws.take(OWNERS), plan.table.chance("terrace", draws.take(1))
    floors = plan.table.between("floors", torch.where(terrace, common, 0.55 * common + 0.45 * own)).floor()
    behind = torch.ones(OWNERS, device=own.device)
    behind[_ROW : 2 * _ROW] = 1.35
    floors = (floors * behind).floor().clamp(min=1)
    heights = []
    for name in ("ground_height", "floor_height"):
        one, each = draws.take(1), draws.take(OWNERS)
        heights.append(plan.table.between(name, torch.where(terrace, one, each)))
    ground, storey = heights
    parapet = torch.where(terrace, torch.zeros_like(own), draws.take(OWNERS))
    return ground, floors, storey, ground + (floors - 1) * storey + 0.3 + 0.5 * parapet


def draw_buildings(draws: Draws, plan: Plan) -> Buildings:
    """All buildings with roofs, cornices, bay windows, awnings and chimneys."""
    ground, floors, storey, height = _heights(draws, plan)
    along, across, stands = _front_row(draws, plan)
    front = _corners(_mirror(across), height[:, :_ROW].reshape(-1, 2, SLOTS), along)
    back_near = across[..., 1] + 2 + 9 * draws.take(2, SLOTS)
    back = torch.stack([back_near, back_near + plan.table.between("depth", draws.take(2, SLOTS))], dim=-1)
    rear = _corners(_mirror(back), height[:, _ROW : 2 * _ROW].reshape(-1, 2, SLOTS), along)
    ends = _end_boxes(draws, plan, height)
    skew_low, skew_high, yaw, centre, skewed = _skewed(draws, plan, height[:, -SKEWED:])
    present = torch.cat(
        [stands.flatten(1), (stands & (draws.take(2, SLOTS) < 0.75)).flatten(1), ends[2], skewed], dim=1
    )
    low = torch.cat([front[0], rear[0], ends[0], skew_low], dim=1)
    high = torch.cat([front[1], rear[1], ends[1], skew_high], dim=1)
    shops = plan.table.chance("shop", draws.take(OWNERS)) & (ground > 2.9)
    material = plan.table.material(draws.take(OWNERS))
    finish = _finish(draws, plan, material)
    sheets = _sheets(draws, plan, material, low, high, ground, floors, storey, shops)
    low, high = _absent(low, high, present)

    bay_low, bay_high = _bays(draws, plan, low[:, :_ROW], high[:, :_ROW], ground[:, :_ROW])
    owner = torch.cat([torch.arange(OWNERS), torch.arange(_ROW)]).to(low.device)
    sheets = torch.cat([sheets, _bay_sheets(sheets[:, :, :_ROW], bay_low, bay_high)], dim=2)
    gable = plan.table.chance("gable", draws.take(_ROW)) & present[:, :_ROW] & (floors[:, :_ROW] < 7)
    trim = finish[3:6, :, :_ROW].permute(1, 2, 0)
    wall = finish[0:3, :, :_ROW].permute(1, 2, 0)
    accent = finish[6:9, :, :_ROW].permute(1, 2, 0)
    roof = _roofs(draws, plan, low[:, :_ROW], high[:, :_ROW], gable, wall)
    details = [
        _cornices(draws, plan, low[:, :_ROW], high[:, :_ROW], gable, trim),
        _awnings(draws, plan, low[:, :_ROW], high[:, :_ROW], ground[:, :_ROW], shops[:, :_ROW], accent, trim),
        _chimneys(draws, low[:, :_ROW], high[:, :_ROW], gable, roof, wall),
    ]
    return Buildings(
        torch.cat([low, bay_low], dim=1),
        torch.cat([high, bay_high], dim=1),
        yaw,
        centre,
        sheets.transpose(0, 1).contiguous(),
        finish[:, :, owner].transpose(0, 1).contiguous(),
        material[:, owner],
        floors[:, owner],
        shops[:, owner],
        details,
        [roof],
    )


def _end_boxes(draws: Draws, plan: Plan, height: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Buildings that close side streets and the street itself: low, high (B, 9, 3) and presence."""
    first = 2 * _ROW
    far = plan.front[:, None, None] + 32 + 30 * draws.take(2, CROSSINGS)
    across = _mirror(torch.stack([far, far + 12], dim=-1))
    middle = plan.cross_z[:, None, :, None]
    along = torch.cat([middle - 24, middle + 26], dim=-1).expand(-1, 2, -1, -1)
    cross = _corners(across, height[:, first : first + _CROSS_ENDS].reshape(-1, 2, CROSSINGS), along)
    there = plan.cross_side.transpose(1, 2).flatten(1)
    cuts = torch.stack([-8 + 7 * draws.take(1)[:, 0], 3 + 9 * draws.take(1)[:, 0]], dim=1)
    far_side = torch.full_like(cuts[:, :1], 48)
    edges = torch.cat([-far_side, cuts, far_side], dim=1)
    start = plan.end[:, None].expand(-1, _ENDS) + 1.5 * draws.take(_ENDS)
    end = _corners(
        torch.stack([edges[:, :-1], edges[:, 1:]], dim=-1),
        height[:, first + _CROSS_ENDS : first + _CROSS_ENDS + _ENDS],
        torch.stack([start, start + 14], dim=-1),
    )
    closed = plan.closed[:, None].expand(-1, _ENDS)
    return torch.cat([cross[0], end[0]], 1), torch.cat([cross[1], end[1]], 1), torch.cat([there, closed], 1)


def _skewed(draws: Draws, plan: Plan, height: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Buildings that do not follow the street's grid, beyond a side street: (low, high, yaw, centre, present)."""
    size = 7 + 7 * draws.take(SKEWED, 2)
    low = torch.stack([-size[..., 0] / 2, torch.zeros_like(height), -size[..., 1] / 2], dim=-1)
    high = torch.stack([size[..., 0] / 2, height, size[..., 1] / 2], dim=-1)
    angle = 0.25 + 0.6 * draws.take(SKEWED)
    yaw = torch.stack([angle.cos(), angle.sin()], dim=-1)
    side = torch.tensor([-1.0, 1.0], device=height.device)
    across = side * (plan.front[:, None] + 13 + 9 * draws.take(SKEWED))
    centre = torch.stack([across, torch.zeros_like(across), plan.cross_z[:, :SKEWED] + 2], dim=-1)
    leads = torch.stack([plan.cross_side[:, 0, 0], plan.cross_side[:, 1, 1]], dim=1)
    return low, high, yaw, centre, plan.table.chance("skew", draws.take(SKEWED)) & leads


def _finish(draws: Draws, plan: Plan, material: Tensor) -> Tensor:
    """FINISH (Q, B, OWNERS)."""
    device = material.device
    table = walls(device)[plan.table.is_kitti.long()[:, None], material]
    shade = (draws.take(OWNERS) * table.shape[2]).long()
    wall = table.gather(2, shade[..., None, None].expand(-1, -1, 1, 3))[:, :, 0]
    wall = wall * (0.75 + 0.4 * draws.take(OWNERS, 1)) * (0.96 + 0.08 * draws.take(OWNERS, 3))
    trim = trims(device)[(draws.take(OWNERS) * 6).long()] * (0.8 + 0.2 * draws.take(OWNERS, 1))
    accent = accents(device)[(draws.take(OWNERS) * 8).long()] * (0.7 + 0.6 * draws.take(OWNERS, 1))
    course = torch.tensor([0.16, 0.0, 0.42, 1.4, 0.0, 0.22], device=device)[material] * (0.8 + 0.4 * draws.take(OWNERS))
    depth = torch.tensor([0.32, 0.0, 0.25, 0.22, 0.0, 0.34], device=device)[material]
    joint = torch.tensor([2.6, 1.0, 2.2, 1.5, 1.0, 0.0], device=device)[material] * course
    seed = (draws.take(OWNERS) * 4096).floor()
    shine = torch.tensor([0.25, 0.25, 0.25, 0.4, 0.65, 0.25], device=device)[material] * (
        0.6 + 0.8 * draws.take(OWNERS)
    )
    curtain = 0.5 * draws.take(OWNERS)
    colours = torch.cat([wall, trim, accent], dim=-1).permute(2, 0, 1)
    return torch.cat([colours, torch.stack([course, depth, joint, seed, shine, curtain])])


def _sheets(
    draws: Draws,
    plan: Plan,
    material: Tensor,
    low: Tensor,
    high: Tensor,
    ground: Tensor,
    floors: Tensor,
    storey: Tensor,
    shops: Tensor,
) -> Tensor:
    """SHEET for every owner: (P, B, OWNERS, 2 axes, 2 zones).

    Axis 0 is the pair of walls across x, whose horizontal runs along z; zone 0 is the ground floor. A cell of a sheet
    is ``pitch_u`` x ``pitch_v`` with a window of the given half sizes in its middle, lifted by ``lift``; whole cells
    fill a wall. ``half_width`` <= 0 makes a blank wall.
    """
    glass, between = material == MATERIALS.index("glass"), plan.table.between
    size = torch.stack([high[..., 2] - low[..., 2], high[..., 0] - low[..., 0]], dim=-1)[..., None].expand(
        -1, -1, -1, 2
    )
    pitch = between("pitch", draws.take(OWNERS))
    shop_pitch = 2.6 + 2.4 * draws.take(OWNERS)
    wanted = torch.stack([torch.where(shops, shop_pitch, pitch), pitch], dim=-1)[:, :, None, :]
    pitch_u = size / (size / wanted).round().clamp(min=1)
    shape = pitch_u.shape
    pitch_v = torch.stack([ground, storey], dim=-1)[:, :, None, :].expand(shape)
    start_v = torch.stack([torch.zeros_like(ground), ground], dim=-1)[:, :, None, :].expand(shape)
    wide = torch.where(glass, 0.93, between("window_wide", draws.take(OWNERS)))
    high_share = torch.where(glass, 0.9, between("window_high", draws.take(OWNERS)))
    shop_wide, shop_high = 0.72 + 0.2 * draws.take(OWNERS), 0.62 + 0.14 * draws.take(OWNERS)
    share_u = torch.stack([torch.where(shops, shop_wide, wide), wide], dim=-1)[:, :, None, :]
    share_v = torch.stack([torch.where(shops, shop_high, high_share), high_share], dim=-1)[:, :, None, :]
    half_width, half_height = 0.5 * pitch_u * share_u, 0.5 * pitch_v * share_v
    blank = plan.table.chance("blank_side", draws.take(OWNERS)) & ~glass
    facing_z = torch.tensor([False, True], device=low.device)[None, None, :, None]
    in_rows = (torch.arange(OWNERS, device=low.device) < 2 * _ROW)[None, :, None, None]
    half_width = torch.where(blank[:, :, None, None] & facing_z & in_rows, -1.0, half_width)
    lift = torch.where(glass, 0.0, 0.02 + 0.06 * draws.take(OWNERS))[:, :, None, None] * pitch_v
    lift = torch.where(torch.stack([shops, torch.zeros_like(shops)], -1)[:, :, None, :], -0.06 * pitch_v, lift)

    def per_owner(values: Tensor) -> Tensor:
        return values[:, :, None, None].expand(shape)

    frame = per_owner(between("frame", draws.take(OWNERS)))
    bars = draws.take(OWNERS)
    third = per_owner(torch.where(bars < 0.3, 0.33, torch.where(bars < 0.75, 0.0, 9.0)))
    mullion_u = third * half_width.clamp(min=0.3)
    crossbar = per_owner(draws.take(OWNERS))
    mullion_v = torch.where(crossbar < 0.6, half_height * (0.2 + 0.4 * crossbar), 9.0)
    mullion = per_owner(0.025 + 0.025 * draws.take(OWNERS))
    band = per_owner(between("band", draws.take(OWNERS)) * (draws.take(OWNERS) < 0.75))
    pilaster = per_owner(between("pilaster", draws.take(OWNERS)) * (draws.take(OWNERS) < 0.5))
    sill = per_owner(between("sill", draws.take(OWNERS)))
    shuttered = per_owner(plan.table.chance("shutters", draws.take(OWNERS)) & ~glass)
    upper = torch.tensor([False, True], device=low.device)
    shutter = torch.where(shuttered & upper, torch.minimum(0.5 * half_width, 0.46 * pitch_u - half_width), 0.0)
    door = torch.where(upper, 0.0, per_owner(torch.where(shops, 0.25, 0.3)))
    lit = torch.where(upper, per_owner(0.15 + 0.5 * draws.take(OWNERS)), 0.75)
    columns = (pitch_u, pitch_v, start_v, half_width, half_height, lift, frame, mullion_u) + (
        mullion_v,
        mullion,
        band,
        pilaster,
        sill,
        shutter.clamp(min=0),
        door,
        lit,
    )
    return torch.stack([column.expand(shape) for column in columns])


def _bay_sheets(sheets: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Bays: their building's windows, refitted to the bay's narrower walls."""
    size = torch.stack([high[..., 2] - low[..., 2], high[..., 0] - low[..., 0]], dim=-1)[..., None].clamp(min=0.5)
    columns = {name: sheets[i] for i, name in enumerate(SHEET)}
    pitch = columns["pitch_u"].clamp(max=2.2)
    columns["pitch_u"] = size / (size / pitch).round().clamp(min=1)
    columns["half_width"] = 0.36 * columns["pitch_u"]
    columns["shutter"] = torch.zeros_like(pitch)
    return torch.stack([column.expand(pitch.shape) for column in columns.values()])


def _bays(draws: Draws, plan: Plan, low: Tensor, high: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
    """Bay windows: slender boxes before the upper floors of the front row."""
    there = plan.table.chance("bay", draws.take(_ROW)) & (high[..., 2] - low[..., 2] > 7) & (high[..., 1] > ground + 5)
    share = draws.take(_ROW, 2)
    half = 0.9 + 1.1 * share[..., 0]
    middle = low[..., 2] + half + 1 + (high[..., 2] - low[..., 2] - 2 * half - 2) * share[..., 1]
    out = 0.5 + 0.5 * draws.take(_ROW)
    left = torch.arange(_ROW, device=low.device) < SLOTS
    x = torch.where(left, high[..., 0], low[..., 0])
    bay_low = torch.stack([torch.where(left, x - 0.5, x - out), ground, middle - half], dim=-1)
    bay_high = torch.stack([torch.where(left, x + out, x + 0.5), high[..., 1] - 0.7, middle + half], dim=-1)
    return _absent(bay_low, bay_high, there)


def _roofs(draws: Draws, plan: Plan, low: Tensor, high: Tensor, gable: Tensor, wall: Tensor) -> Hulls:
    """Pitched roofs: prisms whose ridge runs along the street, or across it."""
    across = plan.table.chance("gable_across", draws.take(_ROW))
    slope = plan.table.between("roof_pitch", draws.take(_ROW))
    eaves = 0.25
    centre = (low + high) / 2
    half = torch.where(across, high[..., 2] - low[..., 2], high[..., 0] - low[..., 0]) / 2 + eaves
    base = high[..., 1] - 0.15
    rise = slope * half
    outer_low, outer_high = low - eaves, high + eaves
    roof_low = torch.stack([outer_low[..., 0], base, outer_low[..., 2]], dim=-1)
    roof_high = torch.stack([outer_high[..., 0], base + rise, outer_high[..., 2]], dim=-1)
    norm = torch.sqrt(slope * slope + 1)
    planes = []
    zero, one = torch.zeros_like(norm), torch.ones_like(norm)
    for sign in (-1.0, 1.0):
        lean = sign * slope / norm
        nx, nz = torch.where(across, zero, lean), torch.where(across, lean, zero)
        ny = one / norm
        offset = nx * centre[..., 0] + ny * (base + rise) + nz * centre[..., 2]
        planes.append(torch.stack([nx, ny, nz, offset], dim=-1))
    for sign in (-1.0, 1.0):
        nx, nz = torch.where(across, sign * one, zero), torch.where(across, zero, sign * one)
        edge = roof_high if sign > 0 else roof_low
        offset = sign * torch.where(across, edge[..., 0], edge[..., 2])
        planes.append(torch.stack([nx, zero, nz, offset], dim=-1))
    bottom = torch.stack([zero, -one, zero, -base], dim=-1)
    planes += [bottom, bottom]
    roof_low, roof_high = _absent(roof_low, roof_high, gable)
    colours = roofs(low.device)[plan.table.is_kitti.long()]
    colour = colours.gather(1, (draws.take(_ROW, 1) * 6).long().expand(-1, -1, 3)) * (0.8 + 0.4 * draws.take(_ROW, 1))
    stripe = torch.full_like(norm, 0.32)
    return Hulls(TRIM, roof_low, roof_high, colour, wall, stripe, torch.stack(planes, dim=2))


def _cornices(draws: Draws, plan: Plan, low: Tensor, high: Tensor, gable: Tensor, trim: Tensor) -> Boxes:
    """A projecting strip along the top of a flat-roofed building."""
    there = plan.table.chance("cornice", draws.take(_ROW)) & ~gable & (high[..., 1] > low[..., 1])
    out, tall = 0.1 + 0.4 * draws.take(_ROW, 1), 0.3 + 0.5 * draws.take(_ROW)
    side = torch.tensor([1.0, 0.0, 0.3], device=low.device)
    cornice_low, cornice_high = low - out * side, high + out * side
    cornice_low = torch.stack([cornice_low[..., 0], high[..., 1] - tall, cornice_low[..., 2]], dim=-1)
    cornice_high = torch.stack([cornice_high[..., 0], high[..., 1] + 0.2, cornice_high[..., 2]], dim=-1)
    low, high = _absent(cornice_low, cornice_high, there)
    return Boxes.make(TRIM, low, high, trim)


def _awnings(
    draws: Draws, plan: Plan, low: Tensor, high: Tensor, ground: Tensor, shops: Tensor, accent: Tensor, trim: Tensor
) -> Boxes:
    """Canopies above shop windows, some striped."""
    there = plan.table.chance("awning", draws.take(_ROW)) & shops & (high[..., 1] > low[..., 1])
    out = 0.7 + 1.0 * draws.take(_ROW)
    left = torch.arange(_ROW, device=low.device) < SLOTS
    x = torch.where(left, high[..., 0], low[..., 0])
    inset = (high[..., 2] - low[..., 2]) * 0.3 * draws.take(_ROW)
    top = ground * 0.86
    awning_low = torch.stack([torch.where(left, x - 0.2, x - out), top - 0.3, low[..., 2] + 0.3 + inset], dim=-1)
    awning_high = torch.stack([torch.where(left, x + out, x + 0.2), top, high[..., 2] - 0.3], dim=-1)
    low, high = _absent(awning_low, awning_high, there)
    striped = (draws.take(_ROW) < 0.4).float() * 0.6
    return Boxes.make(TRIM, low, high, accent, side=accent, stripe=striped)


def _chimneys(draws: Draws, low: Tensor, high: Tensor, gable: Tensor, roof: Hulls, wall: Tensor) -> Boxes:
    """A chimney through each of most pitched roofs."""
    there = gable & (draws.take(_ROW) < 0.7)
    share = 0.25 + 0.5 * draws.take(_ROW, 2)
    x = low[..., 0] + (high[..., 0] - low[..., 0]) * share[..., 0]
    z = low[..., 2] + (high[..., 2] - low[..., 2]) * share[..., 1]
    top = roof.high[..., 1] + 0.3 + 0.5 * draws.take(_ROW)
    stack_low = torch.stack([x - 0.35, high[..., 1] - 0.5, z - 0.45], dim=-1)
    stack_high = torch.stack([x + 0.35, top, z + 0.45], dim=-1)
    stack_low, stack_high = _absent(stack_low, stack_high, there)
    return Boxes.make(TRIM, stack_low, stack_high, wall * 0.8)
