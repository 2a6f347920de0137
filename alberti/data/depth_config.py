"""Where depth of pictures that have none comes from; :mod:`alberti.depth.estimate` computes it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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
