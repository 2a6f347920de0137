"""What the parts of the constraint study share: streets, the steps of denoising, bending and scoring pictures."""

import argparse
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alberti.data.scenes import SceneConfig, render_batch
from alberti.diffusion.constraints import Constraint
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.objective import predict_x0
from alberti.diffusion.sample import to_uint8
from alberti.losses.orientation import blur
from alberti.metrics.perspective import perspective_consistency
from alberti.seeding import torch_generator

BEND_RMS, BEND_SIGMA = 1.5, 8.0
"""Pixels by which a bent picture is moved, and over which that is smooth: about as crooked as the base's own pictures."""


@dataclass
class Streets:
    """Rendered streets and what the model is given of them; all (n, ...)."""

    ids: list[str]
    images: Tensor
    points: Tensor
    latents: Tensor
    text: Tensor
    condition: Tensor
    depth: Tensor
    captions: list[str]

    def part(self, rows: slice) -> "Streets":
        return Streets(**{name: value[rows] for name, value in vars(self).items()})

    def batches(self, size: int) -> Iterable["Streets"]:
        return (self.part(slice(start, start + size)) for start in range(0, len(self.ids), size))


@torch.no_grad()
def load_streets(model: DepthDiffusion, count: int, seed: int, size: int) -> Streets:
    ids = [f"v{index}" for index in range(count)]
    scenes = render_batch(ids, seed, SceneConfig(width=size, height=size), "cpu")
    images, depth = (scenes["image"].float() / 255).to(model.device), scenes["depth"].to(model.device)
    latents = torch.cat([model.encode_image(part)[0] for part in images.split(8)])
    text, points = model.encode_text(scenes["captions"]), scenes["vanishing_points"].float().to(model.device)
    return Streets(ids, images, points, latents, text, model.condition(depth), depth, scenes["captions"])


class Study:
    """The model, and the steps of denoising that all parts share."""

    def __init__(self, model: DepthDiffusion, arguments: argparse.Namespace):
        self.model, self.network, self.schedule = model, model.denoiser().requires_grad_(False), model.schedule
        self.seed, self.batch, self.lines = arguments.seed, arguments.batch, arguments.lines
        self.times, self.draws, self.steps = arguments.times, arguments.draws, arguments.steps
        self.latent_count = arguments.latent_count

    def noise(self, streets: Streets, draw: int) -> Tensor:
        shape = streets.latents.shape[1:]
        rows = [torch.randn(shape, generator=torch_generator(self.seed, "study", name, draw)) for name in streets.ids]
        return torch.stack(rows).to(self.model.device)

    def level(self, streets: Streets, t: int) -> Tensor:
        return self.schedule.alpha_bar(torch.full((len(streets.ids),), t, device=self.model.device))

    @torch.no_grad()
    def predict(self, streets: Streets, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The UNet's output at ``x_t``, and the x0 that it implies."""
        times = self.schedule.model_timesteps(torch.full((len(x_t),), t, device=x_t.device))
        output = self.network(x_t, times, streets.text, streets.condition).float()
        return output, predict_x0(output, x_t, self.level(streets, t), self.schedule.prediction_type)

    def decode(self, latents: Tensor) -> Tensor:
        return self.model.decode(latents).clamp(0, 1)

    @torch.no_grad()
    def decode_all(self, latents: Tensor) -> Tensor:
        return torch.cat([self.decode(part) for part in latents.split(self.batch)])

    def value(self, constraint: Constraint, picture: Tensor, streets: Streets, level: Tensor | None = None) -> Tensor:
        level = torch.ones(len(picture), device=picture.device) if level is None else level
        return constraint(picture, streets.images, streets.points, level, num_lines=self.lines)


def score(pictures: Tensor, streets: Streets) -> dict[str, float]:
    """Means over pictures: consistency at 2 and 5 degrees, line length in pixels, root mean square of picture - truth.

    ``all_lines_2``: the share of all pictures' line length together, so that pictures with many lines count more.
    """
    points = streets.points.cpu().numpy()
    found = [perspective_consistency(image, rows) for image, rows in zip(to_uint8(pictures.detach()), points, strict=True)]
    names = ("consistency_2", "consistency_5", "line_length")
    result = {name: mean(row[name] for row in found) for name in names}
    error = (pictures.detach() - streets.images).square().mean(dim=(1, 2, 3)).sqrt()
    lengths = [float(row["line_length"] or 0) for row in found]
    straight = [float(row["consistency_2"] or 0) * length for row, length in zip(found, lengths, strict=True)]
    result["all_lines_2"] = round(sum(straight) / max(sum(lengths), 1.0), 5)
    return result | {"rms_to_truth": mean(error.tolist()), "n": len(found)}


def mean(values: Iterable[Any]) -> float:
    there = [float(value) for value in values if value is not None and not math.isnan(float(value))]
    return round(sum(there) / len(there), 5) if there else math.nan


def bend(streets: Streets, seed: int) -> Tensor:
    """The pictures moved by a smooth random displacement, each of whose components has 1.5 pixels rms."""
    height, width = streets.images.shape[2:]
    draws = [torch.randn(2, height, width, generator=torch_generator(seed, "bend", name)) for name in streets.ids]
    field = blur(torch.stack(draws), BEND_SIGMA)
    field = BEND_RMS * field / field.square().mean(dim=(2, 3), keepdim=True).sqrt()
    return moved(streets.images, field.to(streets.images.device))


def moved(pictures: Tensor, field: Tensor) -> Tensor:
    """pictures (n, 3, H, W) read at each pixel + field (n, 2, H, W) pixels (x, y), bicubic, borders reflected."""
    height, width = pictures.shape[2:]
    x = torch.arange(width, device=pictures.device) + field[:, 0]
    y = torch.arange(height, device=pictures.device)[:, None] + field[:, 1]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return F.grid_sample(pictures, grid, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(0, 1)
