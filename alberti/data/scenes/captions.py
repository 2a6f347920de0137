"""Captions that name what is visible, and nothing else.

The grammar: ``a [narrow|wide] street with FACADES[, THINGS ...], WEATHER``.
"""

import torch
from torch import Tensor

from alberti.data.scenes.config import SceneConfig
from alberti.data.scenes.scene import SLOTS, Scenes
from alberti.data.scenes.styles import MATERIALS, STYLES, WEATHERS
from alberti.data.scenes.visible import Visible

_NUMBERS = ("no", "a", "two", "three", "four")
_WEATHER = {"sunny": "sunny", "overcast": "overcast", "evening": "in evening light", "night": "at night"}
_SETTING = {
    "europe": "a city street",
    "oldtown": "a narrow street",
    "modern": "a wide street",
    "suburb": "a residential street",
    "kitti": "a road",
}


def write_captions(scenes: Scenes, seen: Visible, config: SceneConfig) -> list[str]:
    """A caption a scene, from counts of visible pixels."""
    slots, ground = seen.slots, seen.ground
    area = config.width * config.height
    things = torch.zeros_like(slots).index_add_(1, scenes.bodies.thing, slots)
    facade_pixels = torch.zeros(len(slots), scenes.buildings.material.shape[1], dtype=slots.dtype, device=slots.device)
    spans = (scenes.slots["facades"], scenes.slots["skewed"])
    walls = torch.cat([torch.arange(span.start, span.stop, device=slots.device) for span in spans])
    facade_pixels.index_add_(1, scenes.bodies.facade[walls], slots[:, walls])
    by_material = torch.zeros(len(slots), len(MATERIALS), dtype=slots.dtype, device=slots.device)
    by_material.scatter_add_(1, scenes.buildings.material, facade_pixels)
    tall = (facade_pixels * (scenes.buildings.floors >= 6)).sum(1) * 2 > facade_pixels.sum(1)
    low = (facade_pixels * (scenes.buildings.floors <= 2)).sum(1) * 3 > facade_pixels.sum(1) * 2
    shops = (facade_pixels * scenes.buildings.shops).sum(1) * 4 > facade_pixels.sum(1)
    columns = [by_material, tall[:, None], low[:, None], shops[:, None], ground, _counts(scenes, things, area)]
    columns += [scenes.plan.style[:, None], scenes.light.weather[:, None], slots[:, SLOTS - 1 :]]
    table = torch.cat([column.to(torch.int64) for column in columns], dim=1).tolist()
    return [_caption(row, area) for row in table]


def _counts(scenes: Scenes, things: Tensor, area: int) -> Tensor:
    """(B, 5) how many cars, trees, lamps, signs and awnings show at least a speck."""
    groups = (("cars", 0.0025), ("trunks", 0.006), ("lamps", 0.0012), ("signs", 0.0015), ("details1", 0.003))
    return torch.stack([(things[:, scenes.slots[name]] >= share * area).sum(1) for name, share in groups], dim=1)


def _caption(row: list[int], area: int) -> str:
    materials, rest = row[: len(MATERIALS)], row[len(MATERIALS) :]
    tall, low, shops, _, zebra, side, cars, trees, lamps, signs, awnings, style, weather, sky = rest
    parts = [f"{_SETTING[STYLES[style]]} with {_facades(materials, tall, low, area)}"]
    if shops and sum(materials) >= 0.04 * area:
        parts.append("shops with awnings" if awnings else "shops")
    if cars:
        parts.append(_some(cars, "car"))
    if trees:
        parts.append(_some(trees, "tree"))
    if zebra >= 0.002 * area:
        parts.append("a zebra crossing")
    if side >= 0.006 * area:
        parts.append("a side street")
    if lamps:
        parts.append("a street lamp" if lamps == 1 else "street lamps")
    if signs:
        parts.append("a road sign" if signs == 1 else "road signs")
    name = WEATHERS[weather]
    parts.append("under a clear sky" if name == "sunny" and sky > 0.15 * area else _WEATHER[name])
    return ", ".join(parts)


def _facades(pixels: list[int], tall: int, low: int, area: int) -> str:
    total = sum(pixels)
    if total < 0.02 * area:
        return "open ground"
    ranked = sorted(range(len(pixels)), key=lambda i: -pixels[i])
    named = [MATERIALS[i] for i in ranked[:2] if pixels[i] >= 0.25 * total]
    height = "tall " if tall else "low " if low else ""
    noun = "houses" if low else "facades"
    return f"{height}{' and '.join(named) or MATERIALS[ranked[0]]} {noun}"


def _some(count: int, noun: str) -> str:
    if count < len(_NUMBERS):
        return f"{_NUMBERS[count]} {noun}" + ("s" if count > 1 else "")
    return f"several {noun}s"
