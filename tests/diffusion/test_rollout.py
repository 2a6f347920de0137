"""Rollouts: the sampler's own pictures, gradients through its last steps, and training on them."""

import itertools

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusion.toy import finetune_config
from pydantic import ValidationError
from torch.utils._python_dispatch import TorchDispatchMode

from alberti.diffusion.base import DepthDiffusion
from alberti.diffusion.config import SampleConfig
from alberti.diffusion.constrained import ConstraintTerm
from alberti.diffusion.latents import training_cache
from alberti.diffusion.objective import predict_x0
from alberti.diffusion.rollout import Rollout
from alberti.diffusion.sample import solver_of
from alberti.diffusion.sources import DatasetSource
from alberti.diffusion.train import Objective, finetune
from alberti.training import Batch

CPU = torch.device("cpu")


def _inputs(base):
    generator = torch.Generator().manual_seed(0)
    channels, side = base.unet.config.out_channels, 32 // base.factor
    noise = torch.randn(2, channels, side, side, generator=generator)
    condition = torch.rand(2, 1, side, side, generator=generator) * 2 - 1
    return noise, base.encode_text(["a street", "a wide street"]).detach(), condition


@pytest.mark.parametrize("steps", [1, 4, 8])  # divisors of 1000: elsewhere diffusers steps one timestep beside its own grid
def test_a_rollout_is_what_ddim_samples(base, steps):
    noise, text, condition = _inputs(base)
    rollout = Rollout(base.schedule, steps, 1)
    assert rollout.times == solver_of(base, SampleConfig(steps=steps, solver="ddim")).timesteps.tolist()
    # Down to x0 itself, where Stable Diffusion's setting stops at the noise of the first timestep.
    denoiser, solver = base.denoiser(), DDIMScheduler.from_config(base.scheduler.config, set_alpha_to_one=True)
    solver.set_timesteps(steps)
    latents = noise
    with torch.no_grad():
        for time in solver.timesteps:
            prediction = denoiser(latents, torch.full((2,), int(time)), text, condition)
            latents = solver.step(prediction, time, latents, return_dict=False)[0]
        found = rollout(denoiser, noise, text, condition)
    torch.testing.assert_close(found, latents, rtol=1e-3, atol=1e-4)


def test_a_flow_matching_rollout_is_euler(base):
    base.scheduler = FlowMatchEulerDiscreteScheduler()
    noise, text, condition = _inputs(base)
    schedule, denoiser = base.schedule, base.denoiser()
    rollout = Rollout(schedule, 4, 1)
    latents = noise
    with torch.no_grad():
        sigmas = [(time + 1) / schedule.num_steps for time in rollout.times] + [0.0]
        for sigma, following in itertools.pairwise(sigmas):
            velocity = denoiser(latents, torch.full((2,), sigma * schedule.num_steps), text, condition)
            latents = latents + (following - sigma) * velocity
        found = rollout(denoiser, noise, text, condition)
    torch.testing.assert_close(found, latents, rtol=1e-3, atol=1e-4)


def test_gradients_flow_through_the_last_steps_only(base):
    noise, text, condition = _inputs(base)
    denoiser, schedule = base.denoiser(), base.schedule
    weight = next(value for value in base.unet.parameters() if value.ndim == 4)
    rollout = Rollout(schedule, 3, 1)
    (found,) = torch.autograd.grad(rollout(denoiser, noise, text, condition).square().sum(), weight)
    with torch.no_grad():
        before = noise
        for index in range(2):
            before = rollout._step(denoiser, before, index, text, condition)
    t = torch.full((2,), rollout.times[-1])
    last = predict_x0(denoiser(before, t, text, condition), before, schedule.alpha_bar(t), schedule.prediction_type)
    (expected,) = torch.autograd.grad(last.square().sum(), weight)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    (further,) = torch.autograd.grad(Rollout(schedule, 3, 2)(denoiser, noise, text, condition).square().sum(), weight)
    assert (further - found).norm() > 0.01 * found.norm()


def _config(**changes):
    changes = {"rollout_gradient_steps": 1} | changes if changes.get("rollout_steps") == 0 else changes
    settings = {"steps": 12, "batch_size": 6, "lr": 1e-3, "log_every": 1, "constraint": "orientation", "weight": 1.0}
    return finetune_config(**settings | {"rollout_steps": 3, "rollout_gradient_steps": 2} | changes)


def test_training_on_rollouts_straightens_what_is_sampled(trained, toy, points):
    def run(weight):
        config = _config(weight=weight, steps=40, lr=3e-3)
        base = DepthDiffusion.load(trained[0])
        return finetune(base, toy, points, config, checkpoints=None, run_key={}, device="cpu").history

    weak, strong = run(1e-9), run(2.0)
    assert strong[0]["constraint"] == weak[0]["constraint"]
    assert not [name for name in strong[0] if name.startswith("constraint_t")]
    after = [np.mean([row["constraint"] for row in history[-8:]]) for history in (strong, weak)]
    assert after[0] < 0.97 * after[1]


def test_a_captured_step_decodes_all_and_means_the_same(base, toy, points):
    cache = training_cache(base, DatasetSource(toy, points), None, CPU)
    results, shapes = [], []
    for captured in (False, True):
        config = _config(rollout_steps=0, schedule="t_max", t_min=300, t_max=700, cuda_graph=captured)
        objective = Objective(base, cache, config, ConstraintTerm(base, config, CPU))
        batch = Batch([0, 1, 2, 3, 4, 5], [0] * 6, 0)
        shapes.append(objective.prepare(batch, CPU)["images"].shape[0])
        results.append(objective(base.denoiser(), batch))
    assert shapes[0] < shapes[1] == 6
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], equal_nan=True)


class _Lifts(TorchDispatchMode):
    """Counts tensors that are made from Python numbers: on a GPU each is a copy from the host, which no graph can capture."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += "lift" in str(function)
        return function(*args, **(kwargs or {}))


def test_the_counter_counts():
    with _Lifts() as lifts:
        torch.zeros(2).new_tensor([1.0, 2.0])
    assert lifts.count == 1


@pytest.mark.parametrize("rollout_steps", [0, 3])
@pytest.mark.parametrize("constraint", [None, "orientation"])  # the perspective loss has kernels of its own on a GPU
def test_the_device_s_part_of_a_step_takes_nothing_from_the_host(base, toy, points, constraint, rollout_steps):
    config = _config(constraint=constraint, rollout_steps=rollout_steps, cuda_graph=True, num_lines=60)
    cache = training_cache(base, DatasetSource(toy, points), None, CPU)
    term = ConstraintTerm(base, config, CPU) if constraint else None
    objective = Objective(base, cache, config, term)
    inputs = objective.prepare(Batch([0, 1], [0, 0], 0), CPU)
    with _Lifts() as lifts:
        objective.compute(base.denoiser(), inputs)[0].sum().backward()
    assert lifts.count == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures CUDA work")
@pytest.mark.parametrize("changes", [{"constraint": None}, {"constraint": "perspective", "rollout_steps": 0}, {}])
def test_a_captured_fine_tuning_is_the_same_fine_tuning(base_folder, toy, points, changes):
    """At a low learning rate: at 1e-3 weights that are off by 1e-5 change the rollouts' losses by 1 % within 12 steps."""
    histories = []
    for captured in (False, True):
        base = DepthDiffusion.load(base_folder)
        config = _config(cuda_graph=captured, num_lines=60, lr=1e-4, **changes)
        histories.append(finetune(base, toy, points, config, checkpoints=None, run_key={}, device="cuda").history)
    for eager, captured_row in zip(*histories, strict=True):
        assert captured_row["loss"] == pytest.approx(eager["loss"], rel=5e-3)


def test_more_gradient_steps_than_steps_are_refused():
    with pytest.raises(ValidationError, match="rollout_gradient_steps: at most rollout_steps = 3, got 4"):
        _config(rollout_gradient_steps=4)
