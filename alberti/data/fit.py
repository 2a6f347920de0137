"""The size that a source's pictures are brought to, and by which rule; :mod:`alberti.data.crops` does it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Crop = tuple[int, int, int, int]


class Fit(BaseModel):
    """The size that a source's pictures are brought to, and the rule by which.

    Both rules scale a frame so that it just covers the size, and cut what stands over; no picture is stretched, and
    nothing is padded. ``centre_crop`` keeps the middle. ``crops_along`` takes as many crops as lie side by side without
    overlap along the longer direction, spread from edge to edge: three squares of a 1242 x 375 frame, one of 640 x 480.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(ge=8, le=8192)
    """Width of every picture, in pixels."""
    height: int = Field(ge=8, le=8192)
    """Height of every picture, in pixels."""
    rule: Literal["centre_crop", "crops_along"] = "centre_crop"
    """Which part of a frame is kept: its middle, or as many crops as lie side by side."""


def crop_boxes(size: tuple[int, int], fit: Fit) -> list[Crop]:
    """Boxes (x0, y0, width, height), in pixels of a frame of ``size`` (width, height), that are resized to the fit's size.

    Boxes have whole pixels, so their aspect is that of the fit to within half a pixel.
    """
    width, height = size
    box_width = min(width, max(1, round(height * fit.width / fit.height)))
    box_height = min(height, max(1, round(width * fit.height / fit.width)))
    count = max(width // box_width, height // box_height) if fit.rule == "crops_along" else 1
    xs, ys = _starts(width - box_width, count), _starts(height - box_height, count)
    return [(x0, y0, box_width, box_height) for x0, y0 in zip(xs, ys, strict=True)]


def _starts(slack: int, count: int) -> list[int]:
    return [slack // 2] if count == 1 else [index * slack // (count - 1) for index in range(count)]
