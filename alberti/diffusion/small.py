"""The small base: real Stable Diffusion components at sizes that train in minutes."""

from collections.abc import Iterable

import torch

from alberti.diffusion.config import BaseConfig
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.tokenizer import train_tokenizer
from alberti.extras import extra
from alberti.seeding import derive_seed

with extra("diffusion", "alberti's diffusion code"):
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel
    from transformers.models.clip.tokenization_clip import CLIPTokenizer


def build_small_base(config: BaseConfig, captions: Iterable[str]) -> DepthDiffusion:
    """An untrained model with random weights from the seeds of ``config.vae`` and ``config.unet``, and a tokenizer trained on
    ``captions``.
    """
    tokenizer = train_tokenizer(captions, config.vocabulary, config.max_tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.vae.seed, "weights", "vae"))
        vae = _vae(config)
        torch.manual_seed(derive_seed(config.unet.seed, "weights", "unet"))
        unet, text_encoder = _unet(config), _text_encoder(config, tokenizer)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=config.prediction_type,
        clip_sample=False,
        set_alpha_to_one=False,
        # Sampling starts at the noisiest trained step, where "leading" would start some steps below it.
        timestep_spacing="trailing",
    )
    return DepthDiffusion(unet=unet, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler)


def _vae(config: BaseConfig) -> AutoencoderKL:
    levels = len(config.vae_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.vae_channels,
        layers_per_block=config.vae_layers,
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
        sample_size=config.height,
        scaling_factor=1.0,
    )


def _unet(config: BaseConfig) -> UNet2DConditionModel:
    # No attention at the finest level, where it costs most and a convolution sees as much.
    attended = len(config.unet_channels) - 1
    return UNet2DConditionModel(
        sample_size=config.height // 2 ** (len(config.vae_channels) - 1),
        in_channels=config.latent_channels + 1,
        out_channels=config.latent_channels,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * attended),
        up_block_types=(*("CrossAttnUpBlock2D",) * attended, "UpBlock2D"),
        block_out_channels=config.unet_channels,
        layers_per_block=config.unet_layers,
        cross_attention_dim=config.text_width,
        attention_head_dim=tuple(max(1, channels // config.head_dim) for channels in config.unet_channels),
        norm_num_groups=config.groups,
        use_linear_projection=True,
    )


def _text_encoder(config: BaseConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=max(tokenizer.get_vocab().values()) + 1,
            hidden_size=config.text_width,
            intermediate_size=4 * config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=config.text_heads,
            max_position_embeddings=config.max_tokens,
            projection_dim=config.text_width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()
