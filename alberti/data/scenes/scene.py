"""A batch of scenes: plan, buildings, furniture, camera and light, with all bodies in one table of slots."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from alberti.data.scenes.buildings import FACADES, OWNERS, SKEWED, Buildings, draw_buildings
from alberti.data.scenes.furniture import CROWN_PARTS, TREES, Furniture, draw_furniture
from alberti.data.scenes.layout import FACADE, GROUND, Boxes, Draws, Hulls, Plan, draw_plan, draw_style
from alberti.data.scenes.views import Light, View, draw_light, draw_view

SLOTS = 512
GROUND_SLOT, SKY_SLOT = SLOTS - 2, SLOTS - 1


@dataclass
class Bodies:
    """Every body of every scene, in SLOTS slots: boxes first, then hulls, then ellipsoids.

    ``low``, ``high`` (B, n, 3) bound the bodies that exist (n = boxes + hulls + blobs; high < low: absent). Tables with
    SLOTS columns are indexed by the slot of a hit, with the last two columns for ground and sky: ``centre``, ``half``
    (B, SLOTS, 3), ``yaw`` (B, SLOTS, 2), ``kind``, ``facade``, ``thing`` (SLOTS,), ``top``, ``side`` (B, SLOTS, 3),
    ``stripe`` (B, SLOTS). ``planes`` (B, hulls, 6, 4).
    """

    SHARED: ClassVar[tuple[str, ...]] = ("kind", "facade", "thing")

    boxes: int
    hulls: int
    blobs: int
    low: Tensor
    high: Tensor
    planes: Tensor
    centre: Tensor
    half: Tensor
    yaw: Tensor
    kind: Tensor
    facade: Tensor
    thing: Tensor
    top: Tensor
    side: Tensor
    stripe: Tensor

    @property
    def count(self) -> int:
        """Slots in use, ground and sky aside."""
        return self.boxes + self.hulls + self.blobs


@dataclass
class Scenes:
    """B scenes on one device."""

    plan: Plan
    buildings: Buildings
    furniture: Furniture
    view: View
    light: Light
    bodies: Bodies
    slots: dict[str, slice]
    """Which slots hold "cars", "cabins", "crowns" and so on."""

    def __len__(self) -> int:
        return len(self.plan.road)

    def part(self, first: int, last: int) -> "Scenes":
        """The scenes ``first`` to ``last`` - 1."""
        if first <= 0 and last >= len(self):
            return self
        groups = {name: getattr(self, name) for name in ("plan", "buildings", "furniture", "view", "light", "bodies")}
        return Scenes(slots=self.slots, **{name: _part(group, first, last) for name, group in groups.items()})


def _part(group: Any, first: int, last: int) -> Any:
    """A copy of a dataclass with rows ``first`` to ``last`` - 1 of each of its tensors, shared tables aside."""
    shared = getattr(group, "SHARED", ())
    tensors = {f.name: getattr(group, f.name) for f in fields(group) if f.name not in shared}
    return replace(group, **{k: v[first:last].contiguous() for k, v in tensors.items() if isinstance(v, Tensor)})


def build_scenes(
    ids: Sequence[str], seed: int, *, style: str, camera: str, width: int, height: int, device: torch.device
) -> Scenes:
    """The scenes of these ids; each depends on (seed, id) and the settings only."""
    draws = Draws(ids, seed, device)
    plan = draw_plan(draws, draw_style(draws, style))
    view = draw_view(draws, plan, camera, width, height)
    light = draw_light(draws, plan)
    furniture = draw_furniture(draws, plan, view.eye)
    buildings = draw_buildings(draws, plan, view.eye)
    bodies, slots = _collect(buildings, furniture)
    return Scenes(plan, buildings, furniture, view, light, bodies, slots)


def _facade_boxes(buildings: Buildings) -> tuple[Boxes, Hulls]:
    """Facade slots as boxes, and the skewed ones among them as hulls; owners' slots come before bays' as in SHEET."""
    low, high = buildings.low, buildings.high
    wall = buildings.finish[:, 0:3].transpose(1, 2)
    keep, skew = _split(FACADES, low.device)
    roof = wall * 0.3 + 0.08
    flat = torch.zeros_like(low[..., 0])
    boxes = Boxes(FACADE, low[:, keep], high[:, keep], roof[:, keep], wall[:, keep], flat[:, keep])
    half, cos, sin = high[:, skew, :].clamp(min=0), buildings.yaw[..., 0], buildings.yaw[..., 1]
    there = (high[:, skew, 1] > low[:, skew, 1])[..., None]
    reach_x = cos.abs() * half[..., 0] + sin.abs() * half[..., 2]
    reach_z = sin.abs() * half[..., 0] + cos.abs() * half[..., 2]
    reach = torch.stack([reach_x, torch.zeros_like(reach_x), reach_z], dim=-1)
    bound_low, bound_high = buildings.centre - reach, buildings.centre + reach
    bound_high = torch.stack([bound_high[..., 0], half[..., 1], bound_high[..., 2]], dim=-1)
    bound_high = torch.where(there, bound_high, bound_low - 1)
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    planes = []
    for sign in (-1.0, 1.0):
        for nx, nz, extent in ((cos, -sin, half[..., 0]), (sin, cos, half[..., 2])):
            offset = sign * (nx * buildings.centre[..., 0] + nz * buildings.centre[..., 2]) + extent
            planes.append(torch.stack([sign * nx, zero, sign * nz, offset], dim=-1))
    planes.append(torch.stack([zero, one, zero, half[..., 1]], dim=-1))
    planes.append(torch.stack([zero, -one, zero, zero], dim=-1))
    hulls = Hulls(FACADE, bound_low, bound_high, roof[:, skew], wall[:, skew], flat[:, skew], torch.stack(planes, dim=2))
    return boxes, hulls


def _split(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices of upright and of skewed facades among ``count``."""
    index = torch.arange(count, device=device)
    skewed = (index >= OWNERS - SKEWED) & (index < OWNERS)
    return index[~skewed], index[skewed]


def _collect(buildings: Buildings, furniture: Furniture) -> tuple[Bodies, dict[str, slice]]:
    facades, skewed = _facade_boxes(buildings)
    f = furniture
    groups: dict[str, Boxes] = {"facades": facades}
    groups |= {f"details{i}": detail for i, detail in enumerate(buildings.details)}
    groups |= {"cars": f.cars, "lamps": f.lamps, "signs": f.signs, "trunks": f.trunks, "hedges": f.hedges}
    hulls: dict[str, Hulls] = {"roofs": buildings.roofs, "skewed": skewed, "cabins": f.cabins}
    every = {**groups, **hulls, "crowns": f.crowns}
    slots, start = {}, 0
    for name, group in every.items():
        slots[name] = slice(start, start + group.low.shape[1])
        start = slots[name].stop
    if start > GROUND_SLOT:
        raise RuntimeError(f"{start} bodies do not fit {GROUND_SLOT} slots")
    device = facades.low.device
    low, high = (torch.cat([getattr(g, name) for g in every.values()], dim=1) for name in ("low", "high"))
    upright, _ = _split(FACADES, device)
    facade = torch.zeros(SLOTS, dtype=torch.long, device=device)
    facade[slots["facades"]], facade[slots["skewed"]] = upright, _split(FACADES, device)[1]
    kind = torch.zeros(SLOTS, device=device)
    for name, group in every.items():
        kind[slots[name]] = group.kind
    kind[GROUND_SLOT] = GROUND
    centre, half = _pad((low + high) / 2), _pad((high - low) / 2)
    yaw = _pad(torch.tensor([1.0, 0.0], device=device).expand(*low.shape[:2], 2))
    local = buildings.high[:, _split(FACADES, device)[1]]
    centre[:, slots["skewed"]] = torch.stack([buildings.centre[..., 0], local[..., 1] / 2, buildings.centre[..., 2]], dim=-1)
    half[:, slots["skewed"]] = torch.stack([local[..., 0], local[..., 1] / 2, local[..., 2]], dim=-1)
    yaw[:, slots["skewed"]] = buildings.yaw
    planes = torch.cat([group.planes for group in hulls.values()], dim=1)
    bodies = Bodies(
        boxes=slots["hedges"].stop,
        hulls=planes.shape[1],
        blobs=f.crowns.low.shape[1],
        low=low,
        high=high,
        planes=planes,
        centre=centre,
        half=half.clamp(min=1e-3),
        yaw=yaw,
        kind=kind,
        facade=facade,
        thing=_things(slots, device),
        top=_pad(torch.cat([g.top for g in every.values()], dim=1)),
        side=_pad(torch.cat([g.side for g in every.values()], dim=1)),
        stripe=_pad(torch.cat([g.stripe for g in every.values()], dim=1)[..., None])[..., 0],
    )
    return bodies, slots


def _pad(values: Tensor) -> Tensor:
    """(B, n, c) -> (B, SLOTS, c)."""
    batch, count, width = values.shape
    return torch.cat([values, values.new_zeros(batch, SLOTS - count, width)], dim=1).contiguous()


def _things(slots: dict[str, slice], device: torch.device) -> Tensor:
    """(SLOTS,) long: the slot that stands for the whole thing, so that a car is its body and its cabin."""
    thing = torch.arange(SLOTS, device=device)
    thing[slots["cabins"]] = thing[slots["cars"]]
    thing[slots["crowns"]] = thing[slots["trunks"]].repeat(CROWN_PARTS)
    lamps = slots["lamps"]
    each = (lamps.stop - lamps.start) // 3
    thing[lamps] = thing[lamps.start : lamps.start + each].repeat(3)
    assert (slots["crowns"].stop - slots["crowns"].start) == TREES * CROWN_PARTS
    return thing
