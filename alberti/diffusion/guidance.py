"""Guidance by vanishing points: while a picture is sampled, its edges are turned towards the scene's vanishing points.

At each denoising step of a window the clean latent x0 that the denoiser heads for is decoded, an energy says how far the
edges of each of its surfaces are from a grid of lines to that surface's vanishing points, and the noisy latent is moved
down that energy's gradient, which runs through decoder and denoiser as in diffusion posterior sampling (Chung et al. 2023)
and universal guidance (Bansal et al. 2023).
The energy is our own, :func:`alberti.losses.orientation.grid_misfit`; docs/log.md says what other routes gave.
``alberti/guidance.py`` brings it to pipelines of diffusers.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from alberti.data.manifest import Sample
from alberti.data.transforms import stack_vanishing_points
from alberti.diffusion.config import VanishingGuidance
from alberti.diffusion.model import DepthDiffusion
from alberti.errors import ConfigError
from alberti.families.steps import NoiseStep
from alberti.geometry.presence import present
from alberti.losses.orientation import edge_amount, grid_misfit

Points = Sequence[Sequence[float]] | None


class VanishingEnergy:
    """How far the edges of pictures are from grids of lines to their vanishing points, and which way lowers it.

    Args:
        decoder: latents (R, C, h, w) to pictures (R, 3, H, W) in [-1, 1], frozen.
        points: for each picture of the batch its homogeneous vanishing points in pixels; None or empty: the picture is
            left as it is.
        surfaces: for each picture (K, H, W) bool, which of its points each pixel's surface contains, or None: all of them
            everywhere. None: so for all pictures.
        device: of the latents.
    """

    def __init__(
        self,
        decoder: nn.Module,
        config: VanishingGuidance,
        points: Sequence[Points],
        surfaces: Sequence[np.ndarray | None] | None,
        device: torch.device,
    ):
        self.decoder, self.config = decoder, config
        batch = torch.from_numpy(stack_vanishing_points(points)).to(device)
        self.rows = present(batch).any(dim=1).nonzero()[:, 0]
        self.points = batch[self.rows]
        self.surfaces = None if surfaces is None else _stack_surfaces(surfaces, batch.shape[1]).to(device)[self.rows]

    def slope(self, estimates: Tensor, part: slice, alpha_bar: float = 1.0) -> Tensor:
        """Gradient of the energy by clean latents, each picture's scaled to unit mean square.

        Args:
            estimates: (R, C, h, w), the clean latents of the guided pictures ``rows[part]``.
            alpha_bar: share of signal power at the step.
        """
        with torch.enable_grad():
            inputs = estimates.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.misfit(self.decode(inputs), part, alpha_bar).sum(), inputs)
        return gradient / mean_square(gradient).sqrt()

    def misfit(self, images: Tensor, part: slice, alpha_bar: float = 1.0) -> Tensor:
        """(R,) of pictures (R, 3, H, W) in [0, 1], at a step with this share of signal power."""
        surfaces = None if self.surfaces is None else self.surfaces[part]
        config = self.config
        options = {"tolerance": config.tolerance, "balance": config.balance}
        misfit = grid_misfit(images, self.points[part], surfaces=surfaces, **options)
        return misfit + config.hold * edge_amount(images) if config.hold and alpha_bar >= config.hold_from else misfit

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (R, C, h, w) to pictures (R, 3, H, W) in [0, 1], float32."""
        dtype = next(self.decoder.parameters()).dtype
        return ((self.decoder(latents.to(dtype)).float() + 1) / 2).clamp(0, 1)


class VanishingGuide:
    """Turns the edges of pictures in the making towards their vanishing points.

    Args:
        points, surfaces: see :class:`VanishingEnergy`.
        steps: denoising steps of the whole run, among which the strength is shared.
        decoder: what :func:`guide_decoder` made of the model, for several guides to share; None: made here.

    Raises:
        ConfigError: the model lacks the tiny decoder that is asked for.
    """

    def __init__(
        self,
        model: DepthDiffusion,
        config: VanishingGuidance,
        points: Sequence[Points],
        steps: int,
        decoder: nn.Module | None = None,
        surfaces: Sequence[np.ndarray | None] | None = None,
    ):
        decoder = guide_decoder(model, config) if decoder is None else decoder
        self.energy, self.config = VanishingEnergy(decoder, config, points, surfaces, model.device), config
        self.size = config.strength / steps

    def push(self, denoise: Callable[[Tensor, Tensor], Tensor], x_t: Tensor, step: NoiseStep) -> Tensor | None:
        """What to add to the latents once the solver has made its step from ``x_t``; None outside of the window.

        Args:
            denoise: (some rows of x_t, their indices (R,)) -> predictions, with gradients.
            x_t: (B, C, h, w) float32.
            step: the solver's, from ``x_t``.

        Returns:
            (B, C, h, w), zero for pictures without vanishing points.
        """
        energy, config = self.energy, self.config
        if not (len(energy.rows) and config.alpha_min <= step.alpha_bar <= config.alpha_max):
            return None
        result = torch.zeros_like(x_t)
        for start in range(0, len(energy.rows), config.chunk):
            part = slice(start, start + config.chunk)
            rows = energy.rows[part]
            with torch.enable_grad():
                noisy = x_t[rows].detach().requires_grad_()
                x0 = step.x0(noisy, denoise(noisy, rows))
            (gradient,) = torch.autograd.grad(x0, noisy, energy.slope(x0, part, step.alpha_bar))
            result[rows] = -self.size * even_step(gradient)
        return result


def guide_decoder(model: DepthDiffusion, config: VanishingGuidance) -> nn.Module:
    """What a guide decodes with, scaled latents (B, C, h, w) to pictures (B, 3, H, W) in [-1, 1]: the model's tiny decoder, or
    a frozen copy of the VAE's that is cheaper to differentiate.

    Raises:
        ConfigError: the model lacks the tiny decoder that is asked for.
    """
    model.check_decoder(config.decoder, "vanishing_guidance.decoder")
    if config.decoder == "tiny":
        return cast(nn.Module, model.tiny_decoder.decoder)
    return model.frozen_decoder()


def even_step(gradient: Tensor) -> Tensor:
    """g / (|g| + rms(g)) for each picture's gradient g: in proportion where it is small, below 1 where it is large."""
    return gradient / (gradient.abs() + mean_square(gradient).sqrt())


def mean_square(values: Tensor) -> Tensor:
    """Of each picture's values, (B, 1, ...), and never zero."""
    return values.square().mean(dim=tuple(range(1, values.ndim)), keepdim=True).clamp(min=1e-24)


def _stack_surfaces(surfaces: Sequence[np.ndarray | None], count: int) -> Tensor:
    """(B, count, H, W) bool of the pictures' own (K, H, W); all True for pictures that have none."""
    size = next((found.shape[1:] for found in surfaces if found is not None), (1, 1))
    stacked = np.ones((len(surfaces), count, *size), dtype=bool)
    for row, found in zip(stacked, surfaces, strict=True):
        if found is not None:
            row[: len(found)] = found
    return torch.from_numpy(stacked)


def require_points(samples: Iterable[Sample]) -> None:
    """ConfigError unless some picture of all has vanishing points, or a camera to find them with in its depth map."""
    for sample in samples:
        if any(any(point) for point in sample.vanishing_points or []):
            return
        if sample.vanishing_points is None and sample.intrinsics is not None:
            return
    raise ConfigError(
        "vanishing_guidance: no picture has vanishing points to be guided by, nor intrinsics to find them with in its depth "
        "map; generate from a data set whose manifest has either, or leave vanishing_guidance out"
    )
