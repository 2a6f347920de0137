"""Pictures of the model's own making, with gradients, so that a constraint can act on what is really sampled."""

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
        times = torch.tensor(self.times)
        # numbers, not tensors: a captured step may copy nothing from the host
        self._levels = [*schedule.alpha_bar(times).tolist(), 1.0]
        self._model_times = schedule.model_timesteps(times).tolist()

    def __call__(self, model: nn.Module, noise: Tensor, text: Tensor, condition: Tensor) -> Tensor:
        """Clean latents (B, C, h, w) from ``noise`` of that shape, for ``text`` (B, L, D) and ``condition`` (B, 1, h, w)."""
        latents = noise
        first_kept = len(self.times) - self.gradient_steps
        for index in range(len(self.times)):
            with torch.set_grad_enabled(index >= first_kept):
                latents = self._step(model, latents, index, text, condition)
        return latents

    def _step(self, model: nn.Module, latents: Tensor, index: int, text: Tensor, condition: Tensor) -> Tensor:
        times, level, following = (
            torch.full((len(latents),), values[index], device=latents.device)
            for values in (self._model_times, self._levels, self._levels[1:])
        )
        x0 = predict_x0(model(latents, times, text, condition).float(), latents, level, self.schedule.prediction_type)
        if index == len(self.times) - 1:
            return x0
        # the noise that x0 leaves in the latents, put back at the next level
        zero = torch.zeros_like(x0)
        scale = self.schedule.add_noise(zero, torch.ones_like(x0), level)
        noise = (latents - self.schedule.add_noise(x0, zero, level)) / scale
        return self.schedule.add_noise(x0, noise, following)
