"""Settings of depth training. Light on purpose: neither torch nor the networks are imported here."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from alberti.errors import ConfigError
from alberti.training.settings import Optimisation

_SMALLEST_CROP = 32
CACHE_MB = 512.0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Augmentation(_Frozen):
    """How a picture becomes a training sample. Depth, which is along the optical axis, changes under none of these."""

    crop: tuple[int, int]
    """Height and width in pixels that the network sees, at a random place."""
    height: int | None = Field(default=None, gt=0)
    """First resize pictures to this height in pixels, keeping their aspect; null: as they are. Pictures smaller than the crop
    are enlarged to it.
    """
    kb_crop: bool = False
    """Cut KITTI's benchmark crop (352x1216, at the bottom, centred) first."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of mirroring."""
    jitter: float = Field(default=0.5, ge=0, le=1)
    """Probability of a change of gamma, brightness and colour, each within 10 % (BTS's recipe for KITTI)."""
    rotate_degrees: float = Field(default=0.0, ge=0)
    """Largest rotation about the principal point, which keeps z as it is."""

    @model_validator(mode="after")
    def _large_enough(self) -> "Augmentation":
        if min(self.crop) < _SMALLEST_CROP:
            raise ValueError(
                f"crop: expected at least {_SMALLEST_CROP}x{_SMALLEST_CROP} (height x width), got {self.crop[0]}x{self.crop[1]}"
            )
        return self


class DepthTrainConfig(_Frozen):
    """How to train a depth model. The loss follows from the model's kind: SILog for metric ones, the
    scale-and-shift-invariant trimmed loss plus ``gradient_weight`` x the gradient loss for relative ones.
    """

    training: Optimisation
    """Steps, batch, learning rate, precision and checkpoints."""
    augmentation: Augmentation
    """How a picture becomes a training sample."""
    min_depth: float = Field(default=1e-3, ge=0)
    """Metres. Ground truth up to here is not trained on. PixelFormer's published recipe has 1 m."""
    max_depth: float = 80.0
    """Metres. Ground truth outside (min_depth, max_depth] is not trained on."""
    gradient_weight: float = Field(default=0.5, ge=0)
    """Weight of the gradient loss of relative models; metric ones have none."""
    trim: float = Field(default=0.2, ge=0, lt=1)
    """Share of a picture's pixels, those of the largest error, that the loss of relative models leaves out."""
    alignment: Literal["median", "least_squares"] = "median"
    """How scale and shift are found in the loss of relative models."""
    mix_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the second data set among the samples."""
    validate_every: int = Field(default=0, ge=0)
    """Steps between validations; 0: only at the end. The weights with the least error are kept."""
    validation_images: int = Field(default=64, gt=0)
    """Pictures that a validation looks at, evenly spread over the data set."""
    cache_mb: float = Field(default=CACHE_MB, ge=0)
    """MiB for decoded pictures of each data set. One that fits, and is seen whole, is kept on the device instead."""
    workers: int = Field(default=0, ge=0)
    """Threads that read ahead where pictures are not kept on the device; 0: none."""

    @model_validator(mode="after")
    def _range(self) -> "DepthTrainConfig":
        if self.min_depth >= self.max_depth:
            raise ValueError(f"min_depth: must be below max_depth = {self.max_depth:g} (metres), got {self.min_depth:g}")
        return self

    def key(self) -> dict[str, Any]:
        """What of the settings changes the result, JSON-able; how pictures are kept and read ahead does not."""
        return self.model_dump(mode="json", exclude={"training", "cache_mb", "workers"}) | {"training": self.training.key()}


def published_recipe(name: str, num_samples: int, *, epochs: int = 20, batch_size: int = 8, **changes: Any) -> DepthTrainConfig:
    """The published training of "dpt" (as the paper fine-tunes it) or "pixelformer" (on KITTI).

    ``changes`` override fields of ``training``. DPT: 384 crops, lr 1e-4 -> 1e-6, 4 warm-up epochs (the number of epochs is not
    published). PixelFormer: the benchmark crop, 352x1120, 1 degree of rotation, lr 4e-5 -> 4e-6, depth above 1 m only.
    """
    per_epoch = max(1, num_samples // batch_size)
    common = {"steps": epochs * per_epoch, "batch_size": batch_size}
    if name == "dpt":
        rate = {"lr": 1e-4, "lr_final": 1e-6, "lr_schedule": "cosine", "warmup_steps": min(4, epochs // 2) * per_epoch}
        training = Optimisation.model_validate(common | rate | changes)
        return DepthTrainConfig(training=training, augmentation=Augmentation(crop=(384, 384)))
    if name == "pixelformer":
        rate = {"lr": 4e-5, "lr_final": 4e-6, "lr_schedule": "polynomial"}
        training = Optimisation.model_validate(common | rate | changes)
        augmentation = Augmentation(crop=(352, 1120), kb_crop=True, rotate_degrees=1.0)
        return DepthTrainConfig(training=training, augmentation=augmentation, min_depth=1.0)
    raise ConfigError(f"recipe: expected 'dpt' or 'pixelformer', got {name!r}")
