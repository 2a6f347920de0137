"""What tells one style of street from another: tables of ranges, probabilities and palettes.

The training styles and ``kitti`` (the test domain) share the geometry's grammar but neither palettes nor proportions.
"""

import torch
from torch import Tensor

STYLES = ("europe", "oldtown", "modern", "suburb", "kitti")
TRAINING_STYLES = ("europe", "oldtown", "modern", "suburb")
"""What ``style="mixed"`` draws from: the test set's style is never among them."""

MATERIALS = ("brick", "plaster", "stone", "concrete", "glass", "wood")
WEATHERS = ("sunny", "overcast", "evening", "night")

# Metres, counts and shares, (low, high) for europe, oldtown, modern, suburb, kitti.
_RANGES: dict[str, tuple[tuple[float, float], ...]] = {
    "road_half": ((2.8, 4.6), (2.0, 3.0), (4.5, 7.5), (3.0, 4.5), (3.0, 4.4)),
    "pavement": ((1.8, 4.0), (1.2, 2.2), (3.0, 6.0), (1.6, 2.6), (2.0, 3.6)),
    "verge": ((0.0, 0.0), (0.0, 0.0), (0.0, 1.5), (0.8, 2.5), (0.0, 1.2)),
    "yard": ((0.0, 0.3), (0.0, 0.2), (0.0, 2.0), (1.5, 4.0), (1.0, 4.0)),
    "cross_half": ((2.5, 4.0), (1.8, 2.8), (4.0, 6.0), (2.8, 4.0), (2.8, 4.0)),
    "setback": ((0.0, 0.4), (0.0, 0.5), (0.0, 3.0), (0.0, 2.0), (0.0, 3.0)),
    "width": ((8.0, 18.0), (5.0, 11.0), (14.0, 32.0), (8.0, 13.0), (9.0, 20.0)),
    "gap": ((2.0, 5.0), (1.0, 3.0), (3.0, 10.0), (2.0, 5.0), (2.0, 9.0)),
    "depth": ((9.0, 14.0), (7.0, 11.0), (12.0, 22.0), (8.0, 11.0), (8.0, 13.0)),
    "floors": ((3.0, 6.99), (2.0, 4.99), (4.0, 13.99), (1.4, 3.2), (2.0, 4.49)),
    "floor_height": ((3.0, 3.7), (2.6, 3.2), (3.1, 4.0), (2.6, 3.0), (2.7, 3.1)),
    "ground_height": ((3.5, 4.8), (3.0, 3.8), (4.0, 5.6), (2.7, 3.1), (2.8, 3.3)),
    "pitch": ((1.9, 3.3), (1.7, 2.8), (1.4, 4.2), (2.2, 3.8), (2.3, 4.0)),
    "window_wide": ((0.34, 0.52), (0.32, 0.45), (0.60, 0.95), (0.36, 0.55), (0.38, 0.62)),
    "window_high": ((0.50, 0.68), (0.42, 0.55), (0.45, 0.92), (0.40, 0.52), (0.40, 0.55)),
    "frame": ((0.07, 0.14), (0.08, 0.16), (0.04, 0.09), (0.07, 0.13), (0.05, 0.10)),
    "sill": ((0.06, 0.12), (0.05, 0.10), (0.0, 0.02), (0.0, 0.08), (0.02, 0.06)),
    "band": ((0.08, 0.22), (0.0, 0.12), (0.0, 0.40), (0.0, 0.10), (0.0, 0.10)),
    "pilaster": ((0.0, 0.14), (0.0, 0.05), (0.0, 0.25), (0.0, 0.0), (0.0, 0.0)),
    "roof_pitch": ((0.45, 0.95), (0.7, 1.2), (0.2, 0.4), (0.4, 0.75), (0.6, 1.0)),
    "tree_spacing": ((9.0, 14.0), (12.0, 18.0), (8.0, 14.0), (8.0, 13.0), (7.0, 12.0)),
    "tree_height": ((5.0, 8.0), (4.0, 6.0), (5.0, 8.0), (5.0, 10.0), (6.0, 11.0)),
}

_CHANCES: dict[str, tuple[float, ...]] = {
    "gap": (0.04, 0.06, 0.2, 0.75, 0.5),
    "terrace": (0.6, 0.4, 0.4, 0.6, 0.5),
    "gable": (0.45, 0.8, 0.02, 0.9, 0.85),
    "gable_across": (0.15, 0.5, 0.0, 0.4, 0.35),
    "cornice": (0.9, 0.6, 0.6, 0.25, 0.15),
    "shutters": (0.3, 0.45, 0.0, 0.3, 0.2),
    "shop": (0.6, 0.5, 0.6, 0.02, 0.12),
    "awning": (0.45, 0.4, 0.35, 0.05, 0.1),
    "bay": (0.3, 0.2, 0.08, 0.1, 0.12),
    "blank_side": (0.4, 0.5, 0.15, 0.3, 0.4),
    "trees": (0.32, 0.15, 0.4, 0.65, 0.7),
    "cars": (0.55, 0.3, 0.45, 0.3, 0.5),
    "lamps": (0.8, 0.6, 0.85, 0.6, 0.6),
    "signs": (0.5, 0.3, 0.5, 0.3, 0.5),
    "hedge": (0.02, 0.0, 0.05, 0.5, 0.45),
    "closed": (0.5, 0.7, 0.4, 0.25, 0.3),
    "lanes": (0.7, 0.15, 0.95, 0.4, 0.45),
    "zebra": (0.7, 0.3, 0.85, 0.35, 0.4),
    "skew": (0.2, 0.4, 0.15, 0.2, 0.2),
}

# Relative frequency of MATERIALS, and of WEATHERS, by style.
_MATERIAL_WEIGHTS = (
    (0.38, 0.36, 0.2, 0.03, 0.03, 0.0),
    (0.2, 0.4, 0.35, 0.0, 0.0, 0.05),
    (0.1, 0.08, 0.1, 0.36, 0.36, 0.0),
    (0.3, 0.25, 0.05, 0.0, 0.0, 0.4),
    (0.14, 0.66, 0.06, 0.1, 0.0, 0.04),
)
_WEATHER_WEIGHTS = (
    (0.42, 0.28, 0.16, 0.14),
    (0.42, 0.28, 0.16, 0.14),
    (0.42, 0.24, 0.16, 0.18),
    (0.45, 0.3, 0.17, 0.08),
    (0.6, 0.32, 0.08, 0.0),
)

_WALLS_TRAINING = {
    "brick": ("8a4b3a", "a05a44", "73402f", "b5714f", "94604a", "c08a62"),
    "plaster": ("e6d7b8", "d9b98a", "e3c7b4", "cfd4d2", "efe9dc", "c9b79b"),
    "stone": ("b8ad98", "a39b8b", "c9bfa9", "8f8a80", "b3a184", "9a9488"),
    "concrete": ("9c9c9a", "b4b2ac", "85878a", "a8a49c", "c2c1bd", "767a7d"),
    "glass": ("5c6e7a", "4a5f6e", "6f8088", "3f4f58", "7c8c90", "55666a"),
    "wood": ("e8e6de", "c6d0cf", "a9b7a2", "d9cfb0", "93a3b3", "b98d6a"),
}
_WALLS_KITTI = {
    "brick": ("7a3b2c", "b8785c", "6a4436", "a4583c", "85503e", "c79a78"),
    "plaster": ("f2efe6", "ead9a0", "dfe6d2", "f0c8a8", "d2dde6", "c8c4b8"),
    "stone": ("9d9484", "bdb4a0", "847d72", "aaa193", "cdc5b3", "8c8679"),
    "concrete": ("b0aea6", "8d8f8f", "c6c4bc", "a09c92", "7e8082", "d0cec8"),
    "glass": ("60727c", "465a66", "748690", "54626a", "68787c", "3a4a54"),
    "wood": ("6b4a32", "8a6a4a", "a88a62", "54402e", "b09a7a", "7a5a44"),
}
_TRIMS = ("f0ece0", "d8d2c4", "c8c0b0", "8a8478", "ffffff", "5a5650")
_ACCENTS = ("2f5a46", "7a2c28", "2c4668", "8a6a34", "3a3a3c", "b04a34", "4a6a7a", "d0a030")
_ROOFS = ("7a3f30", "8f4a36", "5a4640", "54585c", "6a5a50", "44484c")
_ROOFS_KITTI = ("a8523a", "94402c", "6e4238", "4c4a4a", "b8644a", "7c3a2c")
CAR_COLOURS = ("c8ccd0", "24262a", "8c9094", "7a1c20", "20406a", "e8e8e4", "4a4e44", "5c7a8a", "a08a5a", "b83a20")


def linear(colour: str) -> tuple[float, float, float]:
    """Linear light of a hex colour; pictures are encoded with gamma 2, whose inverse is a square."""
    red, green, blue = ((int(colour[i : i + 2], 16) / 255) ** 2 for i in (0, 2, 4))
    return (red, green, blue)


def palette(colours: tuple[str, ...], device: torch.device) -> Tensor:
    """(n, 3) linear colours."""
    return torch.tensor([linear(colour) for colour in colours], device=device)


def roofs(device: torch.device) -> Tensor:
    """(2, n, 3): colours of pitched roofs for the training styles and for ``kitti``."""
    return torch.stack([palette(_ROOFS, device), palette(_ROOFS_KITTI, device)])


def walls(device: torch.device) -> Tensor:
    """(2, materials, n, 3): colours of walls for the training styles and for ``kitti``."""
    tables = (_WALLS_TRAINING, _WALLS_KITTI)
    return torch.stack([torch.stack([palette(table[name], device) for name in MATERIALS]) for table in tables])


def trims(device: torch.device) -> Tensor:
    """(n, 3): colours of window frames, bands and cornices."""
    return palette(_TRIMS, device)


def accents(device: torch.device) -> Tensor:
    """(n, 3): colours of doors, shutters and awnings."""
    return palette(_ACCENTS, device)


class StyleTable:
    """The tables above, looked up for a batch of styles (B,) of indices into STYLES."""

    def __init__(self, style: Tensor):
        self.style = style
        self.is_kitti = style == STYLES.index("kitti")

    def between(self, name: str, draw: Tensor) -> Tensor:
        """Map uniform draws (B, ...) into the style's range."""
        table = torch.tensor(_RANGES[name], device=draw.device)[self.style]
        low, high = (table[:, i].reshape(-1, *[1] * (draw.ndim - 1)) for i in (0, 1))
        return low + (high - low) * draw

    def chance(self, name: str, draw: Tensor) -> Tensor:
        """True where uniform draws (B, ...) fall under the style's probability."""
        table = torch.tensor(_CHANCES[name], device=draw.device)[self.style]
        return draw < table.reshape(-1, *[1] * (draw.ndim - 1))

    def material(self, draw: Tensor) -> Tensor:
        """Indices into MATERIALS from uniform draws (B, ...)."""
        return _choose(_MATERIAL_WEIGHTS, self.style, draw)

    def weather(self, draw: Tensor) -> Tensor:
        """Indices into WEATHERS from uniform draws (B, ...)."""
        return _choose(_WEATHER_WEIGHTS, self.style, draw)


def _choose(weights: tuple[tuple[float, ...], ...], style: Tensor, draw: Tensor) -> Tensor:
    edges = torch.tensor([[sum(row[: i + 1]) for i in range(len(row) - 1)] for row in weights], device=draw.device)
    edges = edges[style].reshape(len(style), *[1] * (draw.ndim - 1), -1)
    return (draw[..., None] >= edges).sum(-1)
