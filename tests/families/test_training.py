"""Constrained fine-tuning of every family, and its export, on tiny random pipelines."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusion.toy import SIZE, write_toy
from families.tiny import PIPELINES, build, inputs, sample

from alberti.data.manifest import Dataset
from alberti.diffusion.config import FinetuneConfig, SampleConfig, VanishingGuidance
from alberti.diffusion.objective import normalise_depth
from alberti.diffusion.sample import sample_images, start_noise
from alberti.diffusion.train import FinetuneResult, finetune
from alberti.families.adapters import family_of
from alberti.families.model import PipelineModel

TRANSFORMERS = [name for name in PIPELINES if family_of(build(name)).denoiser == "transformer"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_toy(tmp_path_factory.mktemp("toy") / "data", count=2)


def _model(name: str) -> PipelineModel:
    return PipelineModel(build(name), max_tokens=inputs(name).get("max_sequence_length", 256))


def _finetuned(model: PipelineModel, toy: Dataset, *, validation: Path | None = None, **changes: Any) -> FinetuneResult:
    rank = 2 if model.family.denoiser == "transformer" else 0
    values = {
        "training": {"steps": 2, "batch_size": 2, "lr": 1e-2, "log_every": 1},
        "constraint": "perspective",
        "weight": 0.1,
        "num_lines": 20,
        "lora_rank": rank,
    }
    points = {each.id: each.vanishing_points for each in toy}
    config = FinetuneConfig.model_validate(values | changes)
    return finetune(model, toy, points, config, checkpoints=None, run_key={}, device="cpu", validation=validation)


@pytest.mark.parametrize("name", PIPELINES)
def test_two_constrained_steps_change_the_pictures_and_stock_diffusers_loads_them(name, toy, tmp_path):
    model = _model(name)
    before = sample(model.pipe, name)
    result = _finetuned(model, toy)
    assert [row["constraint"] > 0 for row in result.history] == [True, True]
    assert all(np.isfinite(list(row.values())).any() for row in result.history)
    after = sample(model.pipe, name)
    assert abs(after - before).mean() > 1e-4
    folder = tmp_path / "out"
    model.save(folder)
    loaded = _loaded_by_diffusers(name, folder)
    assert abs(sample(loaded, name) - after).max() < 1e-4


def _loaded_by_diffusers(name: str, folder: Path) -> Any:
    """By nothing of ours: adapters into the pipeline as it was, or the whole pipeline."""
    pipe = build(name)
    if name in TRANSFORMERS:
        assert [path.name for path in folder.iterdir()] == ["pytorch_lora_weights.safetensors"]
        pipe.load_lora_weights(folder)
        return pipe
    extra = {"safety_checker": None} if name == "sd-controlnet" else {}
    if name.startswith("sdxl"):
        extra["add_watermarker"] = False
    loaded = type(pipe).from_pretrained(folder, **extra)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.mark.parametrize("name", [name for name in PIPELINES if name != "sdxl-controlnet"])  # the union's call, and less
def test_training_calls_the_networks_as_the_pipeline_does(name):
    """At a step of the pipeline's own, the answer for its latents, prompt and depth map is the pipeline's."""
    model = _model(name)
    pipe, seen = model.pipe, []
    _without_spread(pipe.vae)
    depth = torch.linspace(1, 5, SIZE).repeat(1, SIZE, 1)
    picture = ((normalise_depth(depth) + 1) / 2).repeat(1, 3, 1, 1)
    call = {
        "sd2-depth": {"depth_map": normalise_depth(depth, (SIZE // 2, SIZE // 2))[:, 0]},
        "sd-controlnet": {"image": picture},
        "sdxl-union": {"control_image": [picture], "control_mode": [1]},
    }.get(name, {"control_image": 2 * picture - 1})  # what the others would make of a picture file
    plain = {"guidance_scale": 1.0} if name.startswith("sd") else {"guidance_scale": model.guidance}
    if name == "qwen-image-controlnet":
        plain = {"true_cfg_scale": 1.0, "negative_prompt": None}
    if name == "flux-controlnet":
        plain |= {"true_cfg_scale": 1.0, "negative_prompt": None}
    if name == "z-image-controlnet":
        plain = {"guidance_scale": 0.0}
    original = pipe.scheduler.step

    def step(output: torch.Tensor, time: torch.Tensor, latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append((output, time, latents))
        return original(output, time, latents, *args, **kwargs)

    pipe.scheduler.step = step
    sample(pipe, name, **call, **plain)
    output, time, latents = seen[0]
    side = SIZE // model.codec.factor // 2
    expected = model.codec.unpack(output, (side, side))
    x_t = model.codec.unpack(latents, (side, side))
    if hasattr(pipe.scheduler, "scale_model_input"):
        pipe.scheduler.set_timesteps(3)
        x_t = pipe.scheduler.scale_model_input(x_t, time)
    model.check_size(SIZE, SIZE)
    with torch.no_grad():
        text = model.encode_text([inputs(name)["prompt"]])
        found = model.denoiser()(x_t, time.reshape(1), text, model.condition(depth))
    assert abs(found - expected).max() < 1e-3 * expected.abs().max()


def _without_spread(vae: Any) -> None:
    """Latents that are drawn (some pipelines draw the depth map's) are then their mean."""
    last = vae.quant_conv if getattr(vae, "quant_conv", None) is not None else vae.encoder.conv_out
    half = last.weight.shape[0] // 2
    with torch.no_grad():
        last.weight[half:] = 0
        last.bias[half:] = -30


@pytest.mark.parametrize("name", ["sdxl-union", "sd3-controlnet", "flux-depth", "flux-controlnet", "qwen-image-controlnet"])
def test_our_sampler_draws_what_the_pipeline_does(name):
    """From the same noise, by the same solver, without classifier-free guidance."""
    model = _model(name)
    pipe = model.pipe
    _without_spread(pipe.vae)
    if name == "sdxl-union":
        pipe.scheduler = model.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    depth = torch.linspace(1, 5, SIZE).repeat(1, SIZE, 1)
    picture = ((normalise_depth(depth) + 1) / 2).repeat(1, 3, 1, 1)
    config = SampleConfig(steps=4, guidance_scale=1.0)
    own = sample_images(model, depth, [inputs(name)["prompt"]], ["a"], config)[0].permute(1, 2, 0).numpy()
    noise = start_noise(["a"], 0, (model.latent_channels, SIZE // model.factor, SIZE // model.factor))
    union = {"control_image": [picture], "control_mode": [1], "guidance_scale": 1.0}
    call = union if name == "sdxl-union" else {"control_image": 2 * picture - 1}
    if name in ("flux-depth", "flux-controlnet"):
        call["guidance_scale"] = model.guidance
    if name == "sd3-controlnet":
        call["guidance_scale"] = 1.0
    if name in ("flux-controlnet", "qwen-image-controlnet"):
        call |= {"true_cfg_scale": 1.0, "negative_prompt": None}
    stock = sample(pipe, name, latents=model.codec.pack(noise), num_inference_steps=4, **call)[0]
    assert stock.std() > 0.01
    assert abs(own - stock).max() < 2e-3


@pytest.mark.parametrize("name", ["sdxl-union", "flux-depth", "qwen-image-controlnet"])
def test_pictures_are_drawn_and_guided_while_it_trains(name, toy, tmp_path):
    model = _model(name)
    _finetuned(model, toy, validation=tmp_path / "seen", validate_every=1, validation_samples=1)
    assert len(list((tmp_path / "seen").rglob("*.png"))) == 2
    depth = torch.linspace(1, 5, SIZE).repeat(1, SIZE, 1)
    call = model, depth, [inputs(name)["prompt"]], ["a"]
    guided = SampleConfig(steps=3, guidance_scale=2.0, vanishing_guidance=VanishingGuidance(alpha_min=0.0))
    pictures = [
        sample_images(*call, config, [[(1.0, 0.0, 0.0)]]) for config in (SampleConfig(steps=3, guidance_scale=2.0), guided)
    ]
    assert abs(pictures[0] - pictures[1]).mean() > 1e-3


def test_a_flux_denoiser_without_an_input_for_depth_is_widened_by_zeros(toy, tmp_path):
    pipe = build("flux-depth")
    narrow = build("flux-controlnet").transformer
    pipe.transformer = narrow
    before = narrow.x_embedder.weight.clone()
    model = PipelineModel(pipe, max_tokens=32)
    weight = model.unet.x_embedder.weight
    assert torch.equal(weight[:, : before.shape[1]], before)
    assert not weight[:, before.shape[1] :].any()
    _finetuned(model, toy)
    trained = sample(pipe, "flux-depth")
    model.save(tmp_path / "lora")
    # a plain FLUX denoiser in the pipeline for structural control: diffusers widens it for the adapters
    stock = build("flux-depth")
    stock.transformer = build("flux-controlnet").transformer
    stock.load_lora_weights(tmp_path / "lora")
    assert stock.transformer.config.in_channels == 32
    assert abs(sample(stock, "flux-depth") - trained).max() < 1e-4


def test_dynamic_shift_follows_the_size_of_the_pictures():
    model = _model("flux-depth")
    model.check_size(32, 32)
    small = model.schedule.alpha_bars[499]
    model.check_size(256, 256)
    assert model.schedule.alpha_bars[499] < small
    mu = 0.5 + (1.15 - 0.5) * (64 * 64 - 256) / (4096 - 256)
    model.pipe.scheduler.set_timesteps(sigmas=[0.5], mu=mu)
    sigma = float(model.pipe.scheduler.sigmas[0])
    assert float(model.schedule.alpha_bars[499]) == pytest.approx((1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2), rel=1e-4)
