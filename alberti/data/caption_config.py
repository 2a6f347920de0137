"""Where captions of pictures that have none come from; :mod:`alberti.data.captions` makes them."""

from pydantic import BaseModel, ConfigDict, Field


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
