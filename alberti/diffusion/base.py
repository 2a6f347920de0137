"""Bases: loading and saving model folders, and training a small one from scratch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alberti.data.manifest import Dataset
from alberti.device import choose_device
from alberti.diffusion.config import BaseConfig
from alberti.diffusion.hashing import model_hash
from alberti.diffusion.image_losses import gradient_difference
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.objective import by_noise_level, denoising_loss
from alberti.diffusion.randomness import chance, normal, streams, timesteps
from alberti.diffusion.small import build_small_base
from alberti.diffusion.sources import DatasetSource, SourceBatch, TrainingSource
from alberti.errors import ConfigError
from alberti.progress import Progress
from alberti.training.loop import discard_checkpoints, train_loop
from alberti.training.schedule import Batch
from alberti.training.step_graph import PreparedLoss, to_device

__all__ = ["BaseConfig", "DepthDiffusion", "build_small_base", "train_base"]
_MEASURED = 256
_ENCODED = 128


class VaeTrainer(nn.Module):
    """One pass through encoder, reparameterised sample and decoder."""

    def __init__(self, vae: Any):
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """images (B, 3, H, W) in [-1, 1]; noise as the latents -> reconstruction, KL per sample (B,) a latent value."""
        posterior = self.vae.encode(images).latent_dist
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        latents = mean + noise * (0.5 * log_variance).exp()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(dim=(1, 2, 3))
        return self.vae.decode(latents, return_dict=False)[0], divergence


class UNetTrainer(nn.Module):
    """Denoiser and text encoder, trained together."""

    def __init__(self, model: DepthDiffusion):
        super().__init__()
        self.denoiser, self.text_encoder = model.denoiser(), model.text_encoder

    def forward(self, x_t: Tensor, times: Tensor, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.denoiser(x_t, times, self.text_encoder(tokens)[0], condition)


def train_base(
    dataset: Dataset | TrainingSource,
    out: str | Path,
    config: BaseConfig,
    *,
    checkpoints: Path | None,
    device: str | torch.device | None = None,
    others: Sequence[TrainingSource] = (),
    start: str | Path | None = None,
) -> dict[str, Any]:
    """Train a small base from scratch, first its VAE, then UNet and text encoder, and write the model folder ``out``.

    Args:
        dataset: pictures of ``config.height`` x ``config.width`` with depth and captions, on disk or rendered on the
            fly.
        checkpoints: where an interrupted call resumes from; None: no resume.
        others: pictures of further sizes; every step of the UNet takes an equal share of its batch from each source.
        start: a model folder to go on from. Its autoencoder stays as it is: ``config.vae`` and the sizes of ``config`` are
            not used then.

    Returns:
        {"vae": {"l1", "psnr"}, "unet": {"loss"}, "scaling_factor", "parameters": {...},
        "history": {"vae": [...], "unet": [...]}}.

    Raises:
        ConfigError: the pictures have another size than the config says.
    """
    source = DatasetSource(dataset) if isinstance(dataset, Dataset) else dataset
    if (source.height, source.width) != (config.height, config.width):
        raise ConfigError(
            f"the pictures have {source.width} x {source.height} pixels, but the base is set up for {config.width} x "
            f"{config.height}; set both to the same size"
        )
    model = build_small_base(config, source.captions()) if start is None else DepthDiffusion.load(start)
    key: dict[str, Any] = {"config": config.key(), "data": source.fingerprint}
    if others or start is not None:
        key |= {"others": [other.fingerprint for other in others], "start": None if start is None else model_hash(model)}
    vae_key, unet_key = {"train": "vae", **key}, {"train": "unet", **key}

    vae_history: list[dict[str, float]] = []
    if start is None:
        trainer = _prepare(VaeTrainer(model.vae), config)
        vae_result = train_loop(
            trainer, _VaeLoss(source, config), len(source), config.vae,
            checkpoints=checkpoints, run_key=vae_key, description="VAE", device=device,
        )  # fmt: skip
        vae_result.load_ema()
        vae_history = vae_result.history
    model.vae.eval().requires_grad_(False)
    if start is not None:
        model.vae.to(choose_device(device))
    quality = _measure_vae(model, source, rescale=start is None)

    sources = [source, *others]
    encoded = [(_Encoded if part.fresh else _EncodedOnce)(part, model, config) for part in sources]
    unet_trainer = _prepare(UNetTrainer(model), config)
    unet_result = train_loop(
        unet_trainer, _UNetLoss(encoded, config, model), max(len(part) for part in sources), config.unet,
        checkpoints=checkpoints, run_key=unet_key, description="UNet", device=device,
    )  # fmt: skip
    unet_result.load_ema()
    for module in model.modules().values():
        module.eval().requires_grad_(True)
    model.to("cpu").save(out)
    if checkpoints is not None:
        if start is None:
            discard_checkpoints(checkpoints, vae_key, config.vae)
        discard_checkpoints(checkpoints, unet_key, config.unet)
    return {
        "vae": quality,
        "unet": {"loss": unet_result.history[-1]["loss"]},
        "scaling_factor": model.vae.config.scaling_factor,
        "parameters": {name: sum(p.numel() for p in module.parameters()) for name, module in model.modules().items()},
        "history": {"vae": vae_history, "unet": unet_result.history},
    }


def _prepare(trainer: nn.Module, config: BaseConfig) -> nn.Module:
    if config.channels_last:
        trainer.to(memory_format=torch.channels_last)
    if config.compile:
        trainer.compile(dynamic=False)  # each of the sources' sizes has kernels of its own
    return trainer


def _load(source: TrainingSource, config: BaseConfig, seed: int, batch: Batch, device: torch.device) -> SourceBatch:
    data = source.batch(batch.indices, batch.visits, device)
    if config.flip:
        flipped = to_device(chance(seed, "flip", data["ids"], batch.visits, 0.5), device)
        data["image"] = torch.where(flipped.view(-1, 1, 1, 1), data["image"].flip(-1), data["image"])
        data["depth"] = torch.where(flipped.view(-1, 1, 1), data["depth"].flip(-1), data["depth"])
    if config.channels_last:
        data["image"] = data["image"].to(memory_format=torch.channels_last)
    return data


class _VaeLoss(PreparedLoss):
    """Reconstruction, image gradients and KL divergence of a batch."""

    def __init__(self, source: TrainingSource, config: BaseConfig):
        self.source, self.config = source, config
        factor = 2 ** (len(config.vae_channels) - 1)
        self.shape = (config.latent_channels, config.height // factor, config.width // factor)

    def prepare(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        seed = self.config.vae.seed
        data = _load(self.source, self.config, seed, batch, device)
        return {"image": data["image"], "noise": streams(seed, "vae", data["ids"], batch.visits)}

    def compute(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        images = inputs["image"] * 2 - 1
        decoded, divergence = model(images, normal(inputs["noise"], self.shape))
        l1 = (decoded.float() - images).abs().mean(dim=(1, 2, 3))
        edges = gradient_difference(decoded.float(), images)
        loss = l1 + config.gradient_weight * edges + config.kl_weight * divergence
        return loss, {"l1": l1, "gradient": edges, "kl": divergence}


class _Encoded:
    """What the UNet is trained on, encoded as it comes: for sources whose pictures are never seen twice."""

    def __init__(self, source: TrainingSource, base: DepthDiffusion, config: BaseConfig):
        self.source, self.base, self.config = source, base, config

    def batch(self, batch: Batch, device: torch.device) -> tuple[list[str], Tensor, Tensor, Tensor, Tensor]:
        """ids, mean and deviation of the latents (B, C, h, w), tokens (B, L), condition (B, 1, h, w)."""
        self.base.vae.to(device)
        data = _load(self.source, self.config, self.config.unet.seed, batch, device)
        mean, deviation = self.base.encode_image(data["image"])
        tokens = self.base.tokenize(data["captions"]).to(device)
        return data["ids"], mean.float(), deviation.float(), tokens, self.base.condition(data["depth"])


class _EncodedOnce(_Encoded):
    """The same for sources that repeat: all pictures and their mirror images are encoded at the start and kept on the device.

    100 KiB a picture of 128 x 128 with 12 latent channels (float16 on a GPU), so that encoder and tokenizer do not run at
    every step.
    """

    def __init__(self, source: TrainingSource, base: DepthDiffusion, config: BaseConfig):
        super().__init__(source, base, config)
        self._ids: list[str] = []
        self._columns: list[Tensor] = []

    def _encode_all(self, device: torch.device) -> None:
        self.base.vae.to(device)
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        columns: list[list[Tensor]] = [[], [], [], []]
        count = len(self.source)
        with Progress("encoding", count, "images") as progress:
            for start in range(0, count, _ENCODED):
                indices = list(range(start, min(start + _ENCODED, count)))
                data = self.source.batch(indices, [0] * len(indices), device)
                self._ids += data["ids"]
                columns[3].append(self.base.tokenize(data["captions"]))
                both = torch.cat([data["image"], data["image"].flip(-1)])
                condition = self.base.condition(data["depth"])
                values = (*self.base.encode_image(both), torch.cat([condition, condition.flip(-1)]))
                for column, value in zip(columns, values, strict=False):
                    column.append(value.to(dtype).unflatten(0, (2, len(indices))))
                progress.advance(len(indices))
        dims = (1, 1, 1, 0)
        self._columns = [torch.cat(column, dim=dim).to(device) for column, dim in zip(columns, dims, strict=True)]

    def batch(self, batch: Batch, device: torch.device) -> tuple[list[str], Tensor, Tensor, Tensor, Tensor]:
        if not self._ids:
            self._encode_all(device)
        ids = [self._ids[index] for index in batch.indices]
        probability = 0.5 if self.config.flip else 0.0
        flipped = to_device(chance(self.config.unet.seed, "flip", ids, batch.visits, probability).long(), device)
        rows = to_device(torch.tensor(batch.indices), device)
        mean, deviation, condition = (self._columns[i][flipped, rows].float() for i in range(3))
        return ids, mean, deviation, self._columns[3][rows], condition


class _UNetLoss(PreparedLoss):
    """The denoising loss of a batch of encoded pictures, an equal share of it from each source."""

    def __init__(self, encoded: Sequence[_Encoded], config: BaseConfig, base: DepthDiffusion):
        self.encoded, self.config, self.schedule = list(encoded), config, base.schedule
        self.no_caption = base.tokenize([""])
        if config.unet.batch_size % (len(self.encoded) * config.unet.accumulate):
            raise ConfigError(f"unet.batch_size: expected a multiple of the {len(self.encoded)} sources")

    def prepare(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        inputs: dict[str, Tensor] = {}
        for place, encoded in enumerate(self.encoded):
            found = self._prepare(encoded, self._share(batch, place, len(encoded.source)), device)
            inputs |= {f"{name}/{place}": value for name, value in found.items()}
        return inputs

    def _share(self, batch: Batch, place: int, count: int) -> Batch:
        """The part of a batch that source ``place`` with ``count`` pictures gives; a smaller source comes round more often."""
        if len(self.encoded) == 1:
            return batch
        each = len(batch.indices) // len(self.encoded)
        mine = slice(place * each, (place + 1) * each)
        longest = max(len(encoded.source) for encoded in self.encoded)
        rounds = -(-longest // count)
        pairs = list(zip(batch.indices[mine], batch.visits[mine], strict=True))
        visits = [visit * rounds + index // count for index, visit in pairs]
        return Batch([index % count for index, _ in pairs], visits, batch.step)

    @torch.no_grad()
    def _prepare(self, encoded: _Encoded, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        seed, schedule = self.config.unet.seed, self.schedule
        ids, mean, deviation, tokens, condition = encoded.batch(batch, device)
        t = timesteps(seed, ids, batch.visits, schedule.num_steps)
        dropped = to_device(chance(seed, "caption", ids, batch.visits, self.config.caption_dropout), device)
        return {
            "mean": mean,
            "deviation": deviation,
            "condition": condition,
            "tokens": torch.where(dropped[:, None], to_device(self.no_caption, device), tokens),
            "latent": streams(seed, "latent", ids, batch.visits),
            "noise": streams(seed, "noise", ids, batch.visits),
            "t": t,
            "model_t": schedule.model_timesteps(t),
            "level": schedule.alpha_bar(t),
        }

    def compute(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        names = {name.rpartition("/")[0] for name in inputs}
        parts = [
            self._compute(model, {name: inputs[f"{name}/{place}"] for name in names}) for place in range(len(self.encoded))
        ]
        values = {name: torch.cat([part[name] for _, part in parts]) for name in parts[0][1]}
        return torch.cat([loss for loss, _ in parts]), values

    def _compute(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        schedule, level, t = self.schedule, inputs["level"], inputs["t"]
        shape = tuple(inputs["mean"].shape[1:])
        x0 = inputs["mean"] + inputs["deviation"] * normal(inputs["latent"], shape)
        noise = normal(inputs["noise"], shape)
        prediction = model(schedule.add_noise(x0, noise, level), inputs["model_t"], inputs["tokens"], inputs["condition"])
        target = schedule.target(x0, noise, level)
        plain = denoising_loss(prediction, target, level, schedule)
        loss = denoising_loss(prediction, target, level, schedule, min_snr_gamma=self.config.min_snr_gamma)
        return loss, {"mse": plain.detach(), **by_noise_level("mse", plain.detach(), t, schedule.num_steps)}


@torch.no_grad()
def _measure_vae(model: DepthDiffusion, source: TrainingSource, *, rescale: bool) -> dict[str, float]:
    """The reconstruction error over the first samples; ``rescale`` sets the latents' scale to 1 / their standard deviation."""
    device = next(model.vae.parameters()).device
    before = model.vae.config.scaling_factor
    model.vae.register_to_config(scaling_factor=1.0)
    squares, count, errors, mse = 0.0, 0, [], []
    for start in range(0, min(len(source), _MEASURED), 16):
        indices = list(range(start, min(start + 16, len(source), _MEASURED)))
        images = source.batch(indices, [0] * len(indices), device)["image"]
        mean, deviation = model.encode_image(images)
        # E[z^2] of a sample is mean^2 + std^2; latents are not centred by diffusers, so neither is their scale.
        squares += float((mean.double().square() + deviation.double().square()).sum())
        count += mean.numel()
        difference = model.decode(mean).clamp(0, 1) - images
        errors.append(difference.abs().mean(dim=(1, 2, 3)))
        mse.append(difference.square().mean(dim=(1, 2, 3)))
    model.vae.register_to_config(scaling_factor=(count / squares) ** 0.5 if rescale else before)
    psnr = -10 * torch.cat(mse).clamp(min=1e-10).log10()
    return {"l1": torch.cat(errors).mean().item(), "psnr": psnr.mean().item()}
