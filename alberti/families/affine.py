"""How a VAE's latents and those that a sampler holds are related, as the VAE's config says."""

from typing import Any

import torch


def latent_affine(vae: Any) -> tuple[Any, Any]:
    """(scale, shift) from the sampler's latents to the decoder's: z = latents * scale + shift.

    Numbers, or tensors (1, C, 1, 1) where the VAE's config has statistics per channel; a shift of None adds nothing.
    """
    config = vae.config
    factor = float(config.get("scaling_factor") or 1.0)
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and deviation is not None:
        return torch.tensor(deviation).view(1, -1, 1, 1) / factor, torch.tensor(mean).view(1, -1, 1, 1)
    return 1 / factor, config.get("shift_factor") or None
