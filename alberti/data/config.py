"""Settings of a source of data: the size of its pictures, and where captions and depth come from that it lacks.

:mod:`alberti.data.crops`, :mod:`alberti.data.captions` and :mod:`alberti.depth.estimate` do it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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


class CaptionConfig(BaseModel):
    """Where captions come from: the data set, else BLIP where ``model`` is named, else ``template``."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    keep: bool = True
    """true: keep captions that the data set has; false: replace them."""
    model: str | None = None
    """A BLIP captioning model of transformers: a local folder or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of `model` where that is a hub id; null: the hub's default branch."""
    prompt: str | None = None
    """How every caption of BLIP begins, say "a photograph of"."""
    template: str | None = "a photograph of a city street"
    """The caption where nothing else gives one; null: that is an error."""
    batch_size: int = Field(default=16, gt=0)
    """Pictures per batch of BLIP. Fewer need less memory."""
    max_new_tokens: int = Field(default=30, gt=0)
    """Longest caption of BLIP, in tokens."""


class DepthEstimateConfig(BaseModel):
    """Depth of photographs, by a model that looks at them: enough to condition pictures on, no measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str
    """A depth model's folder (such as `pretrained/pixelformer`, or transformers' own), a published PixelFormer checkpoint, or
    the hub id of a depth-estimation model of transformers.
    """
    revision: str | None = None
    """Of the hub id."""
    kind: Literal["z", "inverse"] | None = None
    """`z`: the model gives metres; `inverse`: inverse depth up to a factor and an offset. null: as the model's files say; where
    they say nothing, `inverse`.
    """
    batch_size: int = Field(default=8, gt=0)
    """Pictures that go through the model at once."""
