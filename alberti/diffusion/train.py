"""Fine-tuning a depth-conditioned base, with or without a constraint on the picture that it is heading for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alberti.data.manifest import Dataset
from alberti.device import choose_device
from alberti.diffusion.config import FinetuneConfig, SampleConfig
from alberti.diffusion.constrained import ConstraintTerm
from alberti.diffusion.hashing import model_hash
from alberti.diffusion.latents import TrainingCache, training_cache
from alberti.diffusion.lora import add_lora
from alberti.diffusion.model import Denoiser, DepthDiffusion
from alberti.diffusion.objective import by_noise_level, constraint_weight, denoising_loss, predict_x0
from alberti.diffusion.randomness import chance, normal, streams, timesteps
from alberti.diffusion.rollout import Rollout
from alberti.diffusion.sources import DatasetSource
from alberti.errors import ConfigError, DataError
from alberti.files import sha256_json
from alberti.geometry.presence import present
from alberti.images import write_image
from alberti.training.loop import discard_checkpoints, train_loop
from alberti.training.schedule import Batch
from alberti.training.step_graph import PreparedLoss


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
    absent = int((~present(source.points).any(axis=1)).sum())
    if config.constraint is not None and absent == len(dataset):
        raise DataError(
            f"{dataset.folder}: not one of the {absent} images has a vanishing point, so the constraint "
            f"{config.constraint!r} would have nothing to act on; annotate them, or fine-tune with constraint: null"
        )
    where = choose_device(device)
    base.to(where)
    key = _run_key(base, source, config, run_key)
    cache = training_cache(base, source, checkpoints, where)
    trainable = _choose_parameters(base, config)
    settings = config.constrained
    term = ConstraintTerm(base, config, where) if settings is not None and settings.weight > 0 else None
    objective = Objective(base, cache, config, term)
    # Only the denoiser is needed from here on; the decoder's copy is the constraint's own.
    base.vae.to("cpu"), base.text_encoder.to("cpu")
    denoiser = _prepare(base.denoiser(), config)
    result = train_loop(
        denoiser,
        objective,
        len(cache),
        config.training,
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
        lambda: discard_checkpoints(checkpoints, key, config.training) if checkpoints is not None else None,
    )


class Objective(PreparedLoss):
    """The loss of one batch in two parts: what the host decides and reads, and what the device computes."""

    def __init__(self, base: DepthDiffusion, cache: TrainingCache, config: FinetuneConfig, term: ConstraintTerm | None):
        self.schedule, self.cache, self.config, self.term = base.schedule, cache, config, term
        self.rollout = None
        if (settings := config.constrained) is not None and settings.rollout_steps:
            self.rollout = Rollout(base.schedule, settings.rollout_steps, settings.rollout_gradient_steps)

    def prepare(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        config, schedule, visits, seed = self.config, self.schedule, batch.visits, self.config.training.seed
        ids = [self.cache.ids[index] for index in batch.indices]
        flipped = chance(seed, "flip", ids, visits, 0.5 if config.flip else 0.0)
        dropped = chance(seed, "caption", ids, visits, config.caption_dropout)
        t = timesteps(seed, ids, visits, schedule.num_steps)
        inputs = {
            **vars(self.cache.batch(batch.indices, flipped, dropped, device)),
            **{name: streams(seed, name, ids, visits) for name in ("latent", "noise", "rollout")},
            "t": t,
            "model_t": schedule.model_timesteps(t),
            "level": schedule.alpha_bar(t),
        }
        return inputs if self.term is None else inputs | self._constrained(batch.indices, flipped, t, device)

    def _constrained(self, indices: list[int], flipped: Tensor, t: Tensor, device: torch.device) -> dict[str, Tensor]:
        """The samples that the constraint acts on, ``rows`` of the batch, and what it needs of them."""
        settings, points = self.config.constrained, self.cache.points(indices, flipped)
        assert settings is not None
        if self.rollout is None:
            level = self.schedule.alpha_bar(t)
            factor = constraint_weight(settings.schedule, level, t, t_min=settings.t_min, t_max=settings.t_max)
        else:
            level, factor = torch.ones(len(t)), torch.ones(len(t))
        weights = settings.weight * factor * present(points).any(dim=1)
        # Decided on the CPU, so that no sample is decoded for nothing and the GPU is not waited for. A captured step decodes
        # all, for its shapes must not change.
        rows = torch.arange(len(t)) if self.config.training.cuda_graph else (weights > 0).nonzero().flatten()
        images = self.cache.images([indices[row] for row in rows.tolist()], flipped[rows], device)
        return {"rows": rows, "images": images, "points": points[rows], "weights": weights[rows], "clean": level[rows]}

    def compute(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses (B,) and what is logged of them, from the tensors of ``prepare`` on the model's device."""
        config, schedule, level, t = self.config, self.schedule, inputs["level"], inputs["t"]
        shape = self.cache.latent_shape
        x0 = inputs["mean"] + inputs["deviation"] * normal(inputs["latent"], shape)
        noise = normal(inputs["noise"], shape)
        x_t = schedule.add_noise(x0, noise, level)
        prediction = model(x_t, inputs["model_t"], inputs["text"], inputs["condition"]).float()
        target = schedule.target(x0, noise, level)
        plain = denoising_loss(prediction, target, level, schedule)
        loss = plain
        if config.min_snr_gamma is not None:
            loss = denoising_loss(prediction, target, level, schedule, config.min_snr_gamma)
        logged = {"mse": plain.detach(), **by_noise_level("mse", plain.detach(), t, schedule.num_steps)}
        if self.term is None:
            return loss, logged
        if self.rollout is None:
            estimate = predict_x0(prediction, x_t, level, schedule.prediction_type)
        else:
            estimate = self.rollout(model, normal(inputs["rollout"], shape), inputs["text"], inputs["condition"])
        weighted, values = self._constraint(self.term, estimate, inputs)
        logged["constraint"] = values
        if self.rollout is None:
            logged |= by_noise_level("constraint", values, t, schedule.num_steps)
        return loss + weighted, logged

    @staticmethod
    def _constraint(term: ConstraintTerm, estimate: Tensor, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(weighted values, plain values with NaN where the constraint does not act), each (B,)."""
        rows, weights = inputs["rows"], inputs["weights"]
        weighted = torch.zeros(len(estimate), device=estimate.device)
        logged = torch.full_like(weighted, torch.nan)
        if not len(rows):
            return weighted, logged
        values = term(estimate[rows], inputs["images"], inputs["points"], inputs["clean"])
        acting = torch.where(weights > 0, values.detach(), torch.nan)
        return weighted.index_add(0, rows, weights * values), logged.index_copy(0, rows, acting)


def _run_key(base: DepthDiffusion, source: DatasetSource, config: FinetuneConfig, run_key: dict[str, Any]) -> dict[str, Any]:
    points = sha256_json(source.points.astype(np.float64).round(6).tolist())
    return {**run_key, "config": config.key(), "base": model_hash(base), "data": source.fingerprint, "points": points}


def _choose_parameters(base: DepthDiffusion, config: FinetuneConfig) -> int:
    """Freeze what is not trained; returns how many parameters are."""
    for module in base.modules().values():
        module.requires_grad_(False)
    if config.train in ("controlnet", "all") and base.controlnet is None:
        raise ConfigError(f"train: {config.train!r} needs a base with a ControlNet; this one takes depth as an input channel")
    if config.lora_rank:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.training.seed)
            add_lora(base.unet, config.lora_rank, base.lora_targets)
    elif config.train in ("unet", "all"):
        base.unet.requires_grad_(True)
    if config.train in ("controlnet", "all"):
        base.controlnet.requires_grad_(True)
    return sum(value.numel() for value in base.denoiser().parameters() if value.requires_grad)


def _prepare(denoiser: Denoiser, config: FinetuneConfig) -> Denoiser:
    networks: list[Any] = [denoiser.unet, denoiser.controlnet]
    for module in filter(None, networks):
        if config.gradient_checkpointing and getattr(module, "_supports_gradient_checkpointing", False):
            module.enable_gradient_checkpointing()
        if config.channels_last:
            module.to(memory_format=torch.channels_last)
        if config.compile:
            module.compile()
    return denoiser


def _validation(
    base: DepthDiffusion, dataset: Dataset, config: FinetuneConfig, folder: Path | None, device: torch.device
) -> Callable[[int, nn.Module], None] | None:
    """A hook that samples the same depth maps with the same seeds as training goes on: ``<folder>/<step>/<id>.png``."""
    if folder is None or not config.validate_every:
        return None
    from alberti.diffusion.sample import sample_images, to_uint8

    samples = dataset.samples[: config.validation_samples]
    depth = torch.from_numpy(np.stack([dataset.read_condition(sample) for sample in samples]))
    settings = SampleConfig(steps=20, solver="ddim", guidance_scale=3.0, seed=config.training.seed)

    def draw(step: int, model: nn.Module) -> None:
        if step % config.validate_every and step != config.training.steps:
            return
        networks: list[Any] = list(base.modules().values())
        modes = [network.training for network in networks]
        base.to(device)
        for network in networks:
            network.eval()
        with torch.random.fork_rng(), torch.autocast(device.type, torch.bfloat16, config.training.precision == "bf16"):
            pictures = sample_images(
                base, depth, [sample.caption or "" for sample in samples], [sample.id for sample in samples], settings
            )
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)
        for sample, picture in zip(samples, to_uint8(pictures), strict=True):
            write_image(folder / f"{step:06d}" / f"{sample.id}.png", picture)

    return draw
