"""Pictures of the model's own making, with gradients, so that a constraint can act on what is really sampled."""

from typing import Any

import torch
from torch import Tensor, nn

from alberti.diffusion.objective import predict_x0
from alberti.diffusion.schedules import NoiseSchedule


class Rollout:
    """DDIM (Song et al. 2021) from pure noise; gradients flow through the last steps only.

    A one-step estimate from a noised true image shows the model a picture that is straight already. Its own pictures are
    where lines go wrong, and there a constraint has something to mend. Gradients through the end of sampling are DRaFT-K
    (Clark et al. 2023, arXiv 2309.17400), here with a constraint in place of a reward.

    Args:
        steps: sampling steps, spaced as at generation ("trailing": the first is the noisiest).
        gradient_steps: how many of the last ones keep their graph.
    """

    def __init__(self, schedule: NoiseSchedule, steps: int, gradient_steps: int):
        self.schedule, self.gradient_steps = schedule, gradient_steps
        count = schedule.num_steps
        self.times = [round(count - index * count / steps) - 1 for index in range(steps)]

    def __call__(self, model: nn.Module, noise: Tensor, text: Tensor, condition: Tensor) -> Tensor:
        """Clean latents (B, C, h, w) from ``noise`` of that shape, for ``text`` (B, L, D) and ``condition`` (B, 1, h, w)."""
        latents = noise
        first_kept = len(self.times) - self.gradient_steps
        for index, time in enumerate(self.times):
            following = self.times[index + 1] if index + 1 < len(self.times) else None
            with torch.set_grad_enabled(index >= first_kept):
                latents = self._step(model, latents, time, following, text, condition)
        return latents

    def _step(
        self, model: nn.Module, latents: Tensor, time: int, following: int | None, text: Tensor, condition: Tensor
    ) -> Tensor:
        t = torch.full((len(latents),), time, device=latents.device)
        level = self.schedule.alpha_bar(t)
        prediction = model(latents, self.schedule.model_timesteps(t), text, condition).float()
        x0 = predict_x0(prediction, latents, level, self.schedule.prediction_type)
        if following is None:
            return x0
        # the noise that x0 leaves in the latents, put back at the next level
        zero: Any = torch.zeros_like(x0)
        signal = self.schedule.add_noise(x0, zero, level)
        scale = self.schedule.add_noise(zero, torch.ones_like(x0), level)
        noise = (latents - signal) / scale
        return self.schedule.add_noise(x0, noise, self.schedule.alpha_bar(torch.full_like(t, following)))
