"""The clean latent x0 at a step of a diffusers scheduler, whatever its sign, time and scale conventions.

A sampler hands ``scheduler.step`` the model's answer and the noisy sample. For every kind of scheduler x0 is a linear
combination of the two:

- variance preserving (DDIM, DDPM, PNDM, LCM, TCD and the DPM-Solver, UniPC, DEIS family): x = a x0 + s n with a^2 + s^2 = 1;
  epsilon: x0 = (x - s eps) / a, v: x0 = a x - s v (Salimans & Ho 2022);
- variance exploding (Euler, Euler ancestral, Heun, LMS): x = x0 + sigma n, and the model is shown
  x / sqrt(1 + sigma^2); epsilon: x0 = x - sigma eps, v: x0 = x / (1 + sigma^2) - v sigma / sqrt(1 + sigma^2) (Karras et al.
  2022);
- flow matching: x = (1 - sigma) x0 + sigma n, u = n - x0: x0 = x - sigma u. Dynamic time shift needs no case of its own: it
  is in the scheduler's sigmas.
"""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from alberti.errors import ConfigError

_PRESERVING = (
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "TCDScheduler",
)
_EXPLODING = (
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
)
_SOLVERS = (
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)
_FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
KNOWN_SCHEDULERS = tuple(sorted((*_PRESERVING, *_EXPLODING, *_SOLVERS, *_FLOW)))


@dataclass(frozen=True)
class NoiseStep:
    """One step of a sampler: x0 = from_sample * sample + from_output * output.

    alpha_bar: share of signal power, see ``diffusion/schedules.py``. input_scale: what the network is shown is the sample times
    this. next_scale: standard deviation of the next sample, relative to one that preserves the variance.
    """

    from_sample: float
    from_output: float
    alpha_bar: float
    input_scale: float = 1.0
    next_scale: float = 1.0

    def x0(self, sample: Tensor, output: Tensor) -> Tensor:
        """The clean latent, of the sample's shape and in float32."""
        return self.from_sample * sample.float() + self.from_output * output.float()


def check_scheduler(scheduler: Any) -> None:
    """ConfigError unless x0 can be had at this scheduler's steps."""
    name = type(scheduler).__name__
    if name not in KNOWN_SCHEDULERS:
        raise ConfigError(
            f"scheduler: the clean latent at a step of {name} is not known here, so nothing can be guided; set "
            f"pipe.scheduler to one of {', '.join(KNOWN_SCHEDULERS)}"
        )


def step_index(scheduler: Any, time: float) -> int:
    """Which of ``scheduler.timesteps`` the step at ``time`` is: the scheduler's own count, or the nearest time."""
    counted = getattr(scheduler, "step_index", None)
    if counted is not None:
        return int(counted)
    return int((scheduler.timesteps.float().cpu() - float(time)).abs().argmin())


def noise_step(scheduler: Any, index: int) -> NoiseStep:
    """The step at ``scheduler.timesteps[index]``.

    Raises:
        ConfigError: a scheduler whose x0 cannot be had, or a prediction type that is unknown.
    """
    check_scheduler(scheduler)
    name = type(scheduler).__name__
    if name in _PRESERVING:
        alpha_bar = float(scheduler.alphas_cumprod[int(scheduler.timesteps[index])])
        return _preserving(math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar), _prediction(scheduler))
    sigma, following = float(scheduler.sigmas[index]), float(scheduler.sigmas[index + 1])
    if name in _FLOW:
        return _flow(sigma)
    if name in _EXPLODING:
        return _exploding(sigma, following, _prediction(scheduler))
    signal, noise = (float(value) for value in scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[index]))
    prediction = _prediction(scheduler)
    return _flow(noise) if prediction == "flow_prediction" else _preserving(signal, noise, prediction)


def drops_the_sample(scheduler: Any, index: int) -> bool:
    """Whether this step's result only feeds the second half of a step of order two, which starts from the old sample."""
    half_done = getattr(scheduler, "state_in_first_order", None)
    return bool(half_done) and getattr(scheduler, "order", 1) == 2 and index + 1 < len(scheduler.timesteps)


def _prediction(scheduler: Any) -> str:
    return str(scheduler.config.get("prediction_type", "epsilon"))


def _preserving(signal: float, noise: float, prediction: str) -> NoiseStep:
    factors = {
        "epsilon": (1 / max(signal, 1e-6), -noise / max(signal, 1e-6)),
        "v_prediction": (signal, -noise),
        "sample": (0.0, 1.0),
    }
    return NoiseStep(*_of(factors, prediction), signal**2)


def _exploding(sigma: float, following: float, prediction: str) -> NoiseStep:
    power = 1 + sigma**2
    factors = {
        "epsilon": (1.0, -sigma),
        "v_prediction": (1 / power, -sigma / math.sqrt(power)),
        "sample": (0.0, 1.0),
    }
    return NoiseStep(*_of(factors, prediction), 1 / power, 1 / math.sqrt(power), math.sqrt(1 + following**2))


def _flow(sigma: float) -> NoiseStep:
    return NoiseStep(1.0, -sigma, (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2))


def _of(factors: dict[str, tuple[float, float]], prediction: str) -> tuple[float, float]:
    if prediction not in factors:
        raise ConfigError(f"scheduler: prediction_type {prediction!r}: expected one of {', '.join(factors)}")
    return factors[prediction]
