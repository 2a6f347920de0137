"""Pipelines of every family, of diffusers' own classes and random weights, small enough for a CPU: a second or two a picture.

``PIPELINES`` names a builder a family, ``inputs`` what its call takes for a depth map, so that tests are written once.
"""

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

from alberti.diffusion.depth_estimator import untrained_estimator
from alberti.diffusion.tokenizer import train_tokenizer

SIZE = 32
PROMPT = "a street with brick facades"
_TEXTS = (PROMPT, "a street with plaster facades")
WIDTH = 16
"""Of text embeddings."""


def _clip(projected: bool = False) -> Any:
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    config = transformers.CLIPTextConfig(
        vocab_size=640,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=WIDTH,
        bos_token_id=638,
        eos_token_id=639,
        pad_token_id=639,
    )
    return kind(config).eval()


def _clip_tokenizer() -> Any:
    return train_tokenizer(_TEXTS, 640, 77)


def _t5() -> Any:
    return transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=300, d_model=WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    ).eval()


def _t5_tokenizer() -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -1.0), *((chr(97 + i), -2.0) for i in range(26))]
    return transformers.T5TokenizerFast(vocab=pieces, extra_ids=0)


def _qwen_tokenizer() -> Any:
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = transformers.Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate([*letters, *special])}, merges=[], model_max_length=512
    )
    tokenizer.chat_template = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
    return tokenizer


def _vae(channels: int = 4, **changes: Any) -> Any:
    settings = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": channels,
        "norm_num_groups": 4,
        "sample_size": SIZE,
    }
    return diffusers.AutoencoderKL(**(settings | changes)).eval()


def _shifted_vae(channels: int = 4) -> Any:
    """As SD3, FLUX and Z-Image have it."""
    return _vae(channels, scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False)


def _unet(channels: int = 4, **changes: Any) -> Any:
    settings = {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "sample_size": SIZE // 2,
        "in_channels": channels,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": WIDTH,
        "norm_num_groups": 4,
        "attention_head_dim": 2,
    }
    return diffusers.UNet2DConditionModel(**(settings | changes)).eval()


_XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
    "cross_attention_dim": 2 * WIDTH,
    "use_linear_projection": True,
}


def _awake(module: Any) -> Any:
    """Without the zeros that ControlNets begin with, so that they have an effect and gradients."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if not parameter.any():
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def sd2_depth() -> Any:
    scheduler = diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, prediction_type="v_prediction")
    return diffusers.StableDiffusionDepth2ImgPipeline(
        vae=_vae(),
        text_encoder=_clip(),
        tokenizer=_clip_tokenizer(),
        unet=_unet(5),
        scheduler=scheduler,
        depth_estimator=untrained_estimator(),
        feature_extractor=transformers.DPTImageProcessor(),
    )


def sd_controlnet() -> Any:
    unet = _unet()
    net = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32))
    return diffusers.StableDiffusionControlNetPipeline(
        vae=_vae(),
        text_encoder=_clip(),
        tokenizer=_clip_tokenizer(),
        unet=unet,
        controlnet=_awake(net),
        safety_checker=None,
        scheduler=diffusers.PNDMScheduler(skip_prk_steps=True),
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(kind: Any, net: Callable[[Any], Any]) -> Any:
    unet = _unet(**_XL)
    return kind(
        vae=_vae(),
        text_encoder=_clip(),
        text_encoder_2=_clip(True),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
        unet=unet,
        controlnet=_awake(net(unet)),
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        add_watermarker=False,
    )


def sdxl_controlnet() -> Any:
    return _sdxl(
        diffusers.StableDiffusionXLControlNetPipeline,
        lambda unet: diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32)),
    )


def sdxl_union() -> Any:
    def union(unet: Any) -> Any:
        config = dict(unet.config)
        names = (
            "block_out_channels",
            "layers_per_block",
            "in_channels",
            "down_block_types",
            "cross_attention_dim",
            "norm_num_groups",
            "attention_head_dim",
            "addition_embed_type",
            "addition_time_embed_dim",
            "projection_class_embeddings_input_dim",
            "use_linear_projection",
        )
        return diffusers.ControlNetUnionModel(
            **{name: config[name] for name in names},
            conditioning_embedding_out_channels=(16, 8),
            num_trans_channel=8,
            num_trans_head=2,
            num_proj_channel=8,
        )

    return _sdxl(diffusers.StableDiffusionXLControlNetUnionPipeline, union)


def sd3_controlnet() -> Any:
    settings = {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH * 2,
        "caption_projection_dim": 16,
        "pooled_projection_dim": WIDTH * 2,
        "out_channels": 4,
    }
    return diffusers.StableDiffusion3ControlNetPipeline(
        transformer=diffusers.SD3Transformer2DModel(**settings).eval(),
        controlnet=_awake(diffusers.SD3ControlNetModel(**settings | {"num_layers": 1})),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_shifted_vae(),
        text_encoder=_clip(True),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_clip(True),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=_wide_t5(),
        tokenizer_3=_t5_tokenizer(),
    )


def _wide_t5() -> Any:
    return transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=300, d_model=2 * WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    ).eval()


_FLUX = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": WIDTH,
    "pooled_projection_dim": WIDTH,
    "axes_dims_rope": (4, 4, 8),
    "guidance_embeds": True,
}


def _flux_scheduler() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096
    )


def _flux_parts() -> dict[str, Any]:
    return {
        "vae": _shifted_vae(),
        "text_encoder": _clip(),
        "tokenizer": _clip_tokenizer(),
        "text_encoder_2": _t5(),
        "tokenizer_2": _t5_tokenizer(),
        "scheduler": _flux_scheduler(),
    }


def flux_depth() -> Any:
    transformer = diffusers.FluxTransformer2DModel(**_FLUX | {"in_channels": 32, "out_channels": 16}).eval()
    return diffusers.FluxControlPipeline(**_flux_parts(), transformer=transformer)


def flux_controlnet() -> Any:
    net = diffusers.FluxControlNetModel(**_FLUX)
    return diffusers.FluxControlNetPipeline(
        **_flux_parts(), transformer=diffusers.FluxTransformer2DModel(**_FLUX).eval(), controlnet=_awake(net)
    )


def qwen_image_controlnet() -> Any:
    settings = {
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "axes_dims_rope": (4, 4, 8),
    }
    text = transformers.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": WIDTH,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": 300,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [0],
        },
        vocab_size=300,
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 2.0, 1.0, 0.5],
    ).eval()
    return diffusers.QwenImageControlNetPipeline(
        scheduler=_flux_scheduler(),
        vae=vae,
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(text).eval(),
        tokenizer=_qwen_tokenizer(),
        transformer=diffusers.QwenImageTransformer2DModel(**settings).eval(),
        controlnet=_awake(diffusers.QwenImageControlNetModel(**settings)),
    )


def z_image_controlnet() -> Any:
    shape = {"dim": 32, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2}
    transformer = diffusers.ZImageTransformer2DModel(
        **shape, in_channels=4, n_layers=2, cap_feat_dim=WIDTH, axes_dims=[8, 4, 4], axes_lens=[256, 32, 32]
    )
    net = diffusers.ZImageControlNetModel(
        control_layers_places=[0], control_refiner_layers_places=[0], control_in_dim=4, **shape
    )
    text = transformers.Qwen3Config(
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        vocab_size=300,
    )
    return diffusers.ZImageControlNetPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_shifted_vae(),
        text_encoder=transformers.Qwen3Model(text).eval(),
        tokenizer=_qwen_tokenizer(),
        transformer=_awake(transformer),
        controlnet=_awake(net),
    )


PIPELINES: dict[str, Callable[[], Any]] = {
    "sd2-depth": sd2_depth,
    "sd-controlnet": sd_controlnet,
    "sdxl-controlnet": sdxl_controlnet,
    "sdxl-union": sdxl_union,
    "sd3-controlnet": sd3_controlnet,
    "flux-depth": flux_depth,
    "flux-controlnet": flux_controlnet,
    "qwen-image-controlnet": qwen_image_controlnet,
    "z-image-controlnet": z_image_controlnet,
}


def build(name: str) -> Any:
    """A pipeline of random weights, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = PIPELINES[name]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def inputs(name: str, **changes: Any) -> dict[str, Any]:
    """What a call takes: a ramp as the depth map's picture, three steps, noise of one seed."""
    ramp = np.tile(np.linspace(0, 255, SIZE, dtype=np.uint8)[:, None, None], (1, SIZE, 3))
    picture = Image.fromarray(ramp)
    values: dict[str, Any] = {
        "prompt": PROMPT,
        "num_inference_steps": 3,
        "output_type": "np",
        "generator": torch.Generator().manual_seed(0),
    }
    if name == "sd2-depth":
        values |= {"image": picture, "depth_map": torch.linspace(-1, 1, SIZE).repeat(1, SIZE, 1), "strength": 1.0}
    elif name in ("sd-controlnet", "sdxl-controlnet"):
        values |= {"image": picture}
    elif name == "sdxl-union":
        values |= {"control_image": [picture], "control_mode": [1]}
    else:
        values |= {"control_image": picture, "height": SIZE, "width": SIZE}
    if name.startswith("sd") and name != "sd3-controlnet":
        values |= {"guidance_scale": 3.0}
    if name in ("qwen-image-controlnet", "flux-controlnet"):
        values |= {"true_cfg_scale": 2.0, "negative_prompt": "blurry"}
    if name in ("flux-depth", "flux-controlnet", "sd3-controlnet", "z-image-controlnet"):
        values |= {"max_sequence_length": 32}
    return values | changes


def sample(pipe: Any, name: str, **changes: Any) -> Any:
    """Pictures (B, H, W, 3) in [0, 1]; latents where that is the ``output_type``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # StableDiffusion3ControlNetPipeline draws from it when it encodes the control image
        return pipe(**inputs(name, **changes)).images
