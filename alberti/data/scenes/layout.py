"""The street's plan and the assembly of a batch of scenes, every tensor with a leading scene dimension.

Street axes: x across (right when looking down the street), y up, z along the street; the ground is y = 0 and the camera
stands over z = 0. With y up and z forward these axes are left-handed; camera axes (x right, y down, z forward) are not,
and :class:`Scenes` holds the camera's axes as vectors in street axes, so that nothing else needs to know.

All random numbers are drawn on the CPU from (seed, sample id) and handed out in a fixed order, so that a scene depends
neither on its batch nor on the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from alberti.data.scenes.styles import STYLES, TRAINING_STYLES, StyleTable
from alberti.seeding import numpy_generator

GROUND, FACADE, TRIM, CAR, CABIN, LEAF = range(1, 7)
"""Kinds of surface; 0 is the sky."""

_DRAWS = 4096
CROSSINGS = 3


class Draws:
    """Uniform numbers in [0, 1) for a batch of scenes, handed out in order."""

    def __init__(self, ids: Sequence[str], seed: int, device: torch.device):
        rows = [numpy_generator(seed, "scene", sample_id).random(_DRAWS, dtype=np.float32) for sample_id in ids]
        self._table = torch.from_numpy(np.stack(rows)).to(device)
        self._next = 0

    def take(self, *shape: int) -> Tensor:
        """(B, *shape) fresh draws."""
        count = int(np.prod(shape)) if shape else 1
        start, self._next = self._next, self._next + count
        if self._next > _DRAWS:
            raise RuntimeError(f"a scene needs more than {_DRAWS} draws")
        return self._table[:, start : self._next].reshape(-1, *shape).contiguous()


@dataclass
class Boxes:
    """Boxes of one kind: ``low`` and ``high`` corners (B, n, 3) in street axes; high < low marks an absent one.

    ``top`` and ``side`` (B, n, 3) are linear colours of horizontal (or sloping) and of vertical faces; ``stripe``
    (B, n) is the period in metres of darker lines across them, 0 for none.
    """

    kind: int
    low: Tensor
    high: Tensor
    top: Tensor
    side: Tensor
    stripe: Tensor

    @classmethod
    def make(cls, kind: int, low: Tensor, high: Tensor, colour: Tensor, **options: Tensor) -> "Boxes":
        """Boxes of one colour, unless ``side`` or ``stripe`` say otherwise."""
        colour = colour.expand_as(low)
        side = options.get("side", colour).expand_as(low)
        stripe = options.get("stripe", torch.zeros_like(low[..., 0])).expand_as(low[..., 0])
        return cls(kind, low, high, colour, side, stripe)


@dataclass
class Hulls(Boxes):
    """Convex bodies inside their boxes: ``planes`` (B, n, 6, 4) of outward normal and offset, normal . p <= offset."""

    planes: Tensor = field(default_factory=lambda: torch.empty(0))


def clear_of(low: Tensor, high: Tensor, there: Tensor, eye: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Corners (B, n, 3), high < low for bodies that are not ``there`` (B, n) or that come, seen from above, within
    ``margin`` metres of the camera at ``eye`` (B, 3)."""
    near = (eye[:, None] > low - margin) & (eye[:, None] < high + margin)
    there = there & ~(near[..., 0] & near[..., 2])
    return low, torch.where(there[..., None], high, low - 1)


@dataclass
class Plan:
    """The ground plan of B streets, metres; (B,) unless noted."""

    style: Tensor
    table: StyleTable
    """The styles' ranges for the whole batch as it was drawn."""
    road: Tensor
    """Half width of the road."""
    pavement: Tensor
    """Width from the kerb to the pavement's far edge, verge included."""
    verge: Tensor
    front: Tensor
    """Distance of the building line from the middle of the road."""
    cross_z: Tensor
    """(B, 3): where side streets meet the street."""
    cross_side: Tensor
    """(B, 3, 2) bool: whether the side street leads left, right."""
    cross_road: Tensor
    cross_front: Tensor
    closed: Tensor
    """bool: buildings close the street at ``end``."""
    end: Tensor
    lanes: Tensor
    zebra: Tensor
    """(B, 3) bool."""


def draw_style(draws: Draws, style: str) -> Tensor:
    """(B,) indices into STYLES; "mixed" draws one of the training styles for each scene."""
    draw = draws.take(1)[:, 0]
    if style == "mixed":
        choices = torch.tensor([STYLES.index(name) for name in TRAINING_STYLES], device=draw.device)
        return choices[(draw * len(choices)).long()]
    return torch.full_like(draw, STYLES.index(style), dtype=torch.long)


def draw_plan(draws: Draws, style: Tensor) -> Plan:
    """Road, pavements, building line and side streets."""
    table = StyleTable(style)
    road = table.between("road_half", draws.take(1)[:, 0])
    verge = table.between("verge", draws.take(1)[:, 0])
    pavement = table.between("pavement", draws.take(1)[:, 0]) + verge
    front = road + pavement + table.between("yard", draws.take(1)[:, 0])
    cross_road = table.between("cross_half", draws.take(1)[:, 0])
    cross_front = cross_road + 0.6 * pavement + 0.8
    step = draws.take(CROSSINGS)
    first = 14 + 36 * step[:, 0]
    second = first + 26 + 30 * step[:, 1]
    closed = table.chance("closed", draws.take(1)[:, 0])
    end = torch.maximum(50 + 62 * draws.take(1)[:, 0], first + 3 * cross_front)
    last = torch.where(closed, end - cross_front, second + 26 + 30 * step[:, 2])
    cross_z = torch.stack([first, second, last], dim=1)
    side = draws.take(CROSSINGS, 2) < 0.68
    side[:, 2] |= closed[:, None]
    # Side streets that would touch the closing one are left out.
    clear = (cross_z[:, :2] < (end - 3.2 * cross_front)[:, None]) | ~closed[:, None]
    side[:, :2] &= clear[:, :, None]
    lanes = table.chance("lanes", draws.take(1)[:, 0])
    zebra = table.chance("zebra", draws.take(CROSSINGS))
    return Plan(style, table, road, pavement, verge, front, cross_z, side, cross_road, cross_front, closed, end, lanes, zebra)
