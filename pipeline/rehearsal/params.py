"""The paper profile's params, changed only where a rehearsal must differ: fewer steps, and weights that lie in a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.profiles import compose_plain, merge

from alberti.errors import ConfigError
from pipeline.rehearsal.sizes import Size
from pipeline.rehearsal.weights import BLIP, DPT, PIXELFORMER, SD2_DEPTH

WEIGHTS = Path("datasets/weights")
_STEPS = 2
# At the profile's rates random weights may predict one depth everywhere after two steps, and no scale can be fitted to that.
_SHORT = {
    "training": {"steps": _STEPS, "lr": 1e-6, "lr_final": 0.0, "warmup_steps": 1, "checkpoint_every": 0, "log_every": 1},
    "validation_images": 2,
}
_CHANGES: dict[str, Any] = {
    "annotate": {"workers": 4},
    "base": {"source": "path", "path": f"{WEIGHTS / SD2_DEPTH}"},
    "finetune": {"training": {"steps": _STEPS, "checkpoint_every": 0, "log_every": 1}},
    # One arm writes a checkpoint of the whole training state, as long runs do.
    "arms": {"constrained": {"training": {"checkpoint_every": _STEPS}}},
    "generate": {"steps": 3},
    "base_depth": {"dpt": {"weights": f"{WEIGHTS / DPT}"}, "pixelformer": {"weights": f"{WEIGHTS / PIXELFORMER}"}},
    "finetune_depth": {"train": {"dpt": _SHORT, "pixelformer": _SHORT}},
}


def rehearsal_params(
    conf: Path, size: Size, arms: Sequence[str] | None = None, *, small_batches: bool = False
) -> dict[str, Any]:
    """The profile `paper` of ``conf`` for a rehearsal of ``size``, with these ``arms`` and `base` only; None: all.

    Args:
        small_batches: train the depth models with two pictures a step, in float32.

    Raises:
        ConfigError: the profile has no such arm.
    """
    values = merge(merge(compose_plain(conf, "paper"), _CHANGES), size.changes)
    if small_batches:
        recipe = {"training": {"batch_size": 2, "precision": "no"}, "workers": 0}
        values = merge(values, {"finetune_depth": {"train": {"dpt": recipe, "pixelformer": recipe}}})
    for role, source in values["prepare"].items():
        changed = dict(source)
        if source.get("captions"):
            changed["captions"] = {**source["captions"], "model": f"{WEIGHTS / BLIP}"}
        if source.get("fit") and size.fit is not None:
            changed["fit"] = {**source["fit"], "width": size.fit[0], "height": size.fit[1]}
        values["prepare"][role] = changed
    return values if arms is None else _only(values, arms)


def _only(values: dict[str, Any], arms: Sequence[str]) -> dict[str, Any]:
    if unknown := sorted(set(arms) - set(values["arms"])):
        raise ConfigError(f"--arms {unknown[0]}: no such arm; there are {', '.join(values['arms'])}")
    dropped = set(values["arms"]) - {"base", *arms}
    values["arms"] = {name: arm for name, arm in values["arms"].items() if name not in dropped}
    for section in ("finetune_depth", "evaluate_depth"):
        values[section]["arms"] = [name for name in values[section]["arms"] if name not in dropped]
    return values
