"""Bent pictures: a smooth displacement that leaves everything where it was, nearly, and no long line straight."""

import cv2
import numpy as np

_CELLS = 3  # knots across the shorter side: long lines bend, small shapes keep their form, and nothing folds


def bend(image: np.ndarray, rms: float, generator: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 displaced by a smooth random field of ``rms`` pixels (root mean square of its length)."""
    return _remap(image, *displacement(image.shape[0], image.shape[1], rms, generator))


def displacement(height: int, width: int, rms: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two (H, W) float32 fields of pixels, x and y; the root mean square of their length is ``rms``."""
    short = min(height, width)
    cells = (max(2, round(_CELLS * width / short)), max(2, round(_CELLS * height / short)))
    coarse = generator.normal(size=(2, cells[1] + 1, cells[0] + 1)).astype(np.float32)
    fields = np.stack([cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC) for field in coarse])
    fields -= fields.mean(axis=(1, 2), keepdims=True)
    fields *= rms / np.sqrt((fields**2).sum(axis=0).mean())
    return fields[0], fields[1]


def resampled(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 shifted by half a pixel: as soft as a bent picture, and straight. The fair thing to compare one with."""
    half = np.full(image.shape[:2], 0.5, np.float32)
    return _remap(image, half, half)


def _remap(image: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moved: np.ndarray = cv2.remap(image, x + dx, y + dy, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return moved
