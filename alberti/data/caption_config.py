"""Where captions of pictures that have none come from; :mod:`alberti.data.captions` makes them."""

from pydantic import BaseModel, ConfigDict, Field


class CaptionConfig(BaseModel):
    """Where captions come from: the data set, else BLIP where ``model`` is named, else ``template``."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    keep: bool = True
    """Keep captions that the data set has; False: replace them too."""
    model: str | None = None
    """A BLIP captioning model of transformers: a local folder or a hub id."""
    revision: str | None = None
    """Of the hub id."""
    prompt: str | None = None
    """How every caption of BLIP begins, say "a photograph of"."""
    template: str | None = "a photograph of a city street"
    """The caption where nothing else gives one; null: that is an error."""
    batch_size: int = Field(default=16, gt=0)
    max_new_tokens: int = Field(default=30, gt=0)
