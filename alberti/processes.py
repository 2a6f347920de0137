"""The processes of a run that ``torchrun`` or ``accelerate launch`` started; started by hand, a run has one."""

import os
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from alberti.device import choose_device
from alberti.extras import extra

if TYPE_CHECKING:
    from accelerate import PartialState
    from torch import nn

# Others wait while the main process validates, draws pictures or writes a large model.
_PATIENCE = timedelta(hours=6)
_SEVERAL = "training in several processes"


def is_launched() -> bool:
    """Whether a launcher started several processes. ``RANK`` and ``WORLD_SIZE`` alone do not say so: set by hand, they deal out
    the pictures of a generation among jobs that never talk to each other.
    """
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """Place of this process among all, over all machines."""
    return int(os.environ.get("RANK", "0")) if is_launched() else 0


def is_main() -> bool:
    """Whether this is the process that writes; true where there is one only."""
    return rank() == 0


def join(cpu: bool = False) -> None:
    """Make the launched processes a group that trains as one, whose members wait hours for each other where need be.

    On CPUs if ``cpu`` or ``ACCELERATE_USE_CPU=true`` says so, or where there is no GPU. Called again, or alone: nothing.
    """
    if is_launched() and not _grouped():
        # Accelerate, not told so, takes processes without a GPU for so many runs of one process.
        _state(cpu=cpu or choose_device().type == "cpu", timeout=_PATIENCE)


def wait_for_all() -> None:
    """Wait until every process of the group is here; alone: nothing."""
    if _grouped():
        _state().wait_for_everyone()


def leave() -> None:
    """Wait for all, then end the group."""
    if _grouped():
        import torch.distributed

        wait_for_all()
        torch.distributed.destroy_process_group()


def share(model: "nn.Module") -> None:
    """Give the model of every process the main one's weights and buffers, in place."""
    if _grouped():
        with extra("diffusion", _SEVERAL):
            from accelerate.utils import broadcast

        device = _state().device
        state = {name: value.to(device) for name, value in model.state_dict().items()}
        model.load_state_dict(broadcast(state))


def _state(**how: Any) -> "PartialState":
    """Accelerate's state of the processes."""
    with extra("diffusion", _SEVERAL):
        from accelerate import PartialState

    return PartialState(**how)


def _grouped() -> bool:
    if "torch" not in sys.modules:  # light stages never load it
        return False
    import torch.distributed

    return torch.distributed.is_available() and torch.distributed.is_initialized()


def visible_gpus() -> list[str]:
    """The GPUs that stages may use, as CUDA_VISIBLE_DEVICES names them; empty without any. Does not import torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(index) for index, line in enumerate(done.stdout.splitlines()) if line.startswith("GPU ")]
