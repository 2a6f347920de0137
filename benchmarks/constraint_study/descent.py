"""Following one constraint alone, from crooked pictures; see __main__.py."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from figures import SHOWN
from shared import Streets, Study, bend, mean, moved, score
from torch import Tensor

from alberti.diffusion.config import SampleConfig
from alberti.diffusion.constraints import CONSTRAINTS, Constraint
from alberti.diffusion.sample import sample_images, to_uint8

FIELD_CELL = 4
"""Pixels between the nodes of the displacement field that is descended in."""
RATES = {"pixels": 0.01, "latents": 0.03, "field": 0.1}
"""Adam's step: gray values of [0, 1], scaled latents, pixels of displacement."""


def descent_bent(study: Study, streets: Streets, figures: dict[str, np.ndarray]) -> dict[str, Any]:
    """From renders that were bent: the reference is the render before."""
    return _descents(study, streets, bend(streets, study.seed), "bent", figures)


def descent_generated(study: Study, streets: Streets, figures: dict[str, np.ndarray]) -> dict[str, Any]:
    """From the base's own pictures: the reference is the render of the same depth map, whose windows and bricks are others."""
    config = SampleConfig(steps=10, solver="dpm++", guidance_scale=2, seed=study.seed)
    own = [sample_images(study.model, part.depth, part.captions, part.ids, config) for part in streets.batches(study.batch)]
    return _descents(study, streets, torch.cat(own), "generated", figures)


def _descents(study: Study, streets: Streets, start: Tensor, label: str, figures: dict[str, np.ndarray]) -> dict[str, Any]:
    """A curve over steps for each route and constraint."""
    figures["descent/true"], figures[f"descent/{label}"] = to_uint8(streets.images)[SHOWN], to_uint8(start)[SHOWN]
    result: dict[str, Any] = {"renders": score(streets.images, streets)}
    for route in RATES:
        count = study.latent_count if route == "latents" else len(streets.ids)
        for name, constraint in CONSTRAINTS.items():
            curve, last = descend(study, streets.part(slice(count)), start[:count], route, constraint)
            result.setdefault(route, {})[name] = curve
            figures[f"descent/{label}/{route}/{name}"] = to_uint8(last)[SHOWN]
            print(f"descent {label} {route} {name}: {json.dumps([curve[0], curve[-1]])}", flush=True)
    return result


def descend(
    study: Study, streets: Streets, pictures: Tensor, route: str, constraint: Constraint
) -> tuple[list[dict[str, float]], Tensor]:
    """Adam on one constraint alone: scores after some of the steps, and the last pictures."""
    start, paint = _route(study, pictures, route)
    moving = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([moving], lr=RATES[route])
    scored = {round(study.steps * share) for share in (0, 0.1, 0.25, 0.5, 0.75, 1)}
    curve = []
    for step in range(study.steps + 1):
        optimiser.zero_grad()
        values, shown = [], []
        for rows in torch.arange(len(pictures)).split(study.batch):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            picture = paint(moving[part], part)
            value = study.value(constraint, picture, streets.part(part))
            if step < study.steps:
                value.sum().backward()
            values += value.tolist()
            shown.append(picture.detach())
        if step in scored:
            curve.append({"step": step, "value": mean(values), **score(torch.cat(shown), streets)})
        optimiser.step()
    return curve, torch.cat(shown)


def _route(study: Study, pictures: Tensor, route: str) -> tuple[Tensor, Callable[[Tensor, slice], Tensor]]:
    """What is moved, from where, and the pictures that it stands for."""
    if route == "pixels":
        return pictures, lambda moving, rows: moving.clamp(0, 1)
    if route == "latents":
        with torch.no_grad():
            latents = torch.cat([study.model.encode_image(part)[0] for part in pictures.split(study.batch)])
        return latents, lambda moving, rows: study.decode(moving)
    count, _, height, width = pictures.shape
    nodes = torch.zeros(count, 2, height // FIELD_CELL, width // FIELD_CELL, device=pictures.device)

    def paint(moving: Tensor, rows: slice) -> Tensor:
        field = F.interpolate(moving, size=(height, width), mode="bilinear", align_corners=False)
        return moved(pictures[rows], field)

    return nodes, paint
