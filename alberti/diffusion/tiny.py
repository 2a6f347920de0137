"""Distilling a tiny decoder (an ``AutoencoderTiny``) for a base that has none."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alberti.data.manifest import Dataset
from alberti.device import choose_device
from alberti.diffusion.config import TinyDecoderConfig
from alberti.diffusion.hashing import model_hash
from alberti.diffusion.image_losses import gradient_difference
from alberti.diffusion.latents import TrainingCache, training_cache
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.objective import predict_x0
from alberti.diffusion.randomness import chance, gaussian, timesteps
from alberti.diffusion.sources import DatasetSource
from alberti.extras import extra
from alberti.seeding import derive_seed
from alberti.training.loop import discard_checkpoints, train_loop
from alberti.training.schedule import Batch

with extra("diffusion", "alberti's diffusion code"):
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny


def build_tiny_decoder(base: DepthDiffusion, config: TinyDecoderConfig) -> AutoencoderTiny:
    """An untrained decoder for ``base``'s scaled latents; its encoder is as small as the class allows and not used."""
    levels = base.factor.bit_length()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.training.seed, "tiny"))
        return AutoencoderTiny(
            latent_channels=base.vae.config.latent_channels,
            encoder_block_out_channels=(8,) * levels,
            num_encoder_blocks=(1,) * levels,
            decoder_block_out_channels=(config.width,) * levels,
            num_decoder_blocks=(*(config.blocks,) * (levels - 1), 1),
        )


def distil_tiny_decoder(
    base: DepthDiffusion,
    dataset: Dataset,
    config: TinyDecoderConfig,
    *,
    checkpoints: Path | None,
    device: str | torch.device | None = None,
    out: str | Path | None = None,
) -> list[dict[str, float]]:
    """Train a decoder to answer as the VAE's does, and set it as ``base.tiny_decoder``; returns the training history.

    Where ``out`` is given, the base is written there with it. Only then do the checkpoints go.

    It learns on what the constraint will show it: latents of ``dataset``, and the base's own one-step estimates of
    them from random noise levels. The loss is L1 plus L1 of image gradients against the full decoder's picture.
    """
    where = choose_device(device)
    base.to(where)
    for module in base.modules().values():
        module.eval().requires_grad_(False)
    base.tiny_decoder = None
    key = {"train": "tiny decoder", "config": config.model_dump(mode="json", exclude={"training"}), "base": model_hash(base)}
    key["data"] = dataset.info.fingerprint
    cache = training_cache(base, DatasetSource(dataset, keep=False), checkpoints, where)
    tiny = build_tiny_decoder(base, config)
    tiny.encoder.requires_grad_(False)
    loss = _Distillation(base, cache, config)
    result = train_loop(
        tiny.decoder, loss, len(cache), config.training,
        checkpoints=checkpoints, run_key=key, description="tiny decoder", device=device,
    )  # fmt: skip
    base.tiny_decoder = tiny.eval().requires_grad_(False)
    base.to("cpu")
    if out is not None:
        base.save(out)
    if checkpoints is not None:
        discard_checkpoints(checkpoints, key, config.training)
    return result.history


class _Distillation:
    def __init__(self, base: DepthDiffusion, cache: TrainingCache, config: TinyDecoderConfig):
        self.base, self.cache, self.config = base, cache, config
        self.denoiser, self.schedule = base.denoiser(), base.schedule

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        latents = self._latents(batch, next(model.parameters()).device)
        with torch.no_grad():
            wanted = self.base.decode(latents).float().clamp(0, 1)
        decoded = (model(latents).float() + 1) / 2
        l1 = (decoded - wanted).abs().mean(dim=(1, 2, 3))
        edges = gradient_difference(decoded, wanted)
        return l1 + self.config.gradient_weight * edges, {"l1": l1, "gradient": edges}

    @torch.no_grad()
    def _latents(self, batch: Batch, device: torch.device) -> Tensor:
        seed, visits = self.config.training.seed, batch.visits
        ids = [self.cache.ids[index] for index in batch.indices]
        draw: dict[str, Any] = {"ids": ids, "visits": visits, "shape": self.cache.latent_shape}
        flipped = chance(seed, "flip", ids, visits, 0.5)
        data = self.cache.batch(batch.indices, flipped, torch.zeros_like(flipped), device)
        x0 = data.mean + data.deviation * gaussian(seed, "latent", **draw, device=device)
        estimated = chance(seed, "estimate", ids, visits, self.config.estimates).to(device)
        t = timesteps(seed, ids, visits, self.schedule.num_steps).to(device)
        level = self.schedule.alpha_bar(t)
        x_t = self.schedule.add_noise(x0, gaussian(seed, "noise", **draw, device=device), level)
        prediction = self.denoiser(x_t, self.schedule.model_timesteps(t), data.text, data.condition).float()
        estimate = predict_x0(prediction, x_t, level, self.schedule.prediction_type)
        return torch.where(estimated.view(-1, 1, 1, 1), estimate, x0)
