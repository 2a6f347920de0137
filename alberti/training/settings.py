"""The optimisation settings of every trainer: one type, nested in each trainer's config. Light: torch is not imported here."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["no", "bf16"]
"""Of forward and backward passes: "no" computes in float32, "bf16" under autocast to bfloat16. Weights stay in float32."""


class Optimisation(BaseModel):
    """How one network is trained by :func:`alberti.training.train_loop` (AdamW).

    Every number of steps counts optimizer steps, each of ``batch_size`` samples, whatever the number of processes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(gt=0)
    """Optimizer steps of the whole training."""
    batch_size: int = Field(gt=0)
    """Samples per step, over all processes and micro-batches."""
    accumulate: int = Field(default=1, gt=0)
    """Micro-batches that a step's samples are cut into, each batch_size // accumulate: less memory for the same result."""
    lr: float = Field(gt=0)
    """Learning rate after the warm-up."""
    lr_schedule: Literal["constant", "cosine", "polynomial"] = "constant"
    """From ``lr`` down to ``lr_final`` at the last step; "polynomial" has the power 0.9, "constant" stays at ``lr``."""
    lr_final: float = Field(default=0.0, ge=0)
    """Learning rate at the last step. Not used by `constant`."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises linearly from nothing."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled, as AdamW's: each step shrinks the weights by the learning rate times this share."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW's running averages of the gradient and of its square."""
    grad_clip: float = Field(default=1.0, ge=0)
    """Largest norm of the gradient of all weights together; larger ones are scaled down to it. 0: no limit."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """What a step keeps of the weights' exponential moving average; 0: no average, the last weights are the result."""
    precision: Precision = "no"
    """Of forward and backward passes: `no` computes in float32, `bf16` under autocast to bfloat16. Weights stay in float32."""
    checkpoint_every: int = Field(default=0, ge=0)
    """Steps between checkpoints; 0: none."""
    keep: int = Field(default=2, gt=0)
    """Checkpoints of a run that are kept, the newest ones."""
    log_every: int = Field(default=10, gt=0)
    """Steps between rows of the history, each the means over the steps since the last."""
    cuda_graph: bool = False
    """On a GPU replay whole steps as one CUDA graph: small networks else wait for Python. In one process and without
    accumulation; the loss must be one in two parts, see :class:`alberti.training.step_graph.PreparedLoss`. Elsewhere nothing
    changes.
    """
    seed: int = 0
    """Of data order, noise, augmentation and dropout, and of the first weights of a network that starts from random ones."""

    def key(self) -> dict[str, Any]:
        """What of the settings changes the result, JSON-able; how often to checkpoint and how to launch kernels does not."""
        return self.model_dump(mode="json", exclude={"checkpoint_every", "keep", "cuda_graph"})
