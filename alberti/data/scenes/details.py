"""What a building carries: roof, cornice, bay windows, awnings, chimney."""

import torch
from torch import Tensor

from alberti.data.scenes import styles
from alberti.data.scenes.layout import TRIM, Boxes, Draws, Hulls, Plan, clear_of

SLOTS = 12
"""Buildings along each side of the street."""
ROW = 2 * SLOTS


def absent(low: Tensor, high: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """The corners, with high < low where ``present`` is false."""
    return low, torch.where(present[..., None], high, low - 1)


def bays(draws: Draws, plan: Plan, eye: Tensor, low: Tensor, high: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
    """Bay windows: slender boxes before the upper floors of the front row."""
    there = plan.table.chance("bay", draws.take(ROW)) & (high[..., 2] - low[..., 2] > 7) & (high[..., 1] > ground + 5)
    share = draws.take(ROW, 2)
    half = 0.9 + 1.1 * share[..., 0]
    middle = low[..., 2] + half + 1 + (high[..., 2] - low[..., 2] - 2 * half - 2) * share[..., 1]
    out = 0.5 + 0.5 * draws.take(ROW)
    left = torch.arange(ROW, device=low.device) < SLOTS
    x = torch.where(left, high[..., 0], low[..., 0])
    bay_low = torch.stack([torch.where(left, x - 0.5, x - out), ground, middle - half], dim=-1)
    bay_high = torch.stack([torch.where(left, x + out, x + 0.5), high[..., 1] - 0.7, middle + half], dim=-1)
    return clear_of(bay_low, bay_high, there, eye, 0.8)


def roofs(draws: Draws, plan: Plan, low: Tensor, high: Tensor, gable: Tensor, wall: Tensor) -> Hulls:
    """Pitched roofs: prisms whose ridge runs along the street, or across it."""
    across = plan.table.chance("gable_across", draws.take(ROW))
    slope = plan.table.between("roof_pitch", draws.take(ROW))
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
    roof_low, roof_high = absent(roof_low, roof_high, gable)
    colours = styles.roofs(low.device)[plan.table.is_kitti.long()]
    colour = colours.gather(1, (draws.take(ROW, 1) * 6).long().expand(-1, -1, 3)) * (0.8 + 0.4 * draws.take(ROW, 1))
    stripe = torch.full_like(norm, 0.32)
    return Hulls(TRIM, roof_low, roof_high, colour, wall, stripe, torch.stack(planes, dim=2))


def cornices(draws: Draws, plan: Plan, low: Tensor, high: Tensor, gable: Tensor, trim: Tensor) -> Boxes:
    """A projecting strip along the top of a flat-roofed building."""
    there = plan.table.chance("cornice", draws.take(ROW)) & ~gable & (high[..., 1] > low[..., 1])
    out, tall = 0.1 + 0.4 * draws.take(ROW, 1), 0.3 + 0.5 * draws.take(ROW)
    side = torch.tensor([1.0, 0.0, 0.3], device=low.device)
    cornice_low, cornice_high = low - out * side, high + out * side
    cornice_low = torch.stack([cornice_low[..., 0], high[..., 1] - tall, cornice_low[..., 2]], dim=-1)
    cornice_high = torch.stack([cornice_high[..., 0], high[..., 1] + 0.2, cornice_high[..., 2]], dim=-1)
    low, high = absent(cornice_low, cornice_high, there)
    return Boxes.make(TRIM, low, high, trim)


def awnings(
    draws: Draws, plan: Plan, eye: Tensor, low: Tensor, high: Tensor, ground: Tensor, shops: Tensor, accent: Tensor
) -> Boxes:
    """Canopies above shop windows, some striped."""
    there = plan.table.chance("awning", draws.take(ROW)) & shops & (high[..., 1] > low[..., 1])
    out = 0.7 + 1.0 * draws.take(ROW)
    left = torch.arange(ROW, device=low.device) < SLOTS
    x = torch.where(left, high[..., 0], low[..., 0])
    inset = (high[..., 2] - low[..., 2]) * 0.3 * draws.take(ROW)
    top = ground * 0.86
    awning_low = torch.stack([torch.where(left, x - 0.2, x - out), top - 0.3, low[..., 2] + 0.3 + inset], dim=-1)
    awning_high = torch.stack([torch.where(left, x + out, x + 0.2), top, high[..., 2] - 0.3], dim=-1)
    low, high = clear_of(awning_low, awning_high, there, eye, 0.5)
    striped = (draws.take(ROW) < 0.4).float() * 0.6
    return Boxes.make(TRIM, low, high, accent, side=accent, stripe=striped)


def chimneys(draws: Draws, low: Tensor, high: Tensor, gable: Tensor, roof: Hulls, wall: Tensor) -> Boxes:
    """A chimney through each of most pitched roofs."""
    there = gable & (draws.take(ROW) < 0.7)
    share = 0.25 + 0.5 * draws.take(ROW, 2)
    x = low[..., 0] + (high[..., 0] - low[..., 0]) * share[..., 0]
    z = low[..., 2] + (high[..., 2] - low[..., 2]) * share[..., 1]
    top = roof.high[..., 1] + 0.3 + 0.5 * draws.take(ROW)
    stack_low = torch.stack([x - 0.35, high[..., 1] - 0.5, z - 0.45], dim=-1)
    stack_high = torch.stack([x + 0.35, top, z + 0.45], dim=-1)
    stack_low, stack_high = absent(stack_low, stack_high, there)
    return Boxes.make(TRIM, stack_low, stack_high, wall * 0.8)
