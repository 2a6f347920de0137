"""A guide in a pipeline: what it does to pictures, what it leaves alone, and what it refuses."""

import copy
import shutil
import warnings
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusion.toy import CAPTIONS
from families.tiny import PROMPT, SIZE, build, sample

from alberti.data.transforms import stack_vanishing_points
from alberti.diffusion.config import SampleConfig, TinyDecoderConfig
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.objective import normalise_depth
from alberti.diffusion.sample import sample_images, start_noise
from alberti.diffusion.tiny import build_tiny_decoder
from alberti.errors import ConfigError, DataError
from alberti.families.adapters import family_of
from alberti.families.steps import noise_step
from alberti.geometry.camera import Camera
from alberti.guidance import VanishingGuidance
from alberti.losses.orientation import stray_share

POINTS = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (15.0, 16.0, 1.0)]
CAMERA = Camera(30, 30, (SIZE - 1) / 2, (SIZE - 1) / 2, SIZE, SIZE)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return build("sd2-depth")


@pytest.fixture(scope="module")
def flux() -> Any:
    return build("flux-depth")


def _own_and_stock(trained, toy, guided: bool, solver: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of our sampler, and of diffusers' pipeline from the same latents, depth maps and prompts."""
    folder, _ = trained
    model = DepthDiffusion.load(folder)
    samples = toy.samples[:2]
    depth = torch.from_numpy(np.stack([toy.read_depth(each) for each in samples]))
    points, cameras = [[*each.vanishing_points, *POINTS[:2]] for each in samples], [toy.camera(each) for each in samples]
    settings = {"strength": 0.6, "alpha_min": 0.1} if guided else None
    config = SampleConfig(steps=6, solver=solver, guidance_scale=2.0, vanishing_guidance=settings)
    ids = [each.id for each in samples]
    own = sample_images(model, depth, CAPTIONS[:2], ids, config, points, cameras=cameras)

    pipe = diffusers.StableDiffusionDepth2ImgPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    kind = diffusers.DDIMScheduler if solver == "ddim" else diffusers.DPMSolverMultistepScheduler
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    noise = start_noise(ids, config.seed, (4, *(side // model.factor for side in depth.shape[1:])))
    pipe.prepare_latents = lambda *args, **kwargs: noise.clone()  # it begins with a noisy picture, our sampler with noise
    image = torch.zeros(2, 3, SIZE, SIZE)
    call = {
        "prompt": list(CAPTIONS[:2]),
        "image": image,
        "depth_map": normalise_depth(depth, noise.shape[2:])[:, 0],
        "strength": 1.0,
        "num_inference_steps": 6,
        "guidance_scale": 2.0,
        "output_type": "np",
    }
    if not guided:
        return own.permute(0, 2, 3, 1).numpy(), pipe(**call).images
    guide = VanishingGuidance(points, depth=depth.numpy(), camera=cameras, **settings)
    with guide.attached(pipe):
        return own.permute(0, 2, 3, 1).numpy(), pipe(**call).images


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_the_stock_pipeline_guided_draws_what_our_sampler_does(trained, toy, solver):
    plain, stock_plain = _own_and_stock(trained, toy, False, solver)
    own, stock = _own_and_stock(trained, toy, True, solver)
    assert abs(plain - stock_plain).max() < 1e-4
    moved = abs(own - plain).mean()
    assert moved > 0.01
    assert abs(own - stock).mean() < 0.1 * moved  # rounding grows where a gradient is nearly zero
    points = torch.from_numpy(stack_vanishing_points([[*each.vanishing_points, *POINTS[:2]] for each in toy.samples[:2]]))
    before, after = (
        stray_share(torch.from_numpy(each).permute(0, 3, 1, 2).float(), points, tolerance=4.0).mean()
        for each in (stock_plain, stock)
    )
    assert after < before - 0.01


def test_a_prompt_without_points_keeps_its_picture(pipe):
    plain, guided = _pair(pipe, "sd2-depth", VanishingGuidance([None, POINTS], alpha_min=0.0), prompt=[PROMPT, PROMPT])
    assert abs(plain[0] - guided[0]).max() < 1e-5
    assert abs(plain[1] - guided[1]).mean() > 1e-3


def _pair(pipe: Any, name: str, guide: VanishingGuidance, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    prompts = changes.get("prompt", PROMPT)
    if name == "sd2-depth" and isinstance(prompts, list):
        image = torch.zeros(len(prompts), 3, SIZE, SIZE)
        depth = torch.linspace(-1, 1, SIZE).repeat(len(prompts), SIZE, 1)
        changes |= {"image": image, "depth_map": depth}

    def draw() -> np.ndarray:
        return sample(pipe, name, **copy.deepcopy(changes))

    plain = draw()
    with guide.attached(pipe):
        return plain, draw()


SCHEDULERS = {
    "ddim": diffusers.DDIMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler ancestral": diffusers.EulerAncestralDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "dpm++": diffusers.DPMSolverMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
    "lms": diffusers.LMSDiscreteScheduler,
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_solvers_guide_and_keep_their_state(kind):
    pipe = build("sdxl-controlnet")
    pipe.scheduler = SCHEDULERS[kind](beta_schedule="scaled_linear", prediction_type="epsilon")
    plain, guided = _pair(pipe, "sdxl-controlnet", VanishingGuidance(POINTS, alpha_min=0.0), num_inference_steps=4)
    assert np.isfinite(guided).all()
    assert abs(plain - guided).mean() > 5e-4
    assert np.array_equal(sample(pipe, "sdxl-controlnet", num_inference_steps=4), plain)


def test_an_img2img_strength_leaves_steps_out_and_guides_the_rest(pipe):
    seen = []
    guide = VanishingGuidance(POINTS, alpha_min=0.0)
    with guide.attached(pipe):
        attachment: Any = guide._attachment
        original = attachment._gradient
        attachment._gradient = lambda *args: seen.append(args[0].alpha_bar) or original(*args)
        sample(pipe, "sd2-depth", strength=0.5, num_inference_steps=8)
    assert len(seen) == 4
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every": 2}, [1, 3, 5]),
        ({"alpha_min": 0.9}, [4, 5]),
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"every": 2, "alpha_max": 0.9}, [1, 3]),
    ],
)
def test_a_window_and_every_nth_step_of_it(pipe, options, expected):
    guide, seen = VanishingGuidance(POINTS, **{"alpha_min": 0.0} | options), []
    with guide.attached(pipe):
        attachment: Any = guide._attachment
        original = attachment._gradient
        attachment._gradient = lambda *args: seen.append(args[0].alpha_bar) or original(*args)
        sample(pipe, "sd2-depth", num_inference_steps=6)
    levels = [noise_step(pipe.scheduler, index).alpha_bar for index in range(6)]
    assert [levels.index(each) for each in seen] == expected


def test_callbacks_and_the_latents_they_return_are_used(flux):
    seen = []

    def note(pipe: Any, index: int, time: torch.Tensor, values: dict) -> dict:
        assert not torch.is_grad_enabled()
        assert not values["latents"].requires_grad
        seen.append(index)
        return {"latents": torch.zeros_like(values["latents"])} if index == 2 else {}

    with VanishingGuidance(POINTS, alpha_min=0.0).attached(flux):
        latents = sample(flux, "flux-depth", callback_on_step_end=note, output_type="latent")
    assert seen == [0, 1, 2]
    assert not latents.any()


def test_a_tiny_decoder_guides(base_folder, pipe):
    tiny = build_tiny_decoder(DepthDiffusion.load(base_folder), TinyDecoderConfig(width=8, blocks=1))
    plain, guided = _pair(pipe, "sd2-depth", VanishingGuidance(POINTS, alpha_min=0.0, decoder=tiny))
    assert abs(plain - guided).mean() > 1e-3


def test_a_decoder_in_bfloat16_guides_the_same_way(pipe):
    plain, guided = _pair(pipe, "sd2-depth", VanishingGuidance(POINTS, alpha_min=0.0))
    guide = VanishingGuidance(POINTS, alpha_min=0.0, decoder_dtype=torch.bfloat16)
    _, nearly = _pair(pipe, "sd2-depth", guide)
    assert pipe.vae.dtype == torch.float32
    assert abs(nearly - guided).max() > 0
    moved, moved_nearly = ((each - plain).ravel() for each in (guided, nearly))
    assert np.corrcoef(moved, moved_nearly)[0, 1] > 0.5  # of random weights most gradients are hardly more than rounding
    with pytest.raises(ConfigError, match="decoder_dtype"):
        VanishingGuidance(POINTS, decoder_dtype=torch.int8)


def test_bfloat16_guides(flux):
    pipe = build("flux-depth").to(dtype=torch.bfloat16)
    plain, guided = _pair(pipe, "flux-depth", VanishingGuidance(POINTS, alpha_min=0.0))
    assert np.isfinite(guided).all()
    assert abs(plain - guided).mean() > 1e-3


def test_an_exception_in_the_pipeline_detaches(pipe):
    def fail(*args: Any) -> dict:
        raise KeyboardInterrupt

    plain = sample(pipe, "sd2-depth")
    guide = VanishingGuidance(POINTS, alpha_min=0.0)
    with pytest.raises(KeyboardInterrupt), guide.attached(pipe):
        sample(pipe, "sd2-depth", callback_on_step_end=fail)
    assert "step" not in pipe.scheduler.__dict__
    assert not pipe.unet._forward_pre_hooks
    assert np.array_equal(sample(pipe, "sd2-depth"), plain)
    with guide.attached(pipe):
        assert not np.array_equal(sample(pipe, "sd2-depth"), plain)


def test_attach_and_detach_without_a_with(pipe):
    guide = VanishingGuidance(POINTS)
    guide.detach()
    guide.attach(pipe)
    with pytest.raises(ConfigError, match="attached already"):
        guide.attach(pipe)
    with pytest.raises(ConfigError, match="guided already"):
        VanishingGuidance(POINTS).attach(pipe)
    guide.detach()
    guide.detach()
    assert not pipe.unet._forward_pre_hooks


def test_an_unknown_pipeline_is_refused_with_what_is_known():
    class Other:
        pass

    with pytest.raises(ConfigError, match=r"Other is of no family.*StableDiffusionDepth2ImgPipeline.*FluxControlPipeline"):
        VanishingGuidance(POINTS).attach(Other())


def test_a_scheduler_without_a_known_x0_is_refused(pipe):
    kept = pipe.scheduler
    pipe.scheduler = diffusers.KDPM2DiscreteScheduler()
    try:
        with pytest.raises(ConfigError, match="KDPM2DiscreteScheduler"):
            VanishingGuidance(POINTS).attach(pipe)
    finally:
        pipe.scheduler = kept


def test_a_scheduler_replaced_after_attaching_is_noticed(pipe):
    kept = pipe.scheduler
    with VanishingGuidance(POINTS).attached(pipe):
        pipe.scheduler = diffusers.DDIMScheduler()
        with pytest.raises(ConfigError, match="was replaced"):
            sample(pipe, "sd2-depth")
    pipe.scheduler = kept


def test_points_of_another_size_are_refused(pipe):
    depth = np.full((SIZE, 2 * SIZE), 4.0, dtype=np.float32)
    with VanishingGuidance(POINTS, depth=depth, alpha_min=0.0).attached(pipe), pytest.raises(DataError, match="64 x 32 pixels"):
        sample(pipe, "sd2-depth")
    with pytest.raises(DataError, match="camera's"):
        VanishingGuidance(depth=depth, camera=CAMERA)
    with VanishingGuidance([POINTS] * 3, alpha_min=0.0).attached(pipe), pytest.raises(DataError, match="3 prompts, but 1"):
        sample(pipe, "sd2-depth")


def test_nothing_to_be_guided_by_is_refused():
    with pytest.raises(ConfigError, match="give vanishing_points"):
        VanishingGuidance()
    with pytest.raises(DataError, match="no vanishing points"):
        VanishingGuidance(depth=np.zeros((SIZE, SIZE), dtype=np.float32), camera=CAMERA)
    with pytest.raises(DataError, match="no vanishing points"):
        VanishingGuidance([None, []])


def test_a_depth_map_without_a_surface_along_a_point_does_not_pass_unguided():
    wall, room = np.full((SIZE, SIZE), 4.0, dtype=np.float32), _room()
    with pytest.raises(DataError, match="no surface of the depth map runs along a vanishing point"):
        VanishingGuidance(depth=wall, camera=CAMERA)
    with pytest.warns(UserWarning, match=r"pictures 1 \(counted from 0\) are not guided"):
        VanishingGuidance(depth=[room, wall], camera=CAMERA)
    VanishingGuidance(depth=wall, camera=CAMERA, surfaces=False)


def test_depth_in_another_unit_is_refused():
    with pytest.raises(DataError, match=r"depth: its values are .* no scene in metres: they look like centimetres"):
        VanishingGuidance(depth=300 * _room(), camera=CAMERA)
    sky = np.where(np.arange(SIZE)[:, None] < 20, 655.35, _room()).astype(np.float32)
    VanishingGuidance(depth=sky, camera=CAMERA)


def test_values_that_are_not_finite_are_refused(pipe):
    depth = np.full((SIZE, SIZE), np.nan, dtype=np.float32)
    with pytest.raises(DataError, match="finite"):
        VanishingGuidance(depth=depth, camera=CAMERA)
    with pytest.raises(DataError, match="finite"):
        VanishingGuidance([(np.nan, 1.0, 1.0)])
    broken = copy.deepcopy(pipe.unet)
    broken.conv_out.bias.data[:] = torch.nan
    kept, pipe.unet = pipe.unet, broken
    try:
        with VanishingGuidance(POINTS, alpha_min=0.0).attached(pipe), pytest.raises(DataError, match="answer is not finite"):
            sample(pipe, "sd2-depth")
    finally:
        pipe.unet = kept


def test_a_gradient_that_is_not_finite_is_told_from_an_answer_that_is_not(pipe):
    class Faulty(torch.autograd.Function):
        """The same forwards, and backwards as a broken attention kernel."""

        @staticmethod
        def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
            return values.clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad * torch.nan

    handle = pipe.unet.conv_out.register_forward_hook(lambda module, inputs, output: Faulty.apply(output))
    plain = sample(pipe, "sd2-depth")
    try:
        with VanishingGuidance(POINTS, alpha_min=0.0).attached(pipe), pytest.raises(DataError, match="enable_cudnn_sdp"):
            sample(pipe, "sd2-depth")
    finally:
        handle.remove()
    assert np.array_equal(sample(pipe, "sd2-depth"), plain)


def test_latents_that_are_not_the_vaes_are_refused(flux):
    pipe = diffusers.FluxControlPipeline(**flux.components)
    pipe.vae = build("sd2-depth").vae
    pipe.vae.register_to_config(latent_channels=8)
    with VanishingGuidance(POINTS, alpha_min=0.0).attached(flux):
        sample(flux, "flux-depth")
    guide = VanishingGuidance(POINTS, alpha_min=0.0)
    with guide.attached(flux):
        attachment: Any = guide._attachment
        attachment.codec.vae = pipe.vae
        with pytest.raises(ConfigError, match="8 channels of AutoencoderKL, got 4"):
            sample(flux, "flux-depth")


def test_inference_mode_is_refused_not_silently_unguided(pipe):
    with (
        VanishingGuidance(POINTS, alpha_min=0.0).attached(pipe),
        torch.inference_mode(),
        pytest.raises(ConfigError, match="inference_mode"),
    ):
        sample(pipe, "sd2-depth")


def test_a_denoiser_without_gradients_falls_back_with_a_warning(pipe):
    plain = sample(pipe, "sd2-depth")
    kept = pipe.unet.forward
    pipe.unet.forward = torch.no_grad()(kept)
    try:
        with VanishingGuidance(POINTS, alpha_min=0.0).attached(pipe), pytest.warns(UserWarning, match="carries no gradient"):
            guided = sample(pipe, "sd2-depth")
    finally:
        del pipe.unet.forward
    assert not np.array_equal(plain, guided)


def test_a_controlnet_that_is_offloaded_is_left_out_with_a_warning():
    from accelerate import cpu_offload_with_hook

    pipe = build("sd-controlnet")
    cpu_offload_with_hook(pipe.controlnet, "cpu")
    with pytest.warns(UserWarning, match="no gradients through the ControlNet"):
        plain, guided = _pair(pipe, "sd-controlnet", VanishingGuidance(POINTS, alpha_min=0.0))
    assert abs(plain - guided).mean() > 1e-3


def test_group_offloading_is_guided_through_the_decoder_with_a_warning(flux):
    from diffusers.hooks import apply_group_offloading

    pipe = build("flux-depth")
    apply_group_offloading(pipe.transformer, torch.device("cpu"), torch.device("cpu"), offload_type="leaf_level")
    with pytest.warns(UserWarning, match="group offloading"):
        plain, guided = _pair(pipe, "flux-depth", VanishingGuidance(POINTS, alpha_min=0.0))
    assert abs(plain - guided).mean() > 1e-3


def test_a_depth_map_alone_is_enough(pipe):
    camera, depth = CAMERA, _room()
    plain, guided = _pair(pipe, "sd2-depth", VanishingGuidance(depth=depth, camera=camera, alpha_min=0.0))
    assert abs(plain - guided).mean() > 1e-3
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        guide = VanishingGuidance(depth=depth)
    assert "no camera was given" in str(caught[0].message)
    assert len(guide.scenes.points[0]) >= 2


def _room() -> np.ndarray:
    """Depth of a box of 4 x 3 x 12 metres, seen along it."""
    rays = CAMERA.rays()
    sides = np.stack([2 / np.maximum(abs(rays[..., 0]), 1e-6), 1.5 / np.maximum(abs(rays[..., 1]), 1e-6)])
    return np.minimum(sides.min(axis=0), 12).astype(np.float32)


def test_the_signature_of_step_is_kept(pipe):
    import inspect

    before = inspect.signature(pipe.scheduler.step)
    with VanishingGuidance(POINTS).attached(pipe):
        assert inspect.signature(pipe.scheduler.step) == before  # pipelines look for `eta` and `generator` in it
        assert "eta" in before.parameters


_NO_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")


@pytest.mark.parametrize(
    ("name", "compiler"),
    [
        ("sd2-depth", "aot_eager"),
        ("flux-depth", "aot_eager"),
        pytest.param("flux-depth", "inductor", marks=[_NO_COMPILER, pytest.mark.slow]),
    ],
)
def test_a_compiled_denoiser_is_guided_as_the_same_uncompiled(name, compiler):
    pipe = build(name)
    attribute = family_of(pipe).denoiser
    plain, guided = _pair(pipe, name, VanishingGuidance(POINTS, alpha_min=0.0))
    network = getattr(pipe, attribute)
    torch.compiler.reset()
    setattr(pipe, attribute, torch.compile(network, backend=compiler))
    compiled_plain, compiled = _pair(pipe, name, VanishingGuidance(POINTS, alpha_min=0.0))
    moved = abs(guided - plain).mean()
    assert moved > 1e-3
    assert abs(compiled_plain - plain).mean() < 0.05 * moved
    assert abs(compiled - guided).mean() < 0.1 * moved  # rounding grows where a gradient is nearly zero
    assert not network._forward_pre_hooks
    assert not getattr(pipe, attribute)._forward_pre_hooks


def test_a_denoiser_compiled_in_place_is_guided_uncompiled_and_says_so(pipe):
    plain, guided = _pair(pipe, "sd2-depth", VanishingGuidance(POINTS, alpha_min=0.0))
    pipe.unet.compile(backend="aot_eager")
    compiled = pipe.unet._compiled_call_impl
    try:
        with pytest.warns(UserWarning, match="runs uncompiled"), VanishingGuidance(POINTS, alpha_min=0.0).attached(pipe):
            again = sample(pipe, "sd2-depth")
        assert pipe.unet._compiled_call_impl is compiled
    finally:
        pipe.unet._compiled_call_impl = None
    assert np.array_equal(again, guided)
    assert not np.array_equal(again, plain)


@pytest.mark.parametrize("option", [{"strength": float("inf")}, {"every": float("nan")}, {"every": 1.5}, {"strength": -1}])
def test_options_out_of_their_range_are_refused(option):
    with pytest.raises(ConfigError, match="expected strength >= 0, every >= 1"):
        VanishingGuidance(POINTS, **option)


def test_a_point_that_is_none_is_refused():
    with pytest.raises(DataError, match="no point of the projective plane"):
        VanishingGuidance(np.array([[16.0, 16.0, 1.0], [0.0, 0.0, 0.0]]))
