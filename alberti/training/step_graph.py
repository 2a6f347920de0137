"""A whole training step as one CUDA graph.

A small network's step is hundreds of short kernels, and launching them one by one from Python takes longer than running them.
Captured once and replayed, the step costs what its kernels cost.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from alberti.training.schedule import Batch

WARM_UP = 3


class PreparedLoss(ABC):
    """A loss in two parts: what the host decides about a batch, and what the device computes from it.

    Only such a loss can be captured: ``compute`` must launch the same kernels whatever the values, so nothing in it may depend
    on them on the host (no ``.item()``, no shape that varies from step to step).
    """

    @abstractmethod
    def prepare(self, batch: "Batch", device: torch.device) -> dict[str, Tensor]:
        """Tensors of fixed shapes, on the CPU or on ``device``."""

    @abstractmethod
    def compute(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Per-sample losses and values to log, from ``inputs`` on the model's device."""

    def __call__(self, model: nn.Module, batch: "Batch") -> tuple[Tensor, dict[str, Tensor]]:
        """Both parts one after the other: the loss as an ordinary function."""
        device = next(model.parameters()).device
        inputs = self.prepare(batch, device)
        return self.compute(model, {name: to_device(value, device) for name, value in inputs.items()})


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy CPU values to ``device``; to a GPU through pinned memory, so that the copy waits for nothing."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


@contextmanager
def convolution_search(wanted: bool) -> Iterator[None]:
    """With or without cuDNN's search for the fastest convolution: it pays for a training's one shape and costs seconds for
    others. Afterwards it is as it was.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class StepGraph:
    """Runs ``step(inputs)``: the first ``WARM_UP`` times as it is, then captured once and replayed.

    Args:
        step: launches the device's whole work of a training step. Its output, a tensor, is overwritten by the next replay.
        device: a CUDA device.
    """

    def __init__(self, step: Callable[[dict[str, Tensor]], Tensor], device: torch.device):
        self._step, self._device = step, device
        self._inputs: dict[str, Tensor] = {}
        self._output: Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream(device)
        self._calls = 0

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        """``inputs``: of the same names and shapes at every call. Returns a copy of the step's output."""
        self._copy_in(inputs)
        self._calls += 1
        if self._calls <= WARM_UP:
            return self._warm_up()
        if self._graph is None:
            self._capture()
        assert self._graph is not None
        assert self._output is not None
        self._graph.replay()
        return self._output.clone()

    def _copy_in(self, inputs: dict[str, Tensor]) -> None:
        if not self._inputs:
            self._inputs = {name: torch.empty_like(value, device=self._device) for name, value in inputs.items()}
        for name, value in inputs.items():
            value = value.pin_memory() if value.device.type == "cpu" else value
            self._inputs[name].copy_(value, non_blocking=True)

    def _warm_up(self) -> Tensor:
        # On a stream of its own, as capturing asks for: libraries set themselves up before, not inside, the graph.
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            output = self._step(self._inputs)
        current.wait_stream(self._stream)
        return output.clone()

    def _capture(self) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._output = self._step(self._inputs)
