"""The paper profile's params, changed only where a rehearsal must differ: fewer steps, data and weights in a folder."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alberti.errors import ConfigError
from pipeline.profiles import compose
from pipeline.rehearsal.sizes import Size
from pipeline.rehearsal.weights import BLIP, DPT, PIXELFORMER, SD2_DEPTH

DATA, WEIGHTS = "datasets", "weights"
"""Folders of a rehearsal."""
_STEPS = 2
# At the profile's rates random weights may predict one depth everywhere after two steps, and no scale can be fitted to that.
_SHORT = {
    "training": {"steps": _STEPS, "lr": 1e-6, "lr_final": 0.0, "warmup_steps": 1, "checkpoint_every": 0, "log_every": 1},
    "validation_images": 2,
}
_CHANGES: dict[str, Any] = {
    "annotate": {"workers": 4},
    "finetune": {"training": {"steps": _STEPS, "checkpoint_every": 0, "log_every": 1}},
    # One arm writes a checkpoint of the whole training state, as long runs do.
    "arms": {"constrained": {"training": {"checkpoint_every": _STEPS}}},
    "generate": {"steps": 3},
    "finetune_depth": {"train": {"dpt": _SHORT, "pixelformer": _SHORT}},
}


def rehearsal_params(
    project: Path, folder: Path, size: Size, arms: Sequence[str] | None = None, *, small_batches: bool = False
) -> dict[str, Any]:
    """The profile `paper` for a rehearsal of ``size`` in ``folder``, with these ``arms`` beside the base only; None: all.

    Args:
        small_batches: train the depth models with two pictures a step, in float32.

    Raises:
        ConfigError: the profile has no such arm.
    """
    overrides = [*_overrides(_CHANGES), *_overrides(size.changes), *_places(folder)]
    if small_batches:
        recipe = {"training": {"batch_size": 2, "precision": "'no'"}, "workers": 0}
        overrides += _overrides({"finetune_depth": {"train": {"dpt": recipe, "pixelformer": recipe}}})
    if size.fit is not None:
        overrides += [f"prepare.condition.fit.width={size.fit[0]}", f"prepare.condition.fit.height={size.fit[1]}"]
    values = compose(project, "paper", overrides)
    if arms is None:
        return values
    known = [*values["arms"], *values["variants"]]
    if unknown := sorted(set(arms) - set(known)):
        raise ConfigError(f"--arms {unknown[0]}: no such arm; there are {', '.join(known)}")
    return compose(project, "paper", [*overrides, *_without(values, set(known) - set(arms))])


def _overrides(changes: Mapping[str, Any], key: str = "") -> Iterator[str]:
    for name, value in changes.items():
        inner = f"{key}.{name}" if key else name
        if isinstance(value, Mapping):
            yield from _overrides(value, inner)
        else:
            yield f"{inner}={value}"


def _places(folder: Path) -> Iterator[str]:
    """Data and weights of the profile in ``folder`` instead of the project's."""
    data, weights = folder / DATA, folder / WEIGHTS
    lists = {split: folder / "splits" / f"eigen_{split}_files.txt" for split in ("train", "val", "test")}
    yield f"prepare.train.root={data / 'holicity'}"
    yield (
        "prepare.condition.sources=["
        f"{{source:vkitti2,root:{data / 'vkitti2'},limit:null,options:{{variations:[clone],cameras:[0]}}}},"
        f"{{source:synthia_al,root:{data / 'synthia_al'},limit:6378,options:{{splits:[train]}}}}]"
    )
    for role, splits in (("kitti", ("train", "val")), ("test", ("test",))):
        yield f"prepare.{role}.root={data / 'kitti'}"
        yield from (f"prepare.{role}.options.{split}={lists[split]}" for split in splits)
    for role in ("train", "condition"):
        yield f"prepare.{role}.captions.model={weights / BLIP}"
    yield from ("base.source=path", f"base.path={weights / SD2_DEPTH}")
    yield f"base_depth.dpt.weights={weights / DPT}"
    yield f"base_depth.pixelformer.weights={weights / PIXELFORMER}"


def _without(values: Mapping[str, Any], dropped: set[str]) -> Iterator[str]:
    for section in ("arms", "variants"):
        yield from (f"~{section}.{name}" for name in values[section] if name in dropped)
    for section in ("finetune_depth", "evaluate_depth"):
        left = [name for name in values[section]["arms"] if name not in dropped]
        yield f"{section}.arms=[{','.join(left)}]"
