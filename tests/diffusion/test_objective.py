import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler

from alberti.diffusion.objective import (
    by_noise_level,
    constraint_weight,
    denoising_loss,
    min_snr_weight,
    normalise_depth,
    predict_x0,
)
from alberti.diffusion.schedules import NoiseSchedule, flow_sigma
from alberti.errors import CheckpointError, ConfigError

LEVELS = torch.tensor([0.999, 0.7, 0.3, 0.005])


def _schedule(prediction_type: str) -> NoiseSchedule:
    if prediction_type == "flow":
        return NoiseSchedule.from_scheduler(FlowMatchEulerDiscreteScheduler(shift=3.0))
    return NoiseSchedule.from_scheduler(DDIMScheduler(prediction_type=prediction_type))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "flow"])
def test_x0_of_the_true_target_is_x0(prediction_type):
    schedule = _schedule(prediction_type)
    x0, noise = torch.randn(2, 4, 4, 8, 8, dtype=torch.float64)
    level = LEVELS.double()
    x_t = schedule.add_noise(x0, noise, level)
    found = predict_x0(schedule.target(x0, noise, level), x_t, level, prediction_type)
    torch.testing.assert_close(found, x0)


def test_x0_closed_forms():
    x_t, output = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 0.5)
    level = torch.tensor([0.64])
    assert predict_x0(output, x_t, level, "epsilon").item() == pytest.approx((2 - 0.6 * 0.5) / 0.8)
    assert predict_x0(output, x_t, level, "v_prediction").item() == pytest.approx(0.8 * 2 - 0.6 * 0.5)
    # sigma / (1 - sigma) = 0.6 / 0.8
    assert predict_x0(output, x_t, level, "flow").item() == pytest.approx(2 - 0.6 / 1.4 * 0.5)


def test_x0_of_an_unknown_prediction_type():
    with pytest.raises(ConfigError, match="sample"):
        predict_x0(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.ones(1), "sample")


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_schedule_agrees_with_diffusers(prediction_type):
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.register_to_config(prediction_type=prediction_type)
    schedule = NoiseSchedule.from_scheduler(scheduler)
    x0, noise, t = torch.randn(4, 3, 4, 4), torch.randn(4, 3, 4, 4), torch.tensor([0, 10, 500, 999])
    level = schedule.alpha_bar(t)
    torch.testing.assert_close(schedule.add_noise(x0, noise, level), scheduler.add_noise(x0, noise, t))
    wanted = noise if prediction_type == "epsilon" else scheduler.get_velocity(x0, noise, t)
    torch.testing.assert_close(schedule.target(x0, noise, level), wanted)


def test_flow_schedule_agrees_with_diffusers():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    schedule = NoiseSchedule.from_scheduler(scheduler)
    times = schedule.model_timesteps(torch.arange(1000))
    torch.testing.assert_close(times.flip(0), scheduler.timesteps, rtol=1e-4, atol=1e-2)
    x0, noise = torch.randn(2, 3, 3, 4, 4)
    sigma = torch.tensor([0.1, 0.5, 0.9])
    level = (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2)
    torch.testing.assert_close(flow_sigma(level), sigma)
    mixed = schedule.add_noise(x0, noise, level)
    torch.testing.assert_close(mixed, (1 - sigma.view(-1, 1, 1, 1)) * x0 + sigma.view(-1, 1, 1, 1) * noise)


def test_schedule_refuses_what_it_does_not_know():
    with pytest.raises(CheckpointError, match="sample"):
        NoiseSchedule.from_scheduler(DDIMScheduler(prediction_type="sample"))


def test_normalised_depth_is_inverse_depth_from_minus_one_to_one():
    depth = torch.tensor([[[1.0, 2.0], [4.0, 0.0]]])
    # 1/d = 1, 0.5, 0.25 and 0 for no measurement
    assert normalise_depth(depth).flatten().tolist() == pytest.approx([1.0, 0.0, -0.5, -1.0])


def test_normalised_depth_is_resized_before_it_is_scaled():
    depth = torch.rand(2, 8, 8) * 20 + 1
    small = normalise_depth(depth, (4, 4))
    assert small.shape == (2, 1, 4, 4)
    assert small.amin(dim=(1, 2, 3)).tolist() == [-1, -1]
    assert small.amax(dim=(1, 2, 3)).tolist() == pytest.approx([1, 1])
    averaged = torch.nn.functional.avg_pool2d(1 / depth[:, None], 2)  # bilinear at exactly half size
    order = averaged.flatten(1).argsort(dim=1)
    assert torch.equal(small.flatten(1).argsort(dim=1), order)


@pytest.mark.parametrize("value", [0.0, 7.5, 1e-3, 80.0])
def test_a_flat_depth_map_becomes_zeros(value):
    result = normalise_depth(torch.full((1, 16, 16), value), (4, 4))
    assert torch.equal(result, torch.zeros(1, 1, 4, 4))


def test_flat_and_ordinary_maps_share_a_batch():
    depth = torch.stack([torch.full((4, 4), 5.0), torch.arange(1.0, 17).view(4, 4)])
    result = normalise_depth(depth)
    assert torch.equal(result[0], torch.zeros(1, 4, 4))
    assert torch.equal(result[1], normalise_depth(depth[1:])[0])


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "flow"])
def test_min_snr_makes_the_loss_on_x0_weigh_min_snr_gamma(prediction_type):
    gamma = 5.0
    schedule = _schedule(prediction_type)
    x0, noise = torch.randn(2, 4, 4, 8, 8, dtype=torch.float64)
    level = LEVELS.double()
    x_t = schedule.add_noise(x0, noise, level)
    target = schedule.target(x0, noise, level)
    wrong = target + torch.randn_like(target)
    error = (predict_x0(wrong, x_t, level, prediction_type) - x0).square().mean(dim=(1, 2, 3))
    expected = (level / (1 - level)).clamp(max=gamma) * error
    plain = (wrong - target).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(min_snr_weight(level, prediction_type, gamma) * plain, expected)
    weighted = denoising_loss(wrong, target, level, schedule, gamma).double()
    torch.testing.assert_close(weighted, expected, rtol=1e-4, atol=1e-5)


def test_constraint_weights():
    level, t = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([100, 500, 900])
    assert constraint_weight("all", level, t).tolist() == [1, 1, 1]
    assert constraint_weight("alpha_bar", level, t).tolist() == level.tolist()
    assert constraint_weight("t_max", level, t, t_max=500).tolist() == [1, 1, 0]
    assert constraint_weight("t_max", level, t, t_min=200, t_max=500).tolist() == [0, 1, 0]
    with pytest.raises(ConfigError, match="schedule"):
        constraint_weight("often", level, t)


def test_values_by_noise_level():
    bins = by_noise_level("loss", torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 250, 999]), 1000)
    assert list(bins) == ["loss_t0", "loss_t1", "loss_t2", "loss_t3"]
    assert bins["loss_t1"].nan_to_num(-1).tolist() == [-1, 2, -1]
    assert bins["loss_t3"].nan_to_num(-1).tolist() == [-1, -1, 3]
    assert bins["loss_t2"].isnan().all()
