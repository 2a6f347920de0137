"""What every family must do, on tiny random pipelines of diffusers' own classes."""

from typing import Any

import numpy as np
import pytest
import torch
from families.tiny import PIPELINES, SIZE, build, sample

from alberti.families.adapters import family_of
from alberti.guidance import VanishingGuidance

POINTS = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (15.0, 16.0, 1.0)]
every_family = pytest.mark.parametrize("name", PIPELINES)


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Any]:
    """Built once: tests leave them as they were, which is one of the things tested."""
    return {name: build(name) for name in PIPELINES}


def _state(pipe: Any) -> tuple:
    """Everything that a guide touches."""
    networks = family_of(pipe).networks(pipe)
    return (
        dict(pipe.scheduler.__dict__).keys(),
        [len(network._forward_pre_hooks) for network in networks],
        [getattr(network, "is_gradient_checkpointing", False) for network in networks],
        [parameter.requires_grad for network in networks for parameter in network.parameters()],
        [sorted(network.__dict__) for network in networks],
    )


@every_family
def test_the_codec_decodes_as_the_pipeline_does(pipelines, name):
    pipe = pipelines[name]
    codec = family_of(pipe).codec(pipe)
    latents, pictures = (torch.as_tensor(sample(pipe, name, output_type=kind)) for kind in ("latent", "np"))
    side = SIZE // codec.factor // 2
    unpacked = codec.unpack(latents, (side, side))
    assert torch.equal(codec.pack(unpacked), latents)
    for decoded in (codec.decode(unpacked), (codec.decoder()(unpacked) + 1) / 2):
        torch.testing.assert_close(decoded.clamp(0, 1).permute(0, 2, 3, 1), pictures, rtol=0, atol=1e-4)


@every_family
def test_the_codec_encodes_what_its_decoder_takes(pipelines, name):
    codec = family_of(pipelines[name]).codec(pipelines[name])
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean, deviation = codec.encode(images)
        video = codec.vae.__class__.__name__ == "AutoencoderKLQwenImage"
        inputs = images * 2 - 1
        posterior = codec.vae.encode(inputs[:, :, None] if video else inputs).latent_dist
        inner = posterior.mean[:, :, 0] if video else posterior.mean
        expected = codec.vae.decode(posterior.mean).sample
        decoded = codec.decode(mean)
    assert mean.shape == inner.shape == (2, codec.channels, SIZE // codec.factor, SIZE // codec.factor)
    assert (deviation > 0).all()
    torch.testing.assert_close(decoded, ((expected[:, :, 0] if video else expected) + 1) / 2, rtol=0, atol=1e-4)


@every_family
def test_a_guide_of_no_strength_changes_no_bit(pipelines, name):
    pipe = pipelines[name]
    plain, state = sample(pipe, name), _state(pipe)
    with VanishingGuidance(POINTS, strength=0).attached(pipe):
        assert np.array_equal(sample(pipe, name), plain)
    # nor does one that is at work, but in no step's window
    with VanishingGuidance(POINTS, alpha_min=0.9999999).attached(pipe):
        assert np.array_equal(sample(pipe, name), plain)
    assert _state(pipe) == state


@every_family
def test_a_guided_picture_is_another_and_the_pipeline_is_as_before(pipelines, name):
    pipe = pipelines[name]
    plain, state = sample(pipe, name), _state(pipe)
    for options in ({}, {"through": "decoder"}, {"checkpointing": True}):
        with VanishingGuidance(POINTS, alpha_min=0.0, **options).attached(pipe):
            guided = sample(pipe, name)
        assert np.isfinite(guided).all()
        assert abs(guided - plain).mean() > 1e-3
        assert _state(pipe) == state
    assert np.array_equal(sample(pipe, name), plain)


@every_family
def test_several_pictures_a_prompt_are_guided_by_their_prompts_points(pipelines, name):
    pipe = pipelines[name]
    count = {"num_images_per_prompt": 2, "generator": [torch.Generator().manual_seed(seed) for seed in (0, 1)]}
    plain = sample(pipe, name, **count)
    count["generator"] = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    with VanishingGuidance(POINTS, alpha_min=0.0).attached(pipe):
        guided = sample(pipe, name, **count)
    assert guided.shape == plain.shape == (2, SIZE, SIZE, 3)
    assert (abs(guided - plain).mean(axis=(1, 2, 3)) > 1e-3).all()


ONE_STEP = [name for name in PIPELINES if name not in ("sd2-depth", "sd-controlnet")]
"""Whose result after a single step is that step's x0, and that take latents."""


@pytest.mark.parametrize("name", ONE_STEP)
def test_the_gradient_is_that_of_finite_differences_through_the_pipeline(pipelines, name):
    pipe = pipelines[name]
    codec = family_of(pipe).codec(pipe)
    random = torch.Generator().manual_seed(3)
    start = sample(pipe, name, output_type="latent", num_inference_steps=1)
    start = torch.randn(start.shape, generator=random)
    grid = (SIZE // codec.factor // 2,) * 2

    def final(latents: torch.Tensor) -> torch.Tensor:
        return codec.unpack(sample(pipe, name, latents=latents, output_type="latent", num_inference_steps=1), grid)

    # in place of the energy, whose gradient leaves its weights out, a linear function of x0
    slope = torch.randn(final(start).shape, generator=random)
    guide = VanishingGuidance(POINTS, alpha_min=0.0)
    seen: list[torch.Tensor] = []
    with guide.attached(pipe):
        attachment: Any = guide._attachment
        attachment._slope = lambda *args: slope
        original = attachment._gradient
        attachment._gradient = lambda *args: seen.append(original(*args)) or seen[-1]
        final(start.clone())
    gradient = seen[0] * float(getattr(pipe.scheduler, "init_noise_sigma", 1.0))
    for direction in (gradient / gradient.norm(), torch.randn(start.shape, generator=random) / start.numel() ** 0.5):
        ahead, behind = ((slope * final(start + sign * 0.05 * direction)).double().sum().item() for sign in (1, -1))
        assert (ahead - behind) / 0.1 == pytest.approx((gradient * direction).sum().item(), rel=0.01, abs=0.02)
