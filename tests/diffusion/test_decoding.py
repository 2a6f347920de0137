"""The frozen decoder is the VAE's own function, in other operations."""

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import nn
from torch.nn import functional as F

from alberti.diffusion.decoding import ChannelsLastGroupNorm, FrozenDecoder, merged_upsampling


def vae(**changes):
    torch.manual_seed(0)
    settings = {
        "block_out_channels": (16, 16, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "scaling_factor": 0.3,
        **changes,
    }
    return AutoencoderKL(**settings).double().eval()


def value_and_gradient(function, latents):
    leaf = latents.clone().requires_grad_()
    value = function(leaf)
    return value.detach(), torch.autograd.grad((value * torch.linspace(-1, 1, value.numel()).view_as(value)).sum(), leaf)[0]


@pytest.mark.parametrize(
    "changes", [{}, {"use_post_quant_conv": False}, {"mid_block_add_attention": False}, {"scaling_factor": 2.0}]
)
def test_it_decodes_as_the_vae_does(changes):
    original = vae(**changes)
    latents = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    expected = value_and_gradient(lambda z: original.decode(z / original.config.scaling_factor).sample, latents)
    for got, wanted in zip(value_and_gradient(FrozenDecoder(original), latents), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


def test_norms_for_channels_last_are_the_same_norms():
    original = vae()
    latents = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    expected = value_and_gradient(FrozenDecoder(original), latents)
    decoder = FrozenDecoder(original, channels_last_norms=True).to(memory_format=torch.channels_last)
    assert not any(isinstance(module, nn.GroupNorm) for module in decoder.modules())
    for got, wanted in zip(value_and_gradient(decoder, latents), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 8, 5, 7), (3, 8, 11)])
def test_a_channels_last_norm_keeps_the_dtype(shape, dtype):
    norm = nn.GroupNorm(4, 8, dtype=dtype)
    nn.init.normal_(norm.weight)
    activations = (3 * torch.randn(shape) + 5).to(dtype)
    got, wanted = ChannelsLastGroupNorm(norm)(activations), norm(activations)
    assert got.dtype == dtype
    torch.testing.assert_close(
        got, wanted, rtol=2e-2 if dtype == torch.bfloat16 else 1e-4, atol=3e-2 if dtype == torch.bfloat16 else 1e-5
    )


def test_it_leaves_the_vae_alone_and_needs_no_gradients_of_its_weights():
    original = vae()
    before = {name: value.clone() for name, value in original.state_dict().items()}
    decoder = FrozenDecoder(original)
    assert not any(parameter.requires_grad for parameter in decoder.parameters())
    assert not any(isinstance(module, nn.ConvTranspose2d) for module in original.modules())
    assert sum(isinstance(module, nn.ConvTranspose2d) for module in decoder.modules()) == 2  # two doublings of three levels
    assert original.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())


def test_only_heads_too_wide_for_fused_attention_are_taken_apart():
    def processors(**changes):
        return [module.processor for module in FrozenDecoder(vae(**changes)).modules() if isinstance(module, Attention)]

    assert not isinstance(processors()[0], AttnProcessor)
    wide = {"block_out_channels": (8, 8, 512), "norm_num_groups": 8}
    assert isinstance(processors(**wide)[0], AttnProcessor)
    original = vae(**wide)
    latents = torch.randn(1, 4, 3, 4, dtype=torch.float64)
    expected = original.decode(latents / 0.3).sample
    torch.testing.assert_close(FrozenDecoder(original)(latents), expected, rtol=0, atol=1e-6)  # softmax in float32


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 7)])
def test_merged_upsampling(bias, size):
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=bias).double()
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = conv(F.interpolate(image, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(merged_upsampling(conv)(image), expected, rtol=1e-12, atol=1e-12)
