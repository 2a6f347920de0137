"""The training loop of every model here.

Data order, noise seeds, dropout seeds and learning rate are functions of (seed, optimizer step) alone. So a run that was
interrupted and resumed equals one that was not, and any number of processes works through the same global batches.
"""

import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alberti.checkpoints import Checkpoints
from alberti.device import choose_device
from alberti.errors import AlbertiError, ConfigError
from alberti.extras import extra
from alberti.files import write_json
from alberti.processes import is_launched, is_main, join
from alberti.progress import Progress
from alberti.seeding import derive_seed
from alberti.training.averages import ExponentialMovingAverage, LoggedAverages
from alberti.training.log import current_log
from alberti.training.schedule import Batch, global_batch, lr_at, share_of
from alberti.training.settings import Optimisation
from alberti.training.step_graph import StepGraph, convolution_search

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass
class TrainResult:
    """``model`` is unwrapped, with the last weights; ``ema_state`` the averaged ones where asked for."""

    model: nn.Module
    ema_state: dict[str, Tensor] | None
    history: list[dict[str, float]]

    def load_ema(self) -> nn.Module:
        """The model with the averaged weights, where there are any."""
        if self.ema_state is not None:
            self.model.load_state_dict(self.ema_state, strict=False)
        return self.model


class NonFiniteLossError(AlbertiError):
    """A loss or gradient became NaN or infinite."""


LossFunction = Callable[[nn.Module, Batch], tuple[Tensor, dict[str, Tensor]]]


def train_loop(
    model: nn.Module,
    loss_fn: LossFunction,
    num_samples: int,
    config: Optimisation,
    *,
    checkpoints: Path | None,
    run_key: dict[str, Any],
    description: str,
    device: str | torch.device | None = None,
    on_step: Callable[[int, nn.Module], None] | None = None,
) -> TrainResult:
    """Train ``model`` for ``config.steps`` optimizer steps, resuming from the newest checkpoint of the same run.

    Args:
        model: its parameters with ``requires_grad`` are trained.
        loss_fn: (model, batch) -> per-sample losses (b,) and per-sample values to log; NaN in a logged value means "does not
            apply". Draw noise from (seed, sample id, visit), so that it depends neither on batching nor on the number of
            processes.
        num_samples: size of the data set that ``Batch.indices`` point into.
        checkpoints: where runs keep their checkpoints; None: no resume.
        run_key: JSON-able; what determines the run besides ``config``.
        on_step: called on the main process after a step, with the number of finished steps and the unwrapped model.

    Raises:
        ConfigError: batch_size does not divide by processes x accumulate.
        NonFiniteLossError: loss or gradient is not finite; the batch is written beside the checkpoints.
        CheckpointError: every checkpoint of this run is damaged.
    """
    if num_samples < 1:
        raise ConfigError(f"{description}: nothing to train on")
    store = Checkpoints(checkpoints, {**run_key, "loop": config.key()}, config.keep) if checkpoints else None
    run = _Run(model, loss_fn, num_samples, config, store, _accelerator(device))
    start = run.restore()
    tell = _teller(description, run)
    tell()
    shown = Progress(description, config.steps, "steps", initial=start) if run.is_main else None
    with shown or nullcontext(), convolution_search(True):
        for step in range(start, config.steps):
            run.step(step)
            tell()
            if on_step is not None and run.is_main:
                on_step(step + 1, model)
            if shown is not None:
                shown.advance(note=run.note)
    run.check_pending()
    return TrainResult(model, dict(run.average.shadow) if run.average is not None else None, run.history)


class _Run:
    """One training: model, optimizer and averages, and a step of them."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        num_samples: int,
        config: Optimisation,
        store: Checkpoints | None,
        accelerator: "Accelerator",
    ):
        self.parts = accelerator.num_processes * config.accumulate
        if config.batch_size % self.parts:
            raise ConfigError(
                f"batch_size {config.batch_size} does not divide by {accelerator.num_processes} processes x "
                f"{config.accumulate} micro-batches"
            )
        self.loss_fn, self.num_samples, self.config = loss_fn, num_samples, config
        self.store, self.accelerator, self.is_main = store, accelerator, accelerator.is_main_process
        self.lags = accelerator.device.type == "cuda"
        self.model = model.to(accelerator.device).train()
        self.trainable = [value for value in model.parameters() if value.requires_grad]
        self.captures = self.lags and config.cuda_graph and self.parts == 1
        self.optimizer = torch.optim.AdamW(
            self.trainable,
            lr=self._initial_lr(),
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=self.lags,
            capturable=self.captures,
        )
        self._graph = StepGraph(self._whole_step, accelerator.device) if self.captures else None
        self.average = ExponentialMovingAverage(model, config.ema_decay) if config.ema_decay else None
        self.history: list[dict[str, float]] = []
        self.averages, self.note = LoggedAverages(), ""
        self._pending: tuple[Batch, Tensor] | None = None

    def restore(self) -> int:
        """Load the newest sound checkpoint, if there is one; the number of steps that are done."""
        found = self.store.load_latest() if self.store else None
        if found is not None:
            self._load(found[1])
        self.wrapped = self.accelerator.prepare_model(self.model)
        return found[0] if found is not None else 0

    def _load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["capturable"], group["lr"] = self.captures, self._initial_lr()
        if self.average is not None:
            self.average.load(state["ema"])
        self.history.extend(state["history"])
        device = self.accelerator.device
        self.averages.sums = {name: value.to(device) * self.is_main for name, value in state["averages"].items()}

    def step(self, step: int) -> None:
        """One optimizer step, its log line and its checkpoint where they are due."""
        config, done = self.config, step + 1
        batch = global_batch(config.seed, step, config.batch_size, self.num_samples)
        torch.manual_seed(derive_seed(config.seed, "dropout", step, self.accelerator.process_index))
        self._set_lr(lr_at(step, config))
        previous, self._pending = self._pending, (batch, self._update(batch))
        if previous is not None:
            _check_finite(*previous, self.store, config)
        if done % config.log_every == 0 or done == config.steps:
            self._log(done)
        if config.checkpoint_every and (done % config.checkpoint_every == 0 or done == config.steps):
            self._save(done)

    def _initial_lr(self) -> float | Tensor:
        """A captured step reads its learning rate from the device."""
        return torch.tensor(self.config.lr, device=self.accelerator.device) if self.captures else self.config.lr

    def _set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            if self.captures:
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def _update(self, batch: Batch) -> Tensor:
        """Take the step; a number that is finite if its losses and gradients are."""
        if self._graph is not None:
            return self._graph(self.loss_fn.prepare(batch, self.accelerator.device))  # type: ignore[attr-defined]
        health = self._gradients(batch)
        # On a GPU the check lags a step behind, so that it never waits for the step just launched.
        if not self.lags:
            _check_finite(batch, health, self.store, self.config)
        self._apply()
        return health

    def _whole_step(self, inputs: dict[str, Tensor]) -> Tensor:
        """The device's part of a step from the loss's prepared inputs: what a CUDA graph captures."""
        health = self._clip([self._backward(lambda: self.loss_fn.compute(self.wrapped, inputs))])  # type: ignore[attr-defined]
        self._apply()
        return health

    def _apply(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()

    def _gradients(self, batch: Batch) -> Tensor:
        """Accumulate the gradients of this process's share; a number that is finite if losses and gradients are."""
        config, accelerator = self.config, self.accelerator
        health = []
        for micro in range(config.accumulate):
            share = share_of(batch, accelerator.process_index * config.accumulate + micro, self.parts)
            last = micro == config.accumulate - 1
            with nullcontext() if last else accelerator.no_sync(self.wrapped):
                health.append(self._backward(lambda share=share: self.loss_fn(self.wrapped, share)))  # type: ignore[misc]
        return self._clip(health)

    def _backward(self, loss: Callable[[], tuple[Tensor, dict[str, Tensor]]]) -> Tensor:
        """Add the gradients of one micro-batch and what is logged of it; its mean loss."""
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, self.config.precision == "bf16"):
            losses, values = loss()
        self.accelerator.backward(losses.mean() / self.config.accumulate)
        self.averages.add({"loss": losses, **values})
        return losses.detach().float().mean()

    def _clip(self, health: list[Tensor]) -> Tensor:
        clip = self.config.grad_clip
        norm = nn.utils.clip_grad_norm_(self.trainable, clip if clip > 0 else math.inf)
        return torch.stack([*health, norm.detach().float()]).sum()

    def check_pending(self) -> None:
        """Raise NonFiniteLossError if the last step that was not looked at yet went wrong."""
        if self._pending is not None:
            _check_finite(*self._pending, self.store, self.config)
        self._pending = None

    def _reduce(self, value: Tensor) -> Tensor:
        return self.accelerator.reduce(value, "sum") if self.accelerator.num_processes > 1 else value

    def _log(self, done: int) -> None:
        means = self.averages.flush(self._reduce)
        self.history.append({"step": float(done), "lr": lr_at(done - 1, self.config), **means})
        self.note = f"loss {means.get('loss', math.nan):.4g}"

    def _save(self, done: int) -> None:
        if self.store is None:
            return
        self.check_pending()
        self.averages.gather(self._reduce, self.is_main)
        if self.is_main:
            state = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "ema": self.average.shadow if self.average is not None else None,
                "history": self.history,
                "averages": self.averages.sums,
            }
            self.store.save(done, state)
        self.accelerator.wait_for_everyone()


def _teller(description: str, run: _Run) -> Callable[[], None]:
    """What passes new rows of the history on to :func:`logged_to`'s function."""
    log, told = current_log() if run.is_main else None, 0

    def tell() -> None:
        nonlocal told
        if log is not None and len(run.history) > told:
            log(description, run.history[told:])
            told = len(run.history)

    return tell


def _accelerator(device: str | torch.device | None) -> "Accelerator":
    """An Accelerator for ``device``; in a single process another device than last time is allowed."""
    with extra("diffusion", "the training loop"):
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedDataParallelKwargs

    on_cpu = choose_device(device).type == "cpu"
    join(on_cpu)
    if not is_launched():
        AcceleratorState._reset_state(reset_partial_state=True)
    # Gradients live in the buckets that are sent: a copy less of every one, in memory and in time.
    buckets = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=[buckets])
    if is_launched() and accelerator.num_processes != int(os.environ["WORLD_SIZE"]):
        raise ConfigError(
            f"{os.environ['WORLD_SIZE']} processes were launched, but they do not train as one group: call "
            "alberti.processes.join() before anything else makes use of accelerate"
        )
    return accelerator


def discard_checkpoints(checkpoints: Path, run_key: dict[str, Any], config: Optimisation) -> None:
    """Delete the checkpoints of a finished run, once its result is safely written; only the main process does."""
    if is_main():
        Checkpoints(checkpoints, {**run_key, "loop": config.key()}).discard()


def _check_finite(batch: Batch, health: Tensor, store: Checkpoints | None, config: Optimisation) -> None:
    if bool(torch.isfinite(health)):
        return
    where = ""
    if store is not None:
        path = store.folder / f"not-finite-step-{batch.step}.json"
        write_json(path, {"step": batch.step, "indices": batch.indices, "visits": batch.visits, "seed": config.seed})
        where = f" The batch is written to {path}; rerunning resumes at the checkpoint before it and reproduces the step."
    raise NonFiniteLossError(
        f"the loss or its gradient is not finite at step {batch.step} (samples {batch.indices}, visits {batch.visits})."
        f"{where} Lower lr or the constraint's weight, or look at these samples."
    )
