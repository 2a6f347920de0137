"""What a rendered scene shows: depth, how much of each thing, and the vanishing points that matter."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alberti.data.scenes.casting import Grid, cast
from alberti.data.scenes.config import SceneConfig
from alberti.data.scenes.ground import ground_marks
from alberti.data.scenes.layout import FACADE, GROUND
from alberti.data.scenes.scene import SKY_SLOT, SLOTS, Scenes
from alberti.data.scenes.tracing import column


@dataclass
class Visible:
    """What is seen at the pixels' centres: ``depth`` (B, H, W) with 0 for the sky, ``slots`` (B, SLOTS) pixel counts
    of things, ``walls`` (B, 2) of walls across x and across z, ``ground`` (B, 3) of carriageway-and-pavement, of
    crossings, of side streets."""

    depth: Tensor
    slots: Tensor
    walls: Tensor
    ground: Tensor

    @classmethod
    def join(cls, parts: list["Visible"]) -> "Visible":
        """What several batches see, as one."""
        names = ("depth", "slots", "walls", "ground")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def look(scenes: Scenes, config: SceneConfig) -> Visible:
    """Cast one ray through the centre of each pixel."""
    batch, device = len(scenes), scenes.view.eye.device
    depths: list[Tensor] = []
    slots = torch.zeros(batch, SLOTS, dtype=torch.long, device=device)
    shares = torch.zeros(batch, 5, dtype=torch.long, device=device)
    offset = torch.arange(batch, device=device)[:, None, None] * SLOTS
    for grid in Grid(config.width, config.height, 1).bands(device):
        hits = cast(scenes, grid, config.max_depth)
        slot = grid.image(hits.slot, batch)
        depths.append(grid.image(hits.depth, batch) * (slot != SKY_SLOT))
        slots += torch.bincount((slot + offset).flatten(), minlength=batch * SLOTS).view(batch, SLOTS)
        kind = column(scenes.bodies.kind, hits.slot)
        facade = 1 - (kind - FACADE).abs().clamp(max=1)
        on_ground = 1 - (kind - GROUND).abs().clamp(max=1)
        zebra, side = ground_marks(scenes, hits.rays, hits.points, hits.scale)
        walls = [facade * hits.normal[i].abs() for i in (0, 2)]
        layers = (*walls, on_ground, zebra * on_ground, side * on_ground)
        shares += torch.stack([(grid.image(layer, batch) > 0.5).sum((1, 2)) for layer in layers], dim=1)
    return Visible(torch.cat(depths, dim=1), slots, shares[:, :2], shares[:, 2:])


def vanishing_points(scenes: Scenes, seen: Visible, config: SceneConfig) -> Tensor:
    """(B, 3, 3) float64 homogeneous pixels, unit norm, of the street's directions along, across and up that have
    visible structure, those with most of it first; the rest are rows of zeros."""
    view = scenes.view
    axes, k = view.axes.double(), view.intrinsics.double()
    # Direction e_i in camera axes is the i-th column of ``axes``; along first.
    along, across, up = axes[..., 2], axes[..., 0], axes[..., 1]
    points = []
    for direction in (along, across, up):
        x = k[:, 0] * direction[:, 0] + k[:, 2] * direction[:, 2]
        y = k[:, 1] * direction[:, 1] + k[:, 3] * direction[:, 2]
        w = direction[:, 2]
        norm = (x * x + y * y + w * w).sqrt()
        points.append(torch.stack([x / norm, y / norm, w / norm], dim=1))
    stacked = torch.stack(points, dim=1)
    wall_x, wall_z = seen.walls[:, 0], seen.walls[:, 1]
    ground, cars = seen.ground[:, 0], seen.slots[:, scenes.slots["cars"]].sum(1)
    across_share = 4 * wall_z + 0.4 * ground + seen.ground[:, 2] + 2 * cars
    scores = torch.stack([4 * wall_x + ground, across_share, 3 * (wall_x + wall_z)], dim=1)
    present = scores >= 0.08 * config.width * config.height
    order = torch.argsort(scores * present, dim=1, descending=True, stable=True)
    chosen = stacked * present[..., None]
    return chosen.gather(1, order[..., None].expand(-1, -1, 3))
