"""Which rows of a batch of vanishing points are points: pictures have different numbers of them, and rows of zeros fill up."""

from typing import Any, TypeVar

Points = TypeVar("Points", bound=Any)


def present(points: Points) -> Points:
    """Which of the homogeneous points (..., 3), an array or a tensor, are there, and not rows of zeros: (...) bool."""
    found: Points = (points != 0).any(-1)
    return found
