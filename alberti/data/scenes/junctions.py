"""Streets that meet at any angle: no Manhattan world, with a true horizon and true vanishing points.

Two streets share one camera, the second turned about the upright axis; each pixel shows what is nearer.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from alberti.data.scenes.config import SceneConfig
from alberti.data.scenes.render import build, paint
from alberti.data.scenes.scene import Scenes
from alberti.data.scenes.visible import look, vanishing_points
from alberti.seeding import numpy_generator

_LEAST, _MOST = math.radians(20.0), math.radians(70.0)
"""Angles between the streets: a right angle would be a Manhattan world again."""


def render_junctions(ids: Sequence[str], seed: int, config: SceneConfig, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Render pairs of streets that meet at 20 to 70 degrees, to the left or right.

    Returns:
        ``image`` (B, 3, H, W) uint8, ``intrinsics`` (B, 4), ``down`` (B, 3) in camera axes, ``angle`` (B,) between
        the streets, radians, ``vanishing_points`` (B, 6, 3) of both streets, rows of zeros for those with
        little to see.
    """
    fine = replace(config, width=2 * config.width, height=2 * config.height, supersample=1)
    with torch.no_grad():
        first = build(ids, seed, fine, torch.device(device))
        second = build([f"{name}/second" for name in ids], seed, fine, torch.device(device))
        rows = np.stack([numpy_generator(seed, "junction", name).random(2, dtype=np.float32) for name in ids])
        draw = torch.from_numpy(rows).to(device)
        angle = (_LEAST + (_MOST - _LEAST) * draw[:, 0]) * torch.where(draw[:, 1] < 0.5, -1.0, 1.0)
        second = _seen_by(first, second, angle)
        image, points = _nearer(first, second, fine)
        half = torch.tensor([0.0, 0.0, 0.5, 0.5], device=device)  # a pixel's centre
        intrinsics = (first.view.intrinsics + half) / 2 - half
        small = torch.tensor([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1.0]], dtype=torch.float64, device=device)
        points = points @ small.T
        norm = points.norm(dim=2, keepdim=True)
        return {
            "image": avg_pool2d(image.float(), 2).round().to(torch.uint8),
            "intrinsics": intrinsics,
            "down": -first.view.axes[..., 1].double(),
            "angle": angle,
            "vanishing_points": points / norm.clamp(min=1e-12),
        }


def _seen_by(first: Scenes, second: Scenes, angle: Tensor) -> Scenes:
    """The second street under the first one's light, and its camera turned by ``angle`` and set into the second street."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], dim=1).view(-1, 3, 3)
    eye = second.view.eye.clone()
    eye[:, 1] = first.view.eye[:, 1]
    view = replace(second.view, eye=eye, axes=first.view.axes @ turn, intrinsics=first.view.intrinsics)
    return replace(second, view=view, light=first.light)


def _nearer(first: Scenes, second: Scenes, config: SceneConfig) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) pictures of what is nearer, and (B, 6, 3) vanishing points."""
    images, depths, points = [], [], []
    for scenes in (first, second):
        seen = look(scenes, config)
        images.append(paint(scenes, config))
        depths.append(torch.where(seen.depth > 0, seen.depth, torch.inf))
        points.append(vanishing_points(scenes, seen, config))
    front = (depths[0] <= depths[1])[:, None]
    return torch.where(front, images[0], images[1]), torch.cat(points, dim=1)
