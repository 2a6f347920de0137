"""Fine-tuning a depth-conditioned base, with or without a constraint on the picture that it is heading for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alberti import processes
from alberti.data.manifest import Dataset
from alberti.diffusion.config import FinetuneConfig, SampleConfig
from alberti.diffusion.constrained import ConstraintTerm
from alberti.diffusion.hashing import model_hash
from alberti.diffusion.latents import TrainingCache, training_cache
from alberti.diffusion.lora import add_lora
from alberti.diffusion.model import Denoiser, DepthDiffusion
from alberti.diffusion.objective import by_noise_level, constraint_weight, denoising_loss, predict_x0
from alberti.diffusion.randomness import chance, gaussian, timesteps, to_device
from alberti.diffusion.rollout import Rollout
from alberti.diffusion.sources import DatasetSource
from alberti.errors import ConfigError, DataError
from alberti.files import sha256_json
from alberti.images import write_image
from alberti.training import Batch, LoopConfig, discard_checkpoints, train_loop


@dataclass
class FinetuneResult:
    """``model`` is the base, changed in place, on the CPU; ``history`` a dict a logged step.

    ``counts``: samples, without_vanishing_points, trained_parameters.
    """

    model: DepthDiffusion
    history: list[dict[str, float]]
    counts: dict[str, int]
    _discard: Callable[[], None] = field(repr=False, default=lambda: None)

    def discard_checkpoints(self) -> None:
        """Delete the run's checkpoints, once the model is safely written."""
        self._discard()


def finetune(
    base: DepthDiffusion,
    dataset: Dataset,
    vanishing_points: Mapping[str, Any],
    config: FinetuneConfig,
    *,
    checkpoints: Path | None,
    run_key: dict[str, Any],
    device: str | torch.device | None = None,
    validation: Path | None = None,
) -> FinetuneResult:
    """Fine-tune ``base`` on the pictures of ``dataset``.

    loss = denoising loss + weight * schedule(t) * constraint(decoded x0 estimate). Data order, flips, timesteps and
    noise follow from (seed, sample id, visit) alone, so that all arms of an experiment see the same.

    Args:
        base: changed in place.
        vanishing_points: by sample id, (K, 3) homogeneous pixels of the image as it is in the data set, best first.
            Samples without any take part in the denoising loss only; they are counted.
        checkpoints: resume from, and cache latents in, here; None: neither outlives the call.
        run_key: JSON-able; what else determines the run. Base, data, points and config are part of the key already.
        validation: folder for pictures of the first samples' depth maps every ``config.validate_every`` steps.

    Raises:
        DataError: a constraint, but no image with a vanishing point; pictures of several sizes or without depth.
        ConfigError: sizes that the VAE cannot divide, an unknown constraint, a missing tiny decoder.
        CheckpointError: the base does not predict ``config.prediction_type``.
        NonFiniteLossError: names the step and its samples, and saves both.
    """
    if config.prediction_type is not None:
        base.check_prediction_type(config.prediction_type)
    base.check_size(dataset[0].height, dataset[0].width)
    source = DatasetSource(dataset, dict(vanishing_points), keep=False)
    absent = int((~(source.points != 0).any(axis=(1, 2))).sum())
    if config.constraint is not None and absent == len(dataset):
        raise DataError(
            f"{dataset.folder}: not one of the {absent} images has a vanishing point, so the constraint "
            f"{config.constraint!r} would have nothing to act on; annotate them, or fine-tune with constraint: null"
        )
    where = _device(device)
    base.to(where)
    key = _run_key(base, source, config, run_key)
    cache = training_cache(base, source, checkpoints, where)
    trainable = _choose_parameters(base, config)
    term = ConstraintTerm(base, config, where) if config.constraint is not None and config.weight > 0 else None
    objective = Objective(base, cache, config, term)
    # Only the denoiser is needed from here on; the decoder's copy is the constraint's own.
    base.vae.to("cpu"), base.text_encoder.to("cpu")
    denoiser = _prepare(base.denoiser(), config)
    loop = _loop(config)
    result = train_loop(
        denoiser,
        objective,
        len(cache),
        loop,
        checkpoints=checkpoints,
        run_key=key,
        description=f"fine-tuning ({config.constraint or 'unconstrained'})",
        device=device,
        on_step=_validation(base, dataset, config, validation, where),
    )
    result.load_ema()
    base.to("cpu")
    for module in base.modules().values():
        module.eval()
    return FinetuneResult(
        base,
        result.history,
        {"samples": len(dataset), "without_vanishing_points": absent, "trained_parameters": trainable},
        lambda: discard_checkpoints(checkpoints, key, loop) if checkpoints is not None else None,
    )


class Objective:
    """The loss of one batch: what ``train_loop`` calls."""

    def __init__(self, base: DepthDiffusion, cache: TrainingCache, config: FinetuneConfig, term: ConstraintTerm | None):
        self.schedule, self.cache, self.config, self.term = base.schedule, cache, config, term
        steps = config.rollout_steps
        self.rollout = Rollout(base.schedule, steps, config.rollout_gradient_steps) if steps else None

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        config, schedule, visits = self.config, self.schedule, batch.visits
        device = next(model.parameters()).device
        ids = [self.cache.ids[index] for index in batch.indices]
        flipped = chance(config.seed, "flip", ids, visits, 0.5 if config.flip else 0.0)
        dropped = chance(config.seed, "caption", ids, visits, config.caption_dropout)
        data = self.cache.batch(batch.indices, flipped, dropped, device)
        shape = self.cache.latent_shape
        x0 = data.mean + data.deviation * gaussian(config.seed, "latent", ids, visits, shape, device)
        noise = gaussian(config.seed, "noise", ids, visits, shape, device)
        t = timesteps(config.seed, ids, visits, schedule.num_steps)
        level = schedule.alpha_bar(t)
        on_device = to_device(level, device)
        x_t = schedule.add_noise(x0, noise, on_device)
        prediction = model(x_t, to_device(schedule.model_timesteps(t), device), data.text, data.condition).float()
        target = schedule.target(x0, noise, on_device)
        plain = denoising_loss(prediction, target, on_device, schedule)
        loss = plain
        if config.min_snr_gamma is not None:
            loss = denoising_loss(prediction, target, on_device, schedule, config.min_snr_gamma)
        bins = to_device(t, device)
        logged = {"mse": plain.detach(), **by_noise_level("mse", plain.detach(), bins, schedule.num_steps)}
        if self.term is not None:
            if self.rollout is None:
                estimate = predict_x0(prediction, x_t, on_device, schedule.prediction_type)
            else:
                start = gaussian(config.seed, "rollout", ids, visits, shape, device)
                estimate = self.rollout(model, start, data.text, data.condition)
                t, level = torch.zeros_like(t), torch.ones_like(level)
            weighted, values = self._constraint(self.term, estimate, t, level, batch.indices, flipped)
            loss = loss + weighted
            logged["constraint"] = values
            if self.rollout is None:
                logged |= by_noise_level("constraint", values, bins, schedule.num_steps)
        return loss, logged

    def _constraint(
        self, term: ConstraintTerm, estimate: Tensor, t: Tensor, level: Tensor, indices: list[int], flipped: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(weighted values, plain values with NaN where none was computed), each (B,)."""
        config, device = self.config, estimate.device
        points = self.cache.points(indices, flipped)
        schedule = config.schedule if self.rollout is None else "all"
        weights = config.weight * constraint_weight(schedule, level, t, t_min=config.t_min, t_max=config.t_max)
        # Decided on the CPU, so that no sample is decoded for nothing and the GPU is not waited for.
        chosen = ((points != 0).any(dim=(1, 2)) & (weights > 0)).nonzero().flatten()
        logged = torch.full((len(estimate),), torch.nan, device=device)
        if not len(chosen):
            return torch.zeros(len(estimate), device=device), logged
        images = self.cache.images([indices[index] for index in chosen.tolist()], flipped[chosen], device)
        rows, chosen_points, chosen_level, factor = (
            to_device(value, device) for value in (chosen, points[chosen], level[chosen], weights[chosen])
        )
        values = term(estimate[rows], images, chosen_points, chosen_level)
        weighted = torch.zeros(len(estimate), device=device).index_add(0, rows, factor * values)
        return weighted, logged.index_copy(0, rows, values.detach())


def _run_key(base: DepthDiffusion, source: DatasetSource, config: FinetuneConfig, run_key: dict[str, Any]) -> dict[str, Any]:
    # How memory is saved and how often something is shown or stored do not change the run.
    settings = config.model_dump(
        mode="json", exclude={"checkpoint_every", "validate_every", "validation_samples", "gradient_checkpointing"}
    )
    points = sha256_json(source.points.astype(np.float64).round(6).tolist())
    return {**run_key, "config": settings, "base": model_hash(base), "data": source.fingerprint, "points": points}


def _choose_parameters(base: DepthDiffusion, config: FinetuneConfig) -> int:
    """Freeze what is not trained; returns how many parameters are."""
    for module in base.modules().values():
        module.requires_grad_(False)
    if config.train in ("controlnet", "all") and base.controlnet is None:
        raise ConfigError(f"train: {config.train!r} needs a base with a ControlNet; this one takes depth as an input channel")
    if config.lora_rank:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            add_lora(base.unet, config.lora_rank)
    elif config.train in ("unet", "all"):
        base.unet.requires_grad_(True)
    if config.train in ("controlnet", "all"):
        base.controlnet.requires_grad_(True)
    return sum(value.numel() for value in base.denoiser().parameters() if value.requires_grad)


def _prepare(denoiser: Denoiser, config: FinetuneConfig) -> Denoiser:
    networks: list[Any] = [denoiser.unet, denoiser.controlnet]
    for module in filter(None, networks):
        if config.gradient_checkpointing:
            module.enable_gradient_checkpointing()
        if config.channels_last:
            module.to(memory_format=torch.channels_last)
        if config.compile:
            module.compile()
    return denoiser


def _loop(config: FinetuneConfig) -> LoopConfig:
    return LoopConfig(
        steps=config.steps,
        batch_size=config.batch_size,
        lr=config.lr,
        lr_schedule=config.lr_schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        accumulate=config.accumulate,
        ema_decay=config.ema_decay,
        mixed_precision=config.precision,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        seed=config.seed,
    )


def _device(device: str | torch.device | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    return processes.device()


def _validation(
    base: DepthDiffusion, dataset: Dataset, config: FinetuneConfig, folder: Path | None, device: torch.device
) -> Callable[[int, nn.Module], None] | None:
    """A hook that samples the same depth maps with the same seeds as training goes on: ``<folder>/<step>/<id>.png``."""
    if folder is None or not config.validate_every:
        return None
    from alberti.diffusion.sample import sample_images, to_uint8

    samples = dataset.samples[: config.validation_samples]
    depth = torch.from_numpy(np.stack([dataset.read_depth(sample) for sample in samples]))
    settings = SampleConfig(steps=20, solver="ddim", guidance_scale=3.0, seed=config.seed)

    def draw(step: int, model: nn.Module) -> None:
        if step % config.validate_every and step != config.steps:
            return
        networks: list[Any] = list(base.modules().values())
        modes = [network.training for network in networks]
        base.to(device)
        for network in networks:
            network.eval()
        with torch.random.fork_rng(), torch.autocast(device.type, torch.bfloat16, config.precision == "bf16"):
            pictures = sample_images(
                base, depth, [sample.caption or "" for sample in samples], [sample.id for sample in samples], settings
            )
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)
        for sample, picture in zip(samples, to_uint8(pictures), strict=True):
            write_image(folder / f"{step:06d}" / f"{sample.id}.png", picture)

    return draw
