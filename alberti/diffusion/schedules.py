"""Noise schedules: how a clean latent becomes a noisy one, for every scheduler family in one form.

Symbols: ``x0`` clean latent, ``n`` Gaussian noise, ``alpha_bar`` the share of signal power in [0, 1] (Ho et al. 2020).
Variance-preserving schedulers mix ``x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) n``. Flow matching mixes
``x_t = (1 - sigma) x0 + sigma n``; its ``alpha_bar`` is that of the variance-preserving mixture with the same
signal-to-noise ratio, so that a weight given over ``alpha_bar`` means the same for every model.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alberti.errors import CheckpointError

PREDICTION_TYPES = ("epsilon", "v_prediction", "flow")


def flow_sigma(alpha_bar: Tensor) -> Tensor:
    """The flow-matching sigma whose signal-to-noise ratio ((1 - sigma) / sigma)^2 is alpha_bar / (1 - alpha_bar)."""
    noise, signal = (1 - alpha_bar).sqrt(), alpha_bar.sqrt()
    return noise / (noise + signal)


@dataclass(frozen=True)
class NoiseSchedule:
    """The training side of a diffusers scheduler: ``alpha_bars`` (T,) float64 and what the model predicts."""

    alpha_bars: Tensor
    prediction_type: str

    @classmethod
    def from_scheduler(cls, scheduler: Any, tokens: int | None = None) -> "NoiseSchedule":
        """Read it off a diffusers scheduler's config.

        Args:
            tokens: of a picture (2 x 2 latents), which a dynamic time shift depends on; None: the least that it knows.

        Raises:
            CheckpointError: the prediction type or the betas are of a kind that is not known here.
        """
        config = scheduler.config
        steps = int(config.num_train_timesteps)
        if type(scheduler).__name__.startswith("FlowMatch"):
            linear = torch.arange(1, steps + 1, dtype=torch.float64) / steps
            shift = dynamic_shift(config, tokens) if config.get("use_dynamic_shifting") else config.shift
            sigma = shift * linear / (1 + (shift - 1) * linear)
            return cls((1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2), "flow")
        prediction_type = config.get("prediction_type", "epsilon")
        if prediction_type not in ("epsilon", "v_prediction") or not hasattr(scheduler, "alphas_cumprod"):
            raise CheckpointError(
                f"scheduler {type(scheduler).__name__} with prediction_type {prediction_type!r}: expected a DDPM-like "
                f"scheduler that predicts epsilon or v_prediction, or a flow-matching one"
            )
        return cls(scheduler.alphas_cumprod.double().cpu(), prediction_type)

    @property
    def num_steps(self) -> int:
        return len(self.alpha_bars)

    def alpha_bar(self, timesteps: Tensor) -> Tensor:
        """(B,) long timesteps -> (B,) float32."""
        return self.alpha_bars.to(timesteps.device)[timesteps].float()

    def add_noise(self, x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
        """x_t of (B, C, h, w) latents at (B,) noise levels."""
        level = _per_sample(alpha_bar)
        if self.prediction_type == "flow":
            sigma = flow_sigma(level)
            return (1 - sigma) * x0 + sigma * noise
        return level.sqrt() * x0 + (1 - level).sqrt() * noise

    def target(self, x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
        """What the model should answer: the noise, v (Salimans & Ho 2022) or the flow's velocity n - x0."""
        level = _per_sample(alpha_bar)
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "v_prediction":
            return level.sqrt() * noise - (1 - level).sqrt() * x0
        return noise - x0

    def model_timesteps(self, timesteps: Tensor) -> Tensor:
        """The time that the model is given: t itself, or sigma in the units of t for flow matching."""
        if self.prediction_type != "flow":
            return timesteps
        return flow_sigma(self.alpha_bar(timesteps)) * self.num_steps


def _per_sample(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def dynamic_shift(config: Any, tokens: int | None) -> float:
    """The shift of a flow's times for pictures of so many tokens: larger pictures need more noise (Esser et al. 2024).

    diffusers' pipelines interpolate mu linearly over the number of tokens; "exponential" means a shift of e^mu, "linear" of mu.
    """
    mu = dynamic_mu(config, tokens)
    return math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu


def dynamic_mu(config: Any, tokens: int | None) -> float:
    """mu of :func:`dynamic_shift`, as a scheduler's ``set_timesteps`` takes it."""
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return float(least + (most - least) * ((low if tokens is None else tokens) - low) / (high - low))
