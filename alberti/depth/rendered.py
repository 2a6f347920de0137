"""Depth models trained on rendered streets that never touch a disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alberti.depth.appearance import draw_appearance
from alberti.depth.augmentation import Change, colour_tables
from alberti.depth.config import DepthTrainConfig
from alberti.depth.models import DepthModel
from alberti.depth.train import DepthLoss, DepthTrainResult
from alberti.diffusion.randomness import chance
from alberti.diffusion.sources import SceneSource
from alberti.errors import ConfigError
from alberti.seeding import numpy_generator
from alberti.training.loop import discard_checkpoints, train_loop
from alberti.training.schedule import Batch
from alberti.training.step_graph import to_device
from alberti.weights import weights_hash

_FLIP = 0.5
OnStep = Callable[[int, nn.Module], None]


class RenderedBatches:
    """Batches of streets, mirrored at random, with changes of appearance of ``strength``; same inputs as ``data.Batches``."""

    def __init__(self, source: SceneSource, seed: int, strength: float):
        self.source, self.seed, self.strength = source, seed, strength

    def load(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """ "images" (b, 3, h, w) uint8, "depth" (b, h, w) metres, "colours" that change nothing, "appearance" (b, COUNT)."""
        data = self.source.batch(batch.indices, batch.visits, device)
        keys = list(zip(data["ids"], batch.visits, strict=True))
        flip = to_device(chance(self.seed, "flip", data["ids"], batch.visits, _FLIP), device)
        changes = [draw_appearance(self.strength, numpy_generator(self.seed, "appearance", *key)) for key in keys]
        image, depth = data["image"], data["depth"]
        return {
            "images": torch.where(flip[:, None, None, None], image.flip(-1), image).mul(255).round().to(torch.uint8),
            "depth": torch.where(flip[:, None, None], depth.flip(-1), depth),
            "colours": colour_tables([Change(0.0, 0, 0, False, 1.0, (1.0, 1.0, 1.0))] * len(keys)),
            "appearance": torch.from_numpy(np.stack(changes)),
        }


def train_on_streets(
    model: DepthModel,
    source: SceneSource,
    config: DepthTrainConfig,
    *,
    strength: float = 1.0,
    checkpoints: Path | None = None,
    device: str | torch.device | None = None,
    on_step: OnStep | None = None,
    description: str = "depth",
) -> DepthTrainResult:
    """Train ``model`` on the streets of ``source``; interrupted calls resume from ``checkpoints``.

    Of ``config`` the optimisation, the range of depth and the loss's settings count: pictures are whole, at the source's size.

    Args:
        strength: of the changes of appearance, see :mod:`alberti.depth.appearance`.
        on_step: called with the number of finished steps and the model.

    Raises:
        ConfigError: a size that the networks would pad.
    """
    if source.height % 32 or source.width % 32:
        raise ConfigError(f"streets: expected sides divisible by 32, got {source.width} x {source.height}")
    key: dict[str, Any] = {
        "streets": source.fingerprint,
        "strength": strength,
        "model": vars(model.info),
        "weights": weights_hash(model),
    }
    batches = RenderedBatches(source, config.training.seed, strength)
    result = train_loop(
        model, DepthLoss(model.kind, batches, config), len(source), config.training,
        checkpoints=checkpoints, run_key=key, description=description, device=device, on_step=on_step,
    )  # fmt: skip

    def discard() -> None:
        if checkpoints is not None:
            discard_checkpoints(checkpoints, key, config.training)

    trained = result.load_ema().eval()
    assert isinstance(trained, DepthModel)
    return DepthTrainResult(trained, result.ema_state, result.history, discard=discard)
