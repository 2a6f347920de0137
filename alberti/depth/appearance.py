"""Changes of a picture's appearance beyond what one camera does, so that a model trained on renders learns geometry and not
the renderer's colours: a colour matrix (contrast, saturation, hue, gains), uneven light, sharpness and noise.

Drawn on the host from (seed, id, visit), applied by torch to whole batches with the same operations whatever was drawn, so
that a training step can be captured as a CUDA graph.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_FIELD = (3, 5)
"""Rows and columns of the grid that uneven light is interpolated from."""
_GREY = np.array([0.2989, 0.587, 0.114])
COUNT = 9 + 3 + _FIELD[0] * _FIELD[1] + 2
"""Numbers a picture: matrix, offset, logarithms of the light's grid, sharpness, noise."""


def draw_appearance(strength: float, random: np.random.Generator) -> np.ndarray:
    """(COUNT,) float32: a change of ``strength`` (0: none, 1: strong)."""

    def uniform(reach: float) -> float:
        return float(random.uniform(-reach, reach)) * strength

    contrast, gains = math.exp(uniform(0.5)), np.exp([uniform(0.25) for _ in range(3)])
    saturation = max(0.0, 1 + uniform(0.6)) if random.random() > 0.15 * strength else 0.0
    matrix = gains[:, None] * (_hue(uniform(0.4)) @ (saturation * np.eye(3) + (1 - saturation) * _GREY[None, :])) * contrast
    # Contrast turns about the middle, so that the mean stays where it was, and brightness moves it.
    offset = np.full(3, 0.45 * (1 - contrast) + uniform(0.15))
    light = [uniform(0.5) for _ in range(_FIELD[0] * _FIELD[1])]
    sharpness = float(random.uniform(-1.0, 0.7)) * min(strength, 1.0)
    noise = float(random.uniform(0, 0.05)) * strength if random.random() < 0.5 else 0.0
    return np.array([*matrix.ravel(), *offset, *light, sharpness, noise], np.float32)


def _hue(angle: float) -> np.ndarray:
    """(3, 3): a turn of the colours about the grey axis, by Rodrigues' formula."""
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return math.cos(angle) * np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * np.outer(axis, axis)


def change_appearance(images: Tensor, change: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] under the changes (B, COUNT) of :func:`draw_appearance`: (B, 3, H, W) in [0, 1].

    The noise is torch's own, which the training loop seeds by step.
    """
    matrix, offset, light, sharpness, noise = change.split([9, 3, _FIELD[0] * _FIELD[1], 1, 1], dim=1)
    coloured = torch.einsum("bij,bjhw->bihw", matrix.view(-1, 3, 3), images) + offset[:, :, None, None]
    field = F.interpolate(light.view(-1, 1, *_FIELD), images.shape[-2:], mode="bicubic", align_corners=True).exp()
    lit = coloured * field
    lit = lit + sharpness[:, :, None, None] * (lit - _blurred(lit))
    return (lit + noise[:, :, None, None] * torch.randn_like(lit)).clamp(0, 1)


def _blurred(images: Tensor) -> Tensor:
    """Under the binomial window of 5 x 5, a deviation of one pixel. By sums: a captured step may copy no constants."""
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    for dim in (2, 3):
        size = images.shape[dim]
        parts = [padded.narrow(dim, offset, size) for offset in range(5)]
        padded = (parts[0] + parts[4] + 4 * (parts[1] + parts[3]) + 6 * parts[2]) / 16
    return padded
