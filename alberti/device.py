"""The one choice of a device: by name, or the best that this process may use."""

import os
from typing import TYPE_CHECKING

from alberti.errors import ConfigError, first_line

if TYPE_CHECKING:
    import torch

_TRUE = ("1", "true", "yes", "on", "y", "t")


def choose_device(asked: "str | torch.device | None" = None) -> "torch.device":
    """The device that ``asked`` names ("cpu", "cuda", "cuda:1", "mps"); None or "auto": this process's GPU, or the CPU.

    Of the processes that a launcher started on one machine each has a GPU of its own, by ``LOCAL_RANK``, and
    ``ACCELERATE_USE_CPU=true`` keeps them on the CPU, as it does accelerate. Apple's "mps" is never chosen unasked: it has no
    float64, which the perspective loss and the geometry compute in.

    Raises:
        ConfigError: a name of no device, or of one that cannot be used here.
    """
    import torch

    if asked is None or asked == "auto":
        if os.environ.get("ACCELERATE_USE_CPU", "").lower() in _TRUE or not torch.cuda.is_available():
            return torch.device("cpu")
        local = os.environ.get("LOCAL_RANK")
        return torch.device("cuda") if local is None else torch.device("cuda", int(local))
    why = "torch knows no device of this name"  # its own message lists every backend that was ever written
    try:
        device = torch.device(asked)
        why = ""
        torch.empty(0, device=device)
    except Exception as error:  # RuntimeError, AssertionError, NotImplementedError, by backend
        raise ConfigError(
            f"device: {str(asked)!r} cannot be used here ({why or first_line(error)}); expected cpu, cuda, cuda:N, mps or auto"
        ) from None
    return device
