"""The denoising objective: predictions to clean latents, conditioning on depth, weights over the noise level."""

import torch
import torch.nn.functional as F
from torch import Tensor

from alberti.diffusion.schedules import PREDICTION_TYPES, NoiseSchedule, flow_sigma
from alberti.errors import ConfigError

CONSTRAINT_SCHEDULES = ("all", "alpha_bar", "t_max")
NOISE_BINS = 4


def predict_x0(model_output: Tensor, x_t: Tensor, alpha_bar_t: Tensor, prediction_type: str) -> Tensor:
    """The clean latent that a model's answer at one noise level implies.

    - "epsilon": x0 = (x_t - sqrt(1 - a) eps) / sqrt(a)
    - "v_prediction": x0 = sqrt(a) x_t - sqrt(1 - a) v (Salimans & Ho 2022, eq. D)
    - "flow": x0 = x_t - sigma u, with x_t = (1 - sigma) x0 + sigma n, u = n - x0 and sigma of the same
      signal-to-noise ratio as alpha_bar_t

    Args:
        model_output, x_t: (B, C, h, w).
        alpha_bar_t: (B,) or a scalar tensor, in (0, 1].
    """
    level = alpha_bar_t.view(-1, 1, 1, 1)
    if prediction_type == "epsilon":
        return (x_t - (1 - level).sqrt() * model_output) / level.sqrt().clamp(min=1e-6)
    if prediction_type == "v_prediction":
        return level.sqrt() * x_t - (1 - level).sqrt() * model_output
    if prediction_type == "flow":
        return x_t - flow_sigma(level) * model_output
    raise ConfigError(f"prediction_type: expected one of {', '.join(PREDICTION_TYPES)}, got {prediction_type!r}")


def normalise_depth(depth: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Depth in metres to what the model is conditioned on: inverse depth in [-1, 1].

    1/d where d > 0 (0 elsewhere: no measurement counts as far), bilinear to ``size``, min-max per image. A flat map
    becomes zeros.

    Args:
        depth: (B, H, W) metres.
        size: (h, w) of the latent grid; None keeps (H, W).

    Returns:
        (B, 1, h, w) float32 in [-1, 1].
    """
    if depth.ndim != 3:
        raise ValueError(f"depth: expected (B, H, W), got {tuple(depth.shape)}")
    depth = depth.float()
    inverse = torch.where(depth > 0, 1 / depth.clamp(min=1e-6), torch.zeros_like(depth))[:, None]
    if size is not None and tuple(size) != tuple(inverse.shape[-2:]):
        inverse = F.interpolate(inverse, size=size, mode="bilinear", align_corners=False)
    low = inverse.amin(dim=(1, 2, 3), keepdim=True)
    span = inverse.amax(dim=(1, 2, 3), keepdim=True) - low
    flat = span <= 1e-6 * (low + span).clamp(min=1e-12)
    scaled = 2 * (inverse - low) / torch.where(flat, torch.ones_like(span), span) - 1
    return torch.where(flat, torch.zeros_like(scaled), scaled)


def min_snr_weight(alpha_bar: Tensor, prediction_type: str, gamma: float) -> Tensor:
    """Min-SNR-gamma (Hang et al. 2023, arXiv 2303.09556): weights that make the loss on x0 min(SNR, gamma), (B,)."""
    snr = alpha_bar / (1 - alpha_bar).clamp(min=1e-8)
    capped = snr.clamp(max=gamma)
    if prediction_type == "epsilon":
        return capped / snr.clamp(min=1e-8)
    if prediction_type == "v_prediction":
        return capped / (snr + 1)
    return capped * flow_sigma(alpha_bar) ** 2


def denoising_loss(
    prediction: Tensor, target: Tensor, alpha_bar: Tensor, schedule: NoiseSchedule, min_snr_gamma: float | None = None
) -> Tensor:
    """Mean squared error per sample (B,), in float32, weighted by min-SNR where gamma is given."""
    loss = (prediction.float() - target.float()).square().mean(dim=(1, 2, 3))
    if min_snr_gamma is None:
        return loss
    return loss * min_snr_weight(alpha_bar, schedule.prediction_type, min_snr_gamma)


def constraint_weight(schedule: str, alpha_bar: Tensor, timesteps: Tensor, *, t_min: int = 0, t_max: int = 1000) -> Tensor:
    """Factor of the constraint at each sample's noise level, (B,).

    "all": 1 at every timestep, as published. "alpha_bar": the share of signal. "t_max": 1 where t_min <= t <= t_max.
    """
    if schedule == "all":
        return torch.ones_like(alpha_bar)
    if schedule == "alpha_bar":
        return alpha_bar
    if schedule == "t_max":
        return ((timesteps >= t_min) & (timesteps <= t_max)).to(alpha_bar.dtype)
    raise ConfigError(f"schedule: expected one of {', '.join(CONSTRAINT_SCHEDULES)}, got {schedule!r}")


def by_noise_level(name: str, values: Tensor, timesteps: Tensor, num_steps: int) -> dict[str, Tensor]:
    """``values`` (B,) split into ``NOISE_BINS`` equal ranges of t; NaN where a sample is in another range."""
    bins = (timesteps * NOISE_BINS // num_steps).clamp(max=NOISE_BINS - 1)
    nan = torch.full_like(values, torch.nan)
    return {f"{name}_t{index}": torch.where(bins == index, values, nan) for index in range(NOISE_BINS)}
