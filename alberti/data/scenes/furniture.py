"""What stands in a street: cars, lamp poles, signs, trees and hedges, each clear of the camera."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alberti.data.scenes.layout import CABIN, CAR, CROSSINGS, LEAF, TRIM, Boxes, Draws, Hulls, Plan, clear_of
from alberti.data.scenes.styles import CAR_COLOURS, accents, palette

_PARKED, _MOVING, _CROSSING = 14, 4, 2
CARS = _PARKED + _MOVING + _CROSSING
LAMPS, SIGNS, TREES, HEDGES = 8, 4, 14, 16
CROWN_PARTS = 3


@dataclass
class Furniture:
    """``cars`` (CARS bodies), ``cabins`` (CARS hulls), ``lamps`` (3 boxes each, grouped by part), ``signs`` (2 each),
    ``trunks``, ``hedges``, and ``crowns``: the boxes around TREES * CROWN_PARTS ellipsoids, grouped by part."""

    cars: Boxes
    cabins: Hulls
    lamps: Boxes
    signs: Boxes
    trunks: Boxes
    hedges: Boxes
    crowns: Boxes
    lamp_z: Tensor
    """(B, 2): z of a lamp and the distance to the next; x is ``lamp_x``."""
    lamp_x: Tensor


def draw_furniture(draws: Draws, plan: Plan, eye: Tensor) -> Furniture:
    """All of it; ``eye`` (B, 3) is the camera's centre, which nothing may enclose."""
    cars, cabins = _cars(draws, plan, eye)
    lamps, lamp_z, lamp_x = _lamps(draws, plan, eye)
    trunks, crowns = _trees(draws, plan, eye)
    return Furniture(cars, cabins, lamps, _signs(draws, plan, eye), trunks, _hedges(draws, plan, eye), crowns, lamp_z, lamp_x)


def _box(
    x: Tensor, y0: Tensor | float, y1: Tensor | float, z: Tensor, half_x: Tensor | float, half_z: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Corners (..., 3) of a box around (x, z)."""
    bottom, top = torch.zeros_like(x) + y0, torch.zeros_like(x) + y1
    low = torch.stack([x - half_x, bottom, z - half_z], dim=-1)
    return low, torch.stack([x + half_x, top, z + half_z], dim=-1)


def _off_crossings(plan: Plan, z: Tensor, reach: float) -> Tensor:
    """Whether positions z (B, n) keep ``reach`` metres from the roads of side streets (on either side)."""
    clear = torch.ones_like(z, dtype=torch.bool)
    for j in range(CROSSINGS):
        exists = plan.cross_side[:, j].any(dim=1)[:, None]
        clear &= ~(exists & ((z - plan.cross_z[:, j, None]).abs() < plan.cross_road[:, None] + reach))
    return clear & ((z < plan.end[:, None] - reach) | ~plan.closed[:, None])


def _cars(draws: Draws, plan: Plan, eye: Tensor) -> tuple[Boxes, Hulls]:
    device, batch = eye.device, eye.shape[0]
    row = torch.arange(_PARKED // 2, device=device, dtype=torch.float32).repeat(2)
    side = torch.tensor([-1.0] * (_PARKED // 2) + [1.0] * (_PARKED // 2), device=device)
    parked_z = 3.5 + 7.2 * row + 2.0 * draws.take(_PARKED) + 3 * draws.take(1)
    parked_x = side * (plan.road[:, None] - 1.05)
    lane = torch.tensor([-1.0, 1.0, -1.0, 1.0], device=device)
    moving_z = 9 + 60 * draws.take(_MOVING)
    moving_x = lane * plan.road[:, None] * 0.42
    cross_z = plan.cross_z[:, :_CROSSING] + 0.42 * plan.cross_road[:, None]
    sign = torch.tensor([-1.0, 1.0], device=device)
    cross_x = sign * (plan.road[:, None] + 3.5 + 8 * draws.take(_CROSSING))
    x, z = torch.cat([parked_x, moving_x, cross_x], 1), torch.cat([parked_z, moving_z, cross_z], 1)
    chance = plan.table.chance("cars", draws.take(CARS))
    chance[:, _PARKED : _PARKED + _MOVING] &= draws.take(_MOVING) < 0.5
    parks = plan.road[:, None] > 2.6
    chance[:, :_PARKED] &= parks & _off_crossings(plan, parked_z, 4.0)
    leads = torch.stack([plan.cross_side[:, 0, 0], plan.cross_side[:, 1, 1]], dim=1)
    chance[:, _PARKED + _MOVING :] &= leads
    chance[:, _PARKED : _PARKED + _MOVING] &= (moving_z < plan.end[:, None] - 5) | ~plan.closed[:, None]
    van = draws.take(CARS) < 0.15
    length = torch.where(van, 5.2, 3.7 + 1.1 * draws.take(CARS))
    width = torch.where(van, 2.0, 1.68 + 0.2 * draws.take(CARS))
    waist = torch.where(van, 1.15, 0.78 + 0.16 * draws.take(CARS))
    roof = torch.where(van, 2.15, 1.38 + 0.25 * draws.take(CARS))
    turned = torch.zeros(batch, CARS, dtype=torch.bool, device=device)
    turned[:, _PARKED + _MOVING :] = True
    half_x = torch.where(turned, length, width) / 2
    half_z = torch.where(turned, width, length) / 2
    colour = palette(CAR_COLOURS, device)[(draws.take(CARS) * len(CAR_COLOURS)).long()]
    low, high = _box(x, 0.0, waist, z, half_x, half_z)
    low, high = clear_of(low, high, chance, eye, 1.6)
    body = Boxes.make(CAR, low, high, colour)
    return body, _cabins(draws, low, high, waist, roof, turned, van, colour)


def _cabins(
    draws: Draws, low: Tensor, high: Tensor, waist: Tensor, roof: Tensor, turned: Tensor, van: Tensor, colour: Tensor
) -> Hulls:
    """Cabins: a box whose four sides lean inwards, on the body's waist line."""
    centre, half = (low + high) / 2, (high - low) / 2
    long_half = torch.where(turned, half[..., 0], half[..., 2])
    wide_half = torch.where(turned, half[..., 2], half[..., 0])
    reverse = torch.where(draws.take(CARS) < 0.5, 1.0, -1.0)
    shift = torch.where(van, 0.04, 0.12) * reverse * long_half
    reach = long_half * torch.where(van, 0.94, 0.62)
    lean_long, lean_wide = torch.where(van, 0.25, 0.75), torch.where(van, 0.06, 0.22)
    zero, one = torch.zeros_like(waist), torch.ones_like(waist)
    planes = []
    for sign in (-1.0, 1.0):
        for along, lean, extent in ((True, lean_long, reach), (False, lean_wide, wide_half * 0.97)):
            norm = torch.sqrt(1 + lean * lean)
            horizontal = sign / norm
            in_x = turned if along else ~turned
            nx, nz = torch.where(in_x, horizontal, zero), torch.where(in_x, zero, horizontal)
            middle = torch.where(in_x, centre[..., 0], centre[..., 2]) + (shift if along else zero)
            offset = horizontal * (middle + sign * extent) + lean / norm * waist
            planes.append(torch.stack([nx, lean / norm, nz, offset], dim=-1))
    planes.append(torch.stack([zero, one, zero, roof], dim=-1))
    planes.append(torch.stack([zero, -one, zero, -(waist - 0.05)], dim=-1))
    there = (high[..., 1] > low[..., 1])[..., None]
    cabin_low = torch.stack([low[..., 0], waist - 0.05, low[..., 2]], dim=-1)
    cabin_high = torch.stack([high[..., 0], roof, high[..., 2]], dim=-1)
    cabin_high = torch.where(there, cabin_high, cabin_low - 1)
    flat = torch.zeros_like(waist)
    return Hulls(CABIN, cabin_low, cabin_high, colour, colour, flat, torch.stack(planes, dim=2))


def _lamps(draws: Draws, plan: Plan, eye: Tensor) -> tuple[Boxes, Tensor, Tensor]:
    """Poles with an arm over the road and a head: at even distances, alternating sides or along both."""
    device = eye.device
    step = torch.arange(LAMPS, device=device, dtype=torch.float32)
    spacing, first = 12 + 8 * draws.take(1), 6 + 8 * draws.take(1)
    side = torch.where(torch.arange(LAMPS, device=device) % 2 == 0, 1.0, -1.0)
    z = first + spacing * step * 0.5 * torch.ones_like(spacing)
    reach = plan.road[:, None] + 0.45
    x = side * reach
    tall = 4.2 + 3.2 * draws.take(1)
    there = plan.table.chance("lamps", draws.take(1)).expand(-1, LAMPS) & _off_crossings(plan, z, 0.5)
    arm = 0.5 + 1.2 * draws.take(1)
    parts = [
        clear_of(*_box(x, 0.0, tall, z, 0.07, 0.07), there, eye, 0.8),
        clear_of(*_box(x - side * arm / 2, tall - 0.1, tall, z, arm / 2, 0.04), there, eye, 0.8),
        clear_of(*_box(x - side * arm, tall - 0.2, tall - 0.02, z, 0.32, 0.12), there, eye, 0.8),
    ]
    dark = (0.02 + 0.2 * draws.take(1, 1)).expand(-1, 1, 3)
    bright = torch.full_like(dark, 0.85)
    colour = torch.cat([dark.expand(-1, 2 * LAMPS, -1), bright.expand(-1, LAMPS, -1)], dim=1)
    low, high = torch.cat([p[0] for p in parts], 1), torch.cat([p[1] for p in parts], 1)
    lit = plan.table.chance("lamps", torch.zeros_like(spacing))
    glow = torch.where(lit, torch.cat([first, spacing * 0.5], dim=1), torch.tensor([-1e3, 1e4], device=device))
    return Boxes.make(TRIM, low, high, colour), glow, plan.road - 0.3


def _signs(draws: Draws, plan: Plan, eye: Tensor) -> Boxes:
    """Road signs: a post and a panel that faces along the street."""
    side = torch.where(draws.take(SIGNS) < 0.35, -1.0, 1.0)
    z = 5 + 45 * draws.take(SIGNS)
    x = side * (plan.road[:, None] + 0.4)
    there = plan.table.chance("signs", draws.take(SIGNS)) & _off_crossings(plan, z, 0.3)
    half = 0.26 + 0.14 * draws.take(SIGNS)
    post = clear_of(*_box(x, 0.0, 2.9, z, 0.04, 0.04), there, eye, 0.8)
    panel = clear_of(*_box(x, 2.9 - 2 * half, 2.95, z - 0.06, half, 0.02), there, eye, 0.8)
    grey = torch.full((*x.shape, 3), 0.3, device=eye.device)
    paint = accents(eye.device)[(draws.take(SIGNS) * 8).long()] * 1.3
    low, high = torch.cat([post[0], panel[0]], 1), torch.cat([post[1], panel[1]], 1)
    stripe = torch.cat([torch.zeros_like(half), 2 * half], dim=1)
    colour = torch.cat([grey, paint], 1)
    return Boxes.make(TRIM, low, high, colour, stripe=stripe)


def _trees(draws: Draws, plan: Plan, eye: Tensor) -> tuple[Boxes, Boxes]:
    """Trees in a row along each kerb or in the front yards: trunks, and crowns of several ellipsoids."""
    device = eye.device
    half_count = TREES // 2
    step = torch.arange(half_count, device=device, dtype=torch.float32).repeat(2)
    side = torch.tensor([-1.0] * half_count + [1.0] * half_count, device=device)
    spacing = plan.table.between("tree_spacing", draws.take(1))
    z = 4 + spacing * (step + 0.5 * draws.take(TREES))
    yard = plan.front[:, None] - plan.road[:, None] - plan.pavement[:, None] > 2
    kerb = plan.road[:, None] + 0.5 + 0.5 * plan.verge[:, None]
    inner = plan.front[:, None] - 1.2
    x = side * torch.where(yard & (draws.take(1) < 0.6), inner, kerb)
    street = plan.table.chance("trees", draws.take(1))
    there = street & (draws.take(TREES) < 0.7) & _off_crossings(plan, z, 1.5)
    tall = plan.table.between("tree_height", draws.take(TREES))
    half = (0.09 + 0.02 * tall * draws.take(TREES)).clamp(max=0.3)
    trunk = clear_of(*_box(x, 0.0, tall * 0.6, z, half, half), there, eye, 2.0)
    bark = torch.tensor([0.06, 0.045, 0.03], device=device) * (0.6 + 1.2 * draws.take(TREES, 1))
    trunks = Boxes.make(TRIM, *trunk, bark)
    green = torch.tensor([0.07, 0.14, 0.03], device=device) * (0.6 + 0.7 * draws.take(1, 1))
    autumn = torch.tensor([0.30, 0.15, 0.03], device=device)
    turn = (draws.take(1, 1) - 0.75).clamp(min=0) * 3.0
    green = (green * (1 - turn) + autumn * turn) * (0.8 + 0.4 * draws.take(TREES, 1))
    shape = 0.8 + 0.5 * draws.take(1)
    lows, highs = [], []
    for _ in range(CROWN_PARTS):
        jitter = draws.take(TREES, 4)
        radius = 0.20 * tall * (0.8 + 0.5 * jitter[..., 0])
        middle = tall * (0.58 + 0.22 * jitter[..., 1])
        off = 0.8 * radius
        low, high = _box(
            x + off * (jitter[..., 2] - 0.5) * 2,
            middle - radius * shape,
            middle + radius * shape,
            z + off * (jitter[..., 3] - 0.5) * 2,
            radius,
            radius,
        )
        low, high = clear_of(low, high, there & (trunk[1][..., 1] > 0), eye, 1.6)
        lows.append(low)
        highs.append(high)
    crowns = Boxes.make(LEAF, torch.cat(lows, 1), torch.cat(highs, 1), green.repeat(1, CROWN_PARTS, 1))
    return trunks, crowns


def _hedges(draws: Draws, plan: Plan, eye: Tensor) -> Boxes:
    """Hedges, walls and fences between the pavement and front yards."""
    half_count = HEDGES // 2
    step = torch.arange(half_count, device=eye.device, dtype=torch.float32).repeat(2)
    side = torch.tensor([-1.0] * half_count + [1.0] * half_count, device=eye.device)
    middle = -2 + 11 * step + 3 * draws.take(HEDGES)
    half = 3 + 2.5 * draws.take(HEDGES)
    edge = plan.road + plan.pavement + 0.35
    x = side * edge[:, None]
    room = (plan.front - edge > 1.2)[:, None]
    there = plan.table.chance("hedge", draws.take(HEDGES)) & room & _off_crossings(plan, middle, 6.5)
    tall = 0.6 + 0.9 * draws.take(HEDGES)
    low, high = clear_of(*_box(x, 0.0, tall, middle, 0.25, half), there, eye, 1.0)
    kind = draws.take(HEDGES, 1)
    leaf = torch.tensor([0.05, 0.10, 0.025], device=eye.device)
    stone = torch.tensor([0.4, 0.37, 0.33], device=eye.device)
    board = torch.tensor([0.6, 0.58, 0.52], device=eye.device)
    colour = torch.where(kind < 0.5, leaf, torch.where(kind < 0.75, stone, board)) * (0.7 + 0.5 * draws.take(HEDGES, 1))
    stripe = torch.where(kind[..., 0] < 0.5, 0.0, 0.24)
    return Boxes.make(TRIM, low, high, colour, stripe=stripe)
