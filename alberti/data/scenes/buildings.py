"""Buildings: boxes along the street, behind it and across its end, their roofs, and the parameters of their facades."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alberti.data.scenes import details
from alberti.data.scenes.details import ROW, SLOTS, absent
from alberti.data.scenes.layout import CROSSINGS, Boxes, Draws, Hulls, Plan
from alberti.data.scenes.styles import MATERIALS, accents, trims, walls

_ENDS, _CROSS_ENDS, SKEWED = 3, 2 * CROSSINGS, 2
OWNERS = 2 * ROW + _CROSS_ENDS + _ENDS + SKEWED
"""Buildings with parameters of their own: front row, back row, ends of side streets, end of the street, skewed ones."""
FACADES = OWNERS + ROW
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
    roofs: Hulls


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
    behind[ROW : 2 * ROW] = 1.35
    floors = (floors * behind).floor().clamp(min=1)
    heights = []
    for name in ("ground_height", "floor_height"):
        one, each = draws.take(1), draws.take(OWNERS)
        heights.append(plan.table.between(name, torch.where(terrace, one, each)))
    ground, storey = heights
    parapet = torch.where(terrace, torch.zeros_like(own), draws.take(OWNERS))
    return ground, floors, storey, ground + (floors - 1) * storey + 0.3 + 0.5 * parapet


def draw_buildings(draws: Draws, plan: Plan, eye: Tensor) -> Buildings:
    """All buildings with roofs, cornices, bay windows, awnings and chimneys, clear of the camera at ``eye`` (B, 3)."""
    ground, floors, storey, height = _heights(draws, plan)
    low, high, present, yaw, centre = _bodies(draws, plan, height)
    shops = plan.table.chance("shop", draws.take(OWNERS)) & (ground > 2.9)
    material = plan.table.material(draws.take(OWNERS))
    finish = _finish(draws, plan, material)
    sheets = _sheets(draws, plan, material, low, high, ground, storey, shops)
    low, high = absent(low, high, present)

    row_low, row_high, row_ground = low[:, :ROW], high[:, :ROW], ground[:, :ROW]
    wall, trim, accent = (finish[i : i + 3, :, :ROW].permute(1, 2, 0) for i in (0, 3, 6))
    bay_low, bay_high = details.bays(draws, plan, eye, row_low, row_high, row_ground)
    sheets = torch.cat([sheets, _bay_sheets(sheets[:, :, :ROW], bay_low, bay_high)], dim=2)
    gable = plan.table.chance("gable", draws.take(ROW)) & present[:, :ROW] & (floors[:, :ROW] < 7)
    roof = details.roofs(draws, plan, row_low, row_high, gable, wall)
    extras = [
        details.cornices(draws, plan, row_low, row_high, gable, trim),
        details.awnings(draws, plan, eye, row_low, row_high, row_ground, shops[:, :ROW], accent),
        details.chimneys(draws, row_low, row_high, gable, roof, wall),
    ]
    owner = torch.cat([torch.arange(OWNERS), torch.arange(ROW)]).to(low.device)
    return Buildings(
        low=torch.cat([low, bay_low], dim=1),
        high=torch.cat([high, bay_high], dim=1),
        yaw=yaw,
        centre=centre,
        sheets=sheets.transpose(0, 1).contiguous(),
        finish=finish[:, :, owner].transpose(0, 1).contiguous(),
        material=material[:, owner],
        floors=floors[:, owner],
        shops=shops[:, owner],
        details=extras,
        roofs=roof,
    )


def _bodies(draws: Draws, plan: Plan, height: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Owners' corners low, high (B, OWNERS, 3), which of them stand, and heading and centre of the skewed ones."""
    along, across, stands = _front_row(draws, plan)
    front = _corners(_mirror(across), height[:, :ROW].reshape(-1, 2, SLOTS), along)
    near = across[..., 1] + 2 + 9 * draws.take(2, SLOTS)
    behind = torch.stack([near, near + plan.table.between("depth", draws.take(2, SLOTS))], dim=-1)
    rear = _corners(_mirror(behind), height[:, ROW : 2 * ROW].reshape(-1, 2, SLOTS), along)
    ends = _end_boxes(draws, plan, height)
    skew_low, skew_high, yaw, centre, skewed = _skewed(draws, plan, height[:, -SKEWED:])
    backed = stands & (draws.take(2, SLOTS) < 0.75)
    present = torch.cat([stands.flatten(1), backed.flatten(1), ends[2], skewed], dim=1)
    low = torch.cat([front[0], rear[0], ends[0], skew_low], dim=1)
    high = torch.cat([front[1], rear[1], ends[1], skew_high], dim=1)
    return low, high, present, yaw, centre


def _end_boxes(draws: Draws, plan: Plan, height: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Buildings that close side streets and the street itself: low, high (B, 9, 3) and presence."""
    first = 2 * ROW
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
    shine = torch.tensor([0.25, 0.25, 0.25, 0.4, 0.65, 0.25], device=device)[material] * (0.6 + 0.8 * draws.take(OWNERS))
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
    storey: Tensor,
    shops: Tensor,
) -> Tensor:
    """SHEET for every owner: (P, B, OWNERS, 2 axes, 2 zones).

    Axis 0 is the pair of walls across x, whose horizontal runs along z; zone 0 is the ground floor. A cell of a sheet
    is ``pitch_u`` x ``pitch_v`` with a window of the given half sizes in its middle, lifted by ``lift``; whole cells
    fill a wall. ``half_width`` <= 0 makes a blank wall.
    """
    size = torch.stack([high[..., 2] - low[..., 2], high[..., 0] - low[..., 0]], dim=-1)
    glass = material == MATERIALS.index("glass")
    columns = _cells(draws, plan, glass, size, torch.stack([ground, storey], dim=-1), shops)
    columns["start_v"] = torch.stack([torch.zeros_like(ground), ground], dim=-1)[:, :, None]
    columns |= _joinery(draws, plan, glass, shops, columns)
    shape = columns["pitch_u"].shape
    return torch.stack([columns[name].expand(shape) for name in SHEET])


def _cells(draws: Draws, plan: Plan, glass: Tensor, size: Tensor, height: Tensor, shops: Tensor) -> dict[str, Tensor]:
    """Cells and the windows in them: pitches, half sizes, lift; ``size`` by axis, ``height`` of a storey by zone."""
    between = plan.table.between

    def by_zone(lower: Tensor, upper: Tensor) -> Tensor:
        return torch.stack([torch.where(shops, lower, upper), upper], dim=-1)[:, :, None]

    pitch = between("pitch", draws.take(OWNERS))
    wanted = by_zone(2.6 + 2.4 * draws.take(OWNERS), pitch)
    pitch_u = size[..., None] / (size[..., None] / wanted).round().clamp(min=1)
    pitch_v = height[:, :, None].expand(pitch_u.shape)
    wide = torch.where(glass, 0.93, between("window_wide", draws.take(OWNERS)))
    tall = torch.where(glass, 0.9, between("window_high", draws.take(OWNERS)))
    half_width = 0.5 * pitch_u * by_zone(0.72 + 0.2 * draws.take(OWNERS), wide)
    half_height = 0.5 * pitch_v * by_zone(0.62 + 0.14 * draws.take(OWNERS), tall)
    blank = (plan.table.chance("blank_side", draws.take(OWNERS)) & ~glass)[:, :, None, None]
    facing_z = torch.tensor([False, True], device=size.device)[:, None]
    in_rows = (torch.arange(OWNERS, device=size.device) < 2 * ROW)[:, None, None]
    half_width = torch.where(blank & facing_z & in_rows, -1.0, half_width)
    upper_lift = torch.where(glass, 0.0, 0.02 + 0.06 * draws.take(OWNERS))
    lift = by_zone(torch.full_like(upper_lift, -0.06), upper_lift) * pitch_v
    return {"pitch_u": pitch_u, "pitch_v": pitch_v, "half_width": half_width, "half_height": half_height, "lift": lift}


def _joinery(draws: Draws, plan: Plan, glass: Tensor, shops: Tensor, cells: dict[str, Tensor]) -> dict[str, Tensor]:
    """Frames, glazing bars, bands, sills, shutters, doors, lights."""
    between, half_width = plan.table.between, cells["half_width"]
    upper = torch.tensor([False, True], device=glass.device)

    def own(values: Tensor) -> Tensor:
        return values[:, :, None, None]

    bars, crossbar = draws.take(OWNERS), own(draws.take(OWNERS))
    # A bar far outside its window is none.
    share = torch.where(bars < 0.3, 0.33, torch.where(bars < 0.75, 0.0, 9.0))
    shuttered = own(plan.table.chance("shutters", draws.take(OWNERS)) & ~glass)
    leaf = torch.minimum(0.5 * half_width, 0.46 * cells["pitch_u"] - half_width).clamp(min=0)
    return {
        "frame": own(between("frame", draws.take(OWNERS))),
        "mullion_u": own(share) * half_width.clamp(min=0.3),
        "mullion_v": torch.where(crossbar < 0.6, cells["half_height"] * (0.2 + 0.4 * crossbar), 9.0),
        "mullion": own(0.025 + 0.025 * draws.take(OWNERS)),
        "band": own(between("band", draws.take(OWNERS)) * (draws.take(OWNERS) < 0.75)),
        "pilaster": own(between("pilaster", draws.take(OWNERS)) * (draws.take(OWNERS) < 0.5)),
        "sill": own(between("sill", draws.take(OWNERS))),
        "shutter": torch.where(shuttered & upper, leaf, 0.0),
        "door": torch.where(upper, 0.0, own(torch.where(shops, 0.25, 0.3))),
        "lit": torch.where(upper, own(0.15 + 0.5 * draws.take(OWNERS)), 0.75),
    }


def _bay_sheets(sheets: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Bays: their building's windows, refitted to the bay's narrower walls."""
    size = torch.stack([high[..., 2] - low[..., 2], high[..., 0] - low[..., 0]], dim=-1)[..., None].clamp(min=0.5)
    columns = {name: sheets[i] for i, name in enumerate(SHEET)}
    pitch = columns["pitch_u"].clamp(max=2.2)
    columns["pitch_u"] = size / (size / pitch).round().clamp(min=1)
    columns["half_width"] = 0.36 * columns["pitch_u"]
    columns["shutter"] = torch.zeros_like(pitch)
    return torch.stack([column.expand(pitch.shape) for column in columns.values()])
