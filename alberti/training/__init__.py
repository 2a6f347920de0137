"""Training of every model here: the loop, what it does at which step, running averages, steps as CUDA graphs.

Names are imported when first used: the loop needs torch.
"""

from typing import TYPE_CHECKING

from alberti.lazy import lazy_names

if TYPE_CHECKING:
    from alberti.training.log import logged_to as logged_to
    from alberti.training.loop import LossFunction as LossFunction
    from alberti.training.loop import NonFiniteLossError as NonFiniteLossError
    from alberti.training.loop import TrainResult as TrainResult
    from alberti.training.loop import discard_checkpoints as discard_checkpoints
    from alberti.training.loop import train_loop as train_loop
    from alberti.training.schedule import Batch as Batch
    from alberti.training.schedule import global_batch as global_batch
    from alberti.training.schedule import lr_at as lr_at
    from alberti.training.settings import Optimisation as Optimisation

_HOMES = {
    "log": ("logged_to",),
    "loop": ("LossFunction", "NonFiniteLossError", "TrainResult", "discard_checkpoints", "train_loop"),
    "schedule": ("Batch", "global_batch", "lr_at"),
    "settings": ("Optimisation",),
}
__getattr__, __all__ = lazy_names(__name__, _HOMES)
