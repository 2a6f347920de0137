"""Fine-tuning of depth models, with the recipes that DPT and PixelFormer were published with."""

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from alberti.data.manifest import Dataset
from alberti.depth.appearance import change_appearance
from alberti.depth.augmentation import apply_tables
from alberti.depth.config import DepthTrainConfig
from alberti.depth.data import Batches, Mixture, spread
from alberti.depth.models import DepthModel
from alberti.depth.samples import DepthSamples
from alberti.errors import ConfigError, DataError
from alberti.files import atomic_folder, read_json, sha256_json, write_json
from alberti.losses.depth import least_squares, relative_depth_losses, silog_loss, valid_pixels
from alberti.processes import share
from alberti.training.loop import TrainResult, discard_checkpoints, train_loop
from alberti.training.schedule import Batch
from alberti.training.step_graph import PreparedLoss, convolution_search
from alberti.weights import read_weights, weights_hash


@dataclass
class DepthTrainResult(TrainResult):
    """``model`` holds the weights with the least validation error, the last ones where nothing was validated.

    ``validation``: a row {"step", "abs_rel"} each time; ``best_step``: whose weights ``model`` has. Call ``discard`` once
    the model is safely written: it deletes the run's checkpoints.
    """

    validation: list[dict[str, float]] = field(default_factory=list)
    best_step: int | None = None
    discard: Callable[[], None] = lambda: None


def train_depth(
    model: DepthModel,
    dataset: Dataset,
    config: DepthTrainConfig,
    *,
    checkpoints: Path | None = None,
    run_key: Mapping[str, Any] | None = None,
    validation: Dataset | None = None,
    mix: Dataset | None = None,
    device: str | torch.device | None = None,
    description: str = "depth",
) -> DepthTrainResult:
    """Train ``model`` on pictures with depth, dense or sparse (0 = no measurement).

    Args:
        dataset: samples with image and depth in metres.
        checkpoints: where interrupted runs resume from; None: no resume.
        run_key: what determines the run besides ``config``, the data sets' fingerprints and the model with its weights.
        validation: chooses the best weights; never the test split.
        mix: a second data set of which ``config.mix_ratio`` of the samples are drawn. To train on one and then on the
            other, call twice.

    Raises:
        DataError: a sample without image or depth, or no depth in the range of ``config``.
    """
    if validation is not None and config.training.ema_decay:
        raise ConfigError("ema_decay: validation chooses among the weights of steps, not among averages; set it to 0")
    key = _run_key(model, dataset, mix, validation, config, run_key)
    mixture = _mixture(dataset, mix, config)
    best = BestWeights(checkpoints / f"best-{sha256_json(key)[:16]}" if checkpoints else None)

    checked = DepthSamples(validation, config.augmentation, config.cache_mb) if validation is not None else None

    def on_step(done: int, current: nn.Module) -> None:
        due = config.validate_every and done % config.validate_every == 0
        if checked is not None and (due or done == config.training.steps):
            assert isinstance(current, DepthModel)
            best.offer(done, validation_error(current, checked, config), current)

    seen_whole = config.training.steps * config.training.batch_size >= len(mixture)
    with Batches(mixture, config.training.seed, config.training.batch_size, config.workers, resident=seen_whole) as batches:
        result = train_loop(
            model,
            DepthLoss(model.kind, batches, config),
            len(mixture),
            config.training,
            checkpoints=checkpoints,
            run_key=key,
            description=description,
            device=device,
            on_step=on_step,
        )
    trained = result.load_ema().eval()
    best.restore(trained)
    share(trained)  # only the main process validates

    def discard() -> None:
        best.discard()
        if checkpoints is not None:
            discard_checkpoints(checkpoints, key, config.training)

    return DepthTrainResult(trained, result.ema_state, result.history, best.rows, best.step, discard)


def _run_key(
    model: DepthModel,
    dataset: Dataset,
    mix: Dataset | None,
    validation: Dataset | None,
    config: DepthTrainConfig,
    run_key: Mapping[str, Any] | None,
) -> dict[str, Any]:
    data = [None if part is None else part.info.fingerprint for part in (dataset, mix, validation)]
    return {
        "depth": config.key(),
        "data": data,
        "model": {**vars(model.info), "weights": weights_hash(model)},
        **(run_key or {}),
    }


def _mixture(dataset: Dataset, mix: Dataset | None, config: DepthTrainConfig) -> Mixture:
    parts = [DepthSamples(part, config.augmentation, config.cache_mb) for part in (dataset, mix) if part is not None]
    for part in parts:
        _check_range(part, config)
    return Mixture(parts[0], parts[1] if len(parts) > 1 else None, config.mix_ratio)


def _check_range(samples: DepthSamples, config: DepthTrainConfig) -> None:
    """Depth in other units than metres would train to nothing without a word: look at a few maps first."""
    found = []
    for index in spread(len(samples), 8):
        depth = samples.view(index).depth
        assert depth is not None
        if ((depth > config.min_depth) & (depth <= config.max_depth)).any():
            return
        found.append(float(depth.max()))
    raise DataError(
        f"{samples.dataset.folder}: no depth within ({config.min_depth:g}, {config.max_depth:g}] m in {len(found)} samples "
        f"looked at (largest value {max(found):g}); is it in metres, and is depth_scale right?"
    )


class Loads(Protocol):
    """What gives the inputs of a step: :class:`alberti.depth.data.Batches`, or streets that are rendered."""

    def load(self, batch: Batch, device: torch.device) -> dict[str, Tensor]: ...


class DepthLoss(PreparedLoss):
    """The loss of a batch in two parts, for a model of ``kind``."""

    def __init__(self, kind: str, batches: Loads, config: DepthTrainConfig):
        self.batches, self.config = batches, config
        self.terms = depth_loss_terms(kind, config)

    def prepare(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """The inputs of :meth:`Batches.load`, whose shapes stay the same."""
        return self.batches.load(batch, device)

    def compute(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses (b,) and values to log; "empty" counts samples without a pixel to learn from."""
        depth = inputs["depth"]
        mask = (depth > self.config.min_depth) & (depth <= self.config.max_depth)
        images = apply_tables(inputs["images"], inputs["colours"])
        if "appearance" in inputs:
            images = change_appearance(images, inputs["appearance"])
        loss, values = self.terms(model(images), depth, mask)
        return loss, {**values, "empty": (valid_pixels(depth, mask) == 0).float()}


def depth_loss_terms(
    kind: str, config: DepthTrainConfig
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]:
    """(prediction, depth in metres, mask), each (B, H, W) -> loss (B,) and its terms to log, for a model of ``kind``."""

    def metric(pred: Tensor, depth: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return silog_loss(pred, depth, mask), {}

    def relative(pred: Tensor, depth: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        inverse = torch.where(mask, 1 / depth.clamp_min(1e-6), 0.0)
        ssi, gradient = relative_depth_losses(pred, inverse, mask, trim=config.trim, alignment=config.alignment)
        return ssi + config.gradient_weight * gradient, {"ssi": ssi, "gradient": gradient}

    return metric if kind == "metric" else relative


@torch.inference_mode()
def validation_error(model: DepthModel, samples: DepthSamples, config: DepthTrainConfig) -> float:
    """Mean over pictures of |pred - depth| / depth; relative models are aligned by least squares in inverse depth first.

    Pictures are whole, at the size of training, without augmentation; at most ``config.validation_images``, evenly spread.
    """
    device, training = model.mean.device, model.training
    errors = []
    model.eval()
    with convolution_search(False):
        for index in spread(len(samples), config.validation_images):
            view = samples.view(index)
            image = torch.from_numpy(view.image).permute(2, 0, 1)[None].float().to(device) / 255
            depth = torch.from_numpy(view.depth)[None].to(device)
            mask = (depth > config.min_depth) & (depth <= config.max_depth)
            if mask.any():
                errors.append(float(_abs_rel(model(image), depth, mask, model.kind, config)))
    model.train(training)
    if not errors:
        raise DataError(
            f"{samples.dataset.folder}: no validation picture has depth within ({config.min_depth:g}, {config.max_depth:g}] m"
        )
    return sum(errors) / len(errors)


def _abs_rel(pred: Tensor, depth: Tensor, mask: Tensor, kind: str, config: DepthTrainConfig) -> Tensor:
    if kind != "metric":
        s, t = least_squares(pred, torch.where(mask, 1 / depth, 0.0), mask)
        pred = 1 / (s * pred + t).clamp(1 / config.max_depth, 1 / max(config.min_depth, 1e-3))
    return ((pred - depth).abs() / depth)[mask].mean()


class BestWeights:
    """The weights with the least error so far, in ``folder`` so that they outlive an interruption, or in memory.

    A resumed run repeats the steps behind its checkpoint and offers them again, which changes nothing.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self.step: int | None = None
        self._error = math.inf
        self._state: dict[str, Tensor] | None = None
        if folder is not None and folder.is_dir():
            self._load(folder)

    def offer(self, step: int, error: float, model: nn.Module) -> None:
        """Note the error of step ``step`` and keep the weights if they are the best yet."""
        self.rows = [row for row in self.rows if row["step"] < step]
        self.rows.append({"step": float(step), "abs_rel": error})
        if error < self._error or self.step is None or self.step == step:
            self.step, self._error = step, error
            self._state = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
        if self.folder is not None and self._state is not None:
            with atomic_folder(self.folder) as folder:
                save_file(self._state, folder / "model.safetensors")
                write_json(folder / "validation.json", {"step": self.step, "abs_rel": self._error, "rows": self.rows})

    def _load(self, folder: Path) -> None:
        values = read_json(folder / "validation.json")
        self.step, self._error, self.rows = values["step"], values["abs_rel"], values["rows"]
        self._state = read_weights(folder / "model.safetensors")

    def restore(self, model: nn.Module) -> None:
        """Put the best weights into ``model``, if any were offered."""
        if self._state is not None:
            model.load_state_dict(self._state)

    def discard(self) -> None:
        """Delete what lies in the folder."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
