"""Guidance by vanishing points: the energy's closed form, the step down it, and what sampling does with it."""

import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusion.toy import CAPTIONS, SIZE

from alberti.data.manifest import Dataset
from alberti.data.transforms import stack_vanishing_points
from alberti.diffusion.base import DepthDiffusion
from alberti.diffusion.config import SampleConfig, TinyDecoderConfig, VanishingGuidance
from alberti.diffusion.guidance import VanishingEnergy, VanishingGuide, even_step, guide_decoder
from alberti.diffusion.sample import generate, sample_images, solver_of
from alberti.diffusion.tiny import build_tiny_decoder
from alberti.errors import ConfigError
from alberti.families.steps import NoiseStep, noise_step
from alberti.geometry.surfaces import points_on_surfaces
from alberti.images import read_image, write_depth
from alberti.losses.orientation import grid_misfit, stray_share

RIGHT = torch.tensor([[[1.0, 0.0, 0.0]]])
GUIDANCE = {"strength": 0.3, "alpha_min": 0.0}


def test_a_step_is_even_where_the_gradient_is_strong_and_small_where_it_is_weak():
    gradient = torch.tensor([1.0, -1.0, 0.001, 0.0]).view(1, 1, 2, 2)
    scale = math.sqrt((1 + 1 + 1e-6) / 4)
    expected = [1 / (1 + scale), -1 / (1 + scale), 0.001 / (0.001 + scale), 0]
    torch.testing.assert_close(even_step(gradient).flatten(), torch.tensor(expected))
    torch.testing.assert_close(even_step(1e-6 * gradient), even_step(gradient))
    assert not even_step(torch.zeros(1, 1, 2, 2)).any()


@pytest.fixture(scope="module")
def model(base_folder) -> DepthDiffusion:
    return DepthDiffusion.load(base_folder)


def _config(guidance: dict | None, **changes) -> SampleConfig:
    values = {"steps": 3, "batch_size": 4, "guidance_scale": 2.0, "vanishing_guidance": guidance}
    return SampleConfig.model_validate(values | changes)


def _draw(model: DepthDiffusion, toy: Dataset, config: SampleConfig, points: list | None) -> torch.Tensor:
    samples = toy.samples[:3]
    depth = torch.from_numpy(np.stack([toy.read_depth(sample) for sample in samples]))
    return sample_images(model, depth, CAPTIONS, [sample.id for sample in samples], config, points)


def _points(toy: Dataset) -> list:
    return [sample.vanishing_points for sample in toy.samples[:3]]


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_guided_pictures_are_straighter(model, toy, solver, scale):
    points = _points(toy)
    plain, guided = (_draw(model, toy, _config(g, solver=solver, guidance_scale=scale), points) for g in (None, GUIDANCE))
    stacked = torch.from_numpy(stack_vanishing_points(points))
    before, after = (stray_share(images, stacked, tolerance=4.0) for images in (plain, guided))
    assert (after < before - 0.005).all()
    assert after.mean() < before.mean() - 0.02


class PlainDecoder(torch.nn.Module):
    """The VAE's own decoder, as a guide takes one."""

    def __init__(self, model: DepthDiffusion):
        super().__init__()
        self.model, self.weights = model, model.vae.decoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return 2 * self.model.decode(latents) - 1


def test_a_push_is_that_of_the_plain_decoder_up_to_rounding(model, toy):
    # One push, for over several steps near-zero gradients let rounding grow, differently on every processor.
    x_t = torch.randn(3, 4, SIZE // model.factor, SIZE // model.factor, generator=torch.Generator().manual_seed(0))
    frozen, plain = (
        VanishingGuide(model, VanishingGuidance(), _points(toy), 4, decoder).push(
            lambda noisy, rows: 0.1 * noisy, x_t, NoiseStep(0.9**0.5, -(0.1**0.5), 0.9)
        )
        for decoder in (None, PlainDecoder(model))
    )
    assert (frozen - plain).abs().mean() < 0.01 * plain.abs().mean()
    assert plain.abs().mean() > 0.01


def test_the_decoder_is_copied_once_for_all_batches(model, toy, tmp_path, monkeypatch):
    made, original = [], model.frozen_decoder
    monkeypatch.setattr(model, "frozen_decoder", lambda: made.append(1) or original())
    generate(model, toy, tmp_path / "guided", _config(GUIDANCE, batch_size=1), device="cpu")
    assert len(made) == 1
    generate(model, toy, tmp_path / "unguided", _config(None), device="cpu")
    assert len(made) == 1


def test_pictures_without_points_keep_their_bits(model, toy):
    points = _points(toy)
    plain = _draw(model, toy, _config(None), None)
    guided = _draw(model, toy, _config(GUIDANCE), [None, points[1], []])
    assert torch.equal(guided[0], plain[0])
    assert torch.equal(guided[2], plain[2])
    assert not torch.equal(guided[1], plain[1])
    assert torch.equal(_draw(model, toy, _config(GUIDANCE), [None, [], None]), plain)


def _draw_on_surfaces(model, toy, settings: dict, cameras: list | None) -> torch.Tensor:
    """With the toy tunnel's other two directions among the points, so that its walls are built along them."""
    samples = toy.samples[:3]
    depth = torch.from_numpy(np.stack([toy.read_depth(sample) for sample in samples]))
    ids = [sample.id for sample in samples]
    return sample_images(model, depth, CAPTIONS, ids, _config(settings), _three_points(toy), cameras=cameras)


def _three_points(toy: Dataset) -> list:
    return [[*points, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)] for points in _points(toy)]


def test_edges_turn_to_the_points_that_their_surface_contains(model, toy):
    cameras = [toy.camera(sample) for sample in toy.samples[:3]]
    plain, guided = (_draw_on_surfaces(model, toy, settings, cameras) for settings in (GUIDANCE | {"alpha_min": 1.0}, GUIDANCE))
    points = torch.from_numpy(stack_vanishing_points(_three_points(toy)))
    depths = [toy.read_depth(sample) for sample in toy.samples[:3]]
    surfaces = np.stack([points_on_surfaces(*each) for each in zip(depths, points.numpy(), cameras, strict=True)])
    assert surfaces.any(axis=1).mean() > 0.5
    before, after = (
        grid_misfit(images, points, tolerance=4.0, balance=0.0, surfaces=torch.from_numpy(surfaces))
        for images in (plain, guided)
    )
    assert (after < before - 0.005).all()


def test_a_picture_without_a_camera_is_guided_to_its_points_everywhere(model, toy):
    cameras = [None, toy.camera(toy[1]), None]
    everywhere = _draw_on_surfaces(model, toy, GUIDANCE | {"surfaces": False}, cameras)
    mixed = _draw_on_surfaces(model, toy, GUIDANCE, cameras)
    plain = _draw_on_surfaces(model, toy, GUIDANCE | {"alpha_min": 1.0}, cameras)
    apart, step = ((mixed - other).abs().mean(dim=(1, 2, 3)) for other in (everywhere, plain))
    assert (apart[[0, 2]] < 0.1 * step[[0, 2]]).all()
    assert apart[1] > 0.1 * step[1]
    assert torch.equal(_draw_on_surfaces(model, toy, GUIDANCE, None), everywhere)


def test_a_window_that_no_step_falls_into_changes_nothing(model, toy):
    away = GUIDANCE | {"alpha_min": 0.99999}
    assert torch.equal(_draw(model, toy, _config(away), _points(toy)), _draw(model, toy, _config(None), None))


def test_guiding_is_deterministic_and_alone_as_in_a_batch(model, toy):
    guided = _draw(model, toy, _config(GUIDANCE), _points(toy))
    assert torch.equal(_draw(model, toy, _config(GUIDANCE), _points(toy)), guided)
    chunked = _draw(model, toy, _config(GUIDANCE | {"chunk": 1}), _points(toy))
    # Where a gradient is nearly zero, rounding decides its sign: a few pixels differ, the picture does not.
    plain = _draw(model, toy, _config(None), None)
    assert (chunked - guided).abs().mean() < 0.1 * (plain - guided).abs().mean()


def test_shards_give_the_same_bytes(model, toy, tmp_path, monkeypatch):
    config = _config(GUIDANCE, batch_size=2)
    generate(model, toy, tmp_path / "one", config, device="cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        generate(model, toy, tmp_path / "two", config, device="cpu")
    for sample in toy:
        one, two = (tmp_path / name / "images" / f"{sample.id}.png" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_a_flow_matching_model_is_guided(base_folder, toy):
    model = DepthDiffusion.load(base_folder)
    model.scheduler = FlowMatchEulerDiscreteScheduler()
    points = _points(toy)
    plain, guided = (_draw(model, toy, _config(settings), points) for settings in (None, GUIDANCE))
    assert guided.isfinite().all()
    assert not torch.equal(plain, guided)


def test_the_strength_is_shared_among_the_runs_steps(model):
    x_t, level = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), NoiseStep(0.5**0.5, -(0.5**0.5), 0.5)
    settings = VanishingGuidance(strength=0.6)
    pushes = [
        VanishingGuide(model, settings, [[(1.0, 0.0, 0.0)]], steps).push(lambda noisy, rows: 0.1 * noisy, x_t, level)
        for steps in (2, 20)
    ]
    torch.testing.assert_close(pushes[0], 10 * pushes[1])
    assert 0.2 < pushes[0].abs().max() < 0.3


def test_noise_levels_are_those_of_the_solver(model, base_folder):
    solver = solver_of(model, _config(None, solver="dpm++", steps=4))
    for index in range(len(solver.timesteps)):
        level = noise_step(solver, index).alpha_bar
        # DPM-Solver++'s sigma is noise over signal.
        assert level == pytest.approx(1 / (1 + float(solver.sigmas[index]) ** 2), rel=1e-3)
    flow = DepthDiffusion.load(base_folder)
    flow.scheduler = FlowMatchEulerDiscreteScheduler()
    solver = solver_of(flow, _config(None, steps=4))
    levels = [noise_step(solver, index).alpha_bar for index in range(len(solver.timesteps))]
    assert levels[0] == 0
    assert levels == sorted(levels)


def test_a_tiny_decoder_guides_if_there_is_one(base_folder, toy):
    model = DepthDiffusion.load(base_folder)
    settings = _config(GUIDANCE | {"decoder": "tiny"})
    with pytest.raises(ConfigError, match="distil-decoder"):
        _draw(model, toy, settings, _points(toy))
    model.tiny_decoder = build_tiny_decoder(model, TinyDecoderConfig(width=8, blocks=1))
    assert _draw(model, toy, settings, _points(toy)).isfinite().all()


def test_guidance_without_any_points_is_refused_before_anything_is_made(model, toy, tmp_path):
    bare = Dataset(
        toy.folder, toy.info, [sample.model_copy(update={"vanishing_points": None, "intrinsics": None}) for sample in toy]
    )
    with pytest.raises(ConfigError, match="no picture has vanishing points"):
        generate(model, bare, tmp_path / "out", _config(GUIDANCE), device="cpu")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="none were given"):
        _draw(model, toy, _config(GUIDANCE), None)


def test_a_data_set_without_points_is_guided_by_those_of_its_depth_maps(model, toy, tmp_path):
    rays = toy.camera(toy[0]).rays()
    box = np.minimum(2 / np.maximum(abs(rays[..., 0]), 1e-6), 1.5 / np.maximum(abs(rays[..., 1]), 1e-6)).clip(max=12)
    write_depth(tmp_path / "box.png", box)
    bare = {"vanishing_points": None, "depth": "box.png"}
    info = toy.info.model_copy(update={"root": str(toy.root), "depth_root": str(tmp_path)})
    boxes = Dataset(toy.folder, info, [sample.model_copy(update=bare) for sample in toy.samples[:2]])
    drawn = {}
    for name, guidance in (("plain", None), ("guided", GUIDANCE)):
        generate(model, boxes, tmp_path / name, _config(guidance), device="cpu")
        drawn[name] = [read_image(tmp_path / name / "images" / f"{sample.id}.png") for sample in boxes]
    for plain, guided in zip(drawn["plain"], drawn["guided"], strict=True):
        assert abs(plain.astype(float) - guided).mean() > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha_min": 0.9, "alpha_max": 0.1}, "must not exceed"),
        ({"strength": 0}, "strength"),
        ({"stength": 1}, "stength"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        _config(settings)


def test_the_price_on_edges_is_asked_in_late_steps_only(model, toy):
    points = [np.asarray(each) for each in _points(toy)[:1]]
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))

    def slope(alpha_bar: float, **settings: float) -> torch.Tensor:
        config = VanishingGuidance.model_validate(settings)
        energy = VanishingEnergy(guide_decoder(model, config), config, points, None, torch.device("cpu"))
        return energy.slope(latents, slice(0, 1), alpha_bar)

    free = slope(0.9)
    assert torch.equal(slope(0.6, hold=0.4, hold_from=0.7), free)
    assert not torch.allclose(slope(0.8, hold=0.4, hold_from=0.7), free, atol=1e-3)
    assert torch.equal(slope(0.1, hold=0.4, hold_from=0.0), slope(0.9, hold=0.4))
