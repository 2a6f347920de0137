"""Running averages of a training: of its weights, and of what it logs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class ExponentialMovingAverage:
    """theta_ema <- decay theta_ema + (1 - decay) theta after every step, over the trainable parameters, in float32.

    The update is torch's (``swa_utils``). Its ``AveragedModel`` is not used: that copies the whole model, frozen parts and
    buffers too, starts from the weights behind the first step, and decides by a counter on the host, in no CUDA graph.
    """

    def __init__(self, model: nn.Module, decay: float):
        self._update = get_ema_multi_avg_fn(decay)
        self._parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.shadow = {name: value.detach().float().clone() for name, value in self._parameters.items()}

    def update(self) -> None:
        values = [value.detach().float() for value in self._parameters.values()]
        self._update(list(self.shadow.values()), values, 0)

    def load(self, shadow: dict[str, Tensor]) -> None:
        for name, value in shadow.items():
            self.shadow[name].copy_(value)


class LoggedAverages:
    """Sums of logged per-sample values since the last log line, kept on the device so that nothing waits for them."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            # NaN marks "does not apply to this sample" (a noise-level bin it is not in, say).
            kept = value.detach().float()
            applies = ~torch.isnan(kept)
            pair = torch.stack([torch.where(applies, kept, 0).sum(), applies.sum()])
            # in place, for a captured step adds to the same memory every time
            self.sums[name] = self.sums[name].add_(pair) if name in self.sums else pair

    def gather(self, reduce: Callable[[Tensor], Tensor], is_main: bool) -> None:
        """Move every process's sums to the main process, which writes the checkpoint."""
        for _, value in sorted(self.sums.items()):
            value.copy_(reduce(value.clone()) * is_main)

    def flush(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        names = sorted(self.sums)
        if not names:
            return {}
        table = reduce(torch.stack([self.sums[name] for name in names])).cpu()
        for value in self.sums.values():
            value.zero_()
        return {name: (total / count).item() for name, (total, count) in zip(names, table, strict=True) if count > 0}
