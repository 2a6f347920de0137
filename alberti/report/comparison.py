"""What may be said of a difference, given its interval."""

from collections.abc import Mapping
from typing import Any, Literal

Effect = Literal["better", "worse", "up", "down", "unclear", "unknown"]
EFFECTS: dict[Effect, str] = {
    "better": "better, and the interval leaves out zero",
    "worse": "worse, and the interval leaves out zero",
    "up": "more, and the interval leaves out zero; neither direction is better by itself",
    "down": "less, and the interval leaves out zero; neither direction is better by itself",
    "unclear": "no clear change: the interval contains zero",
    "unknown": "no interval, so no verdict",
}


EFFECT_WORDS: dict[Effect, str] = {
    "better": "better",
    "worse": "worse",
    "up": "more",
    "down": "less",
    "unclear": "unclear",
    "unknown": "no interval",
}
"""What stands beside a change."""


def effect(change: Mapping[str, Any], higher_is_better: bool | None) -> Effect:
    """What a difference with ``mean low high`` says; "unknown" where it has no interval."""
    low, high = change["low"], change["high"]
    if low is None or high is None:
        return "unknown"
    if low <= 0 <= high:
        return "unclear"
    if higher_is_better is None:
        return "up" if low > 0 else "down"
    return "better" if (low > 0) == higher_is_better else "worse"
