"""x0 at a step: the schedulers' own noise, taken back."""

import diffusers
import pytest
import torch

from alberti.errors import ConfigError
from alberti.families.steps import KNOWN_SCHEDULERS, drops_the_sample, noise_step, step_index

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def _answer(prediction: str, x0: torch.Tensor, noise: torch.Tensor, signal: float, level: float) -> torch.Tensor:
    return {"epsilon": noise, "v_prediction": signal * noise - level * x0, "sample": x0}[prediction]


def _made(name: str, prediction: str):
    kind = getattr(diffusers, name)
    scheduler = kind() if name.startswith("FlowMatch") else kind(**BETAS, prediction_type=prediction)
    if name == "PNDMScheduler":
        scheduler = kind(**BETAS, prediction_type=prediction, skip_prk_steps=True)
    scheduler.set_timesteps(8)
    return scheduler


PREDICTIONS = [
    (name, prediction)
    for name in KNOWN_SCHEDULERS
    for prediction in (("flow",) if name.startswith("FlowMatch") else ("epsilon", "v_prediction", "sample"))
    if prediction != "sample" or name not in ("PNDMScheduler", "LMSDiscreteScheduler")  # which do not know it
]


@pytest.mark.parametrize(("name", "prediction"), PREDICTIONS)
def test_x0_is_what_the_schedulers_own_noise_was_added_to(name, prediction):
    x0, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    for index in (1, 4, 6):
        scheduler = _made(name, prediction)
        time = scheduler.timesteps[index : index + 1].expand(2)
        step = noise_step(scheduler, index)
        assert step_index(scheduler, float(time[0])) in (index - 1, index)  # Heun and PNDM list times twice
        if name.startswith("FlowMatch"):
            sigma = float(time[0]) / 1000
            sample, output = (1 - sigma) * x0 + sigma * noise, noise - x0
        else:
            sample = scheduler.add_noise(x0, noise, time)
            signal = step.alpha_bar**0.5
            output = _answer(prediction, x0, noise, signal, (1 - step.alpha_bar) ** 0.5)
        torch.testing.assert_close(step.x0(sample, output), x0, rtol=0, atol=1e-4)
        if hasattr(scheduler, "scale_model_input"):
            shown = scheduler.scale_model_input(sample, scheduler.timesteps[index])
            torch.testing.assert_close(step.input_scale * sample, shown)


def test_dynamic_time_shift_is_in_the_sigmas():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(4, mu=1.0)
    plain = diffusers.FlowMatchEulerDiscreteScheduler()
    plain.set_timesteps(4)
    shifted, unshifted = (noise_step(each, 2) for each in (scheduler, plain))
    assert shifted.from_output == -float(scheduler.sigmas[2]) != unshifted.from_output


def test_the_first_half_of_a_step_of_order_two_is_known():
    scheduler = _made("HeunDiscreteScheduler", "epsilon")
    sample = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = []
    for index, time in enumerate(scheduler.timesteps):
        seen.append(drops_the_sample(scheduler, index))
        sample = scheduler.step(torch.zeros_like(sample), time, sample).prev_sample
    assert seen == [True, False] * 7 + [False]


def test_a_scheduler_whose_x0_is_unknown_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"KDPM2DiscreteScheduler.*DDIMScheduler"):
        noise_step(_made("KDPM2DiscreteScheduler", "epsilon"), 0)
    odd = _made("DDIMScheduler", "epsilon")
    odd.register_to_config(prediction_type="score")
    with pytest.raises(ConfigError, match="prediction_type 'score'"):
        noise_step(odd, 0)
