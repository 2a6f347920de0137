"""Depth that is said to be in metres and cannot be: the one place that knows how deep a scene is."""

import numpy as np

from alberti.errors import DataError

SHALLOW, DEEP = 0.1, 500.0
"""Metres. No street or room is shallower than a hand in the median, or half a kilometre deep."""


def other_unit(median: float) -> str | None:
    """What depths of this median look like if they are no scene in metres; None if they may be one."""
    if SHALLOW < median < DEEP:
        return None
    if median < DEEP:
        return "they are divided by too much"
    return f"they look like {'millimetres' if median > 12 * DEEP else 'centimetres or millimetres'}"


def refuse_too_deep(depth: np.ndarray, name: str) -> None:
    """DataError if a depth map (0 = no measurement) is no scene in metres, its largest value left out, which may be sky."""
    nearer = depth[(depth > 0) & (depth < depth.max())]
    if nearer.size and (median := float(np.median(nearer))) >= DEEP:
        raise DataError(
            f"{name}: its values are {median:.4g} in the median, which is no scene in metres: {other_unit(median)}. "
            "Divide them, so that they are metres"
        )
