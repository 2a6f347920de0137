"""The instances of every stage for given params: what each reads, what it writes, with which seed.

dvc.yaml loops over the section `graph` of params.yaml, which is what :func:`derive` gives. What no seed changes has one
instance without a seed; whatever draws from the experiment's seed has one for each of `seeds`.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alberti.errors import ConfigError
from stages.shared.layout import Layout, instance_name, seed_name
from stages.shared.params import BASE_ARM, CONDITION_ARM, KITTI_ARM, ORIGINAL_ARM, DepthTrainParams, Params, first_difference

Instance = dict[str, Any]
SINGLE = "all"
"""The name in `graph` of the instance of a stage that has only one."""
MOST_TESTED_ON = 6
"""As many test sets, with files that group their frames into scenes, as dvc.yaml has places for."""
NOTHING = "stages/__init__.py"
"""Stands in dvc.yaml where an instance has no such dependency: a file that says nothing."""


def derive(params: Params, layout: Layout | None = None) -> dict[str, dict[str, Instance]]:
    """Stage -> name of an instance -> its arm, model, seed and paths, relative to the run's root.

    Args:
        layout: where names in params are looked for that are files and folders here, or else repositories of the model hub;
            None: the current folder.
    """
    layout = layout or Layout()
    return {
        "watch": dict(_watch(params)),
        "prepare": dict(_prepare(params, layout)),
        "annotate": dict(_annotate(params)),
        "base": {SINGLE: _base(params, layout)},
        "finetune": dict(_finetune(params)),
        "generate": dict(_generate(params)),
        "evaluate_images": dict(_evaluate_images(params)),
        "base_depth": dict(_base_depth(params, layout)),
        "finetune_depth": dict(_finetune_depth(params)),
        "evaluate_depth": dict(_evaluate_depth(params)),
    }


def check_graph(params: Params, where: str = "", layout: Layout | None = None) -> None:
    """Refuse params whose section `graph` belongs to other values or files; ConfigError says how to make them anew."""
    own = {
        stage: {name: _without_code(found) for name, found in instances.items()} for stage, instances in params.graph.items()
    }
    if key := first_difference(own, derive(params, layout)):
        raise ConfigError(
            f"{where}graph.{key} does not belong to the other values, or to the files that they name: one of them changed; "
            "`python -m pipeline.profiles --complete params.yaml` computes graph anew"
        )


def _without_code(instance: Instance) -> Instance:
    return {key: value for key, value in instance.items() if key != "code"}


# Which seeds an instance has: those of the experiment, or None alone where all that it draws from is pinned.


def seeds_of_arm(params: Params, arm: str) -> list[int | None]:
    """Of an arm's weights."""
    pinned = arm == BASE_ARM or params.arms[arm].training.seed is not None
    return [None] if pinned else [*params.seeds]


def seeds_of_pictures(params: Params, name: str) -> list[int | None]:
    """Of the pictures of an arm or variant."""
    pinned = params.sampling(name).seed is not None and seeds_of_arm(params, params.weights_of(name)) == [None]
    return [None] if pinned else [*params.seeds]


def seeds_of_depth(params: Params, model: str, arm: str) -> list[int | None]:
    """Of the copy of a depth model that was trained on an arm's or a role's pictures."""
    if arm == ORIGINAL_ARM:
        return [None]
    pinned = recipe_of(params, model).training.seed is not None
    if arm not in (KITTI_ARM, CONDITION_ARM):
        pinned = pinned and seeds_of_pictures(params, arm) == [None]
    return [None] if pinned else [*params.seeds]


def recipe_of(params: Params, model: str) -> DepthTrainParams:
    """How copies of a depth model are fine-tuned."""
    recipe: DepthTrainParams = getattr(params.finetune_depth.train, model)
    return recipe


def _its(seed: int | None, seeds: Sequence[int | None]) -> int | None:
    """The seed of what an instance of ``seed`` reads, which may have no seed."""
    return seed if seed in seeds else None


class _Paths:
    """Paths as dvc.yaml has them."""

    def __init__(self) -> None:
        self.layout = Layout()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.layout, name)
        return (lambda *args: value(*args).as_posix()) if callable(value) else value.as_posix()


_at = _Paths()


def _path(name: str | None) -> str | None:
    """A param that can only be a path, as dvc.yaml has it."""
    return None if name is None else Path(os.path.normpath(os.path.expanduser(name))).as_posix()


def _watch(params: Params) -> Iterator[tuple[str, Instance]]:
    for role in params.watch:
        yield role, {"out": f"{_at.fingerprint(role)}/files.json"}


def _prepare(params: Params, layout: Layout) -> Iterator[tuple[str, Instance]]:
    for role, section in params.prepare.roles().items():
        watched = f"{_at.fingerprint(role)}/files.json" if role in params.watch else NOTHING
        models = [config.model for config in (section.captions, section.estimate_depth) if config is not None]
        named = [layout.local(name) for name in models]
        named += [_path(str(path)) for path in section.files(Layout()).values()]
        yield role, {"watched": watched, "out": _at.data(role), "files": [path for path in named if path is not None]}


def _annotate(params: Params) -> Iterator[tuple[str, Instance]]:
    for role in params.annotate.roles:
        yield role, {
            "pictures": _at.data(role), "out": _at.annotations(role), "metrics": _at.metrics("annotate", f"{role}.json")
        }  # fmt: skip


def _base(params: Params, layout: Layout) -> Instance:
    section = params.base
    trained_on = section.source == "train" and section.scenes is None
    named = {"pretrained": "pretrained/base", "path": section.path, "train": section.start, "hub": section.id}[section.source]
    found = layout.local(named) if section.source == "hub" else _path(named)
    return {"model": found or NOTHING, "pictures": _at.data("train") if trained_on else NOTHING}


def _points(params: Params, role: str, kind: str) -> str:
    return _at.annotations(role) if kind == "detected" else _at.data(role)


def _points_of_pictures(params: Params, name: str) -> str:
    """Where guidance finds its points: annotated ones are a dependency of their own."""
    section = params.sampling(name)
    detected = section.vanishing_guidance is not None and section.vanishing_points == "detected"
    return _at.annotations("condition") if detected else _at.data("condition")


def _finetune(params: Params) -> Iterator[tuple[str, Instance]]:
    for arm, settings in params.arms.items():
        for seed in seeds_of_arm(params, arm):
            name = instance_name(arm, seed=seed)
            yield name, {
                "arm": arm, "seed": seed, "points": _points(params, "train", settings.vanishing_points or "dataset"),
                "out": _at.finetuned(arm, seed), **_training("finetune", arm, seed),
            }  # fmt: skip


def _training(stage: str, name: str, seed: int | None) -> Instance:
    """Metrics and plots of a training."""
    own = seed_name(seed)
    return {"metrics": _at.metrics(stage, name, f"{own}.json"), "plots": _at.plots(stage, name, own)}


def _generate(params: Params) -> Iterator[tuple[str, Instance]]:
    for name in params.picture_arms:
        weights = params.weights_of(name)
        sampling = f"variants.{name}.generate" if name in params.variants else "generate"
        for seed in seeds_of_pictures(params, name):
            folder = _at.base if weights == BASE_ARM else _at.finetuned(weights, _its(seed, seeds_of_arm(params, weights)))
            yield instance_name(name, seed=seed), {
                "arm": name, "seed": seed, "sampling": sampling, "points": _points_of_pictures(params, name),
                "weights": folder, "out": _at.generated(name, seed),
            }  # fmt: skip


def _evaluate_images(params: Params) -> Iterator[tuple[str, Instance]]:
    for name in params.picture_arms:
        for seed in seeds_of_pictures(params, name):
            yield instance_name(name, seed=seed), {
                "arm": name, "seed": seed, "pictures": _at.generated(name, seed),
                "metrics": _at.metrics("images", name, f"{seed_name(seed)}.json"),
                "rows": _at.metrics("images", name, f"{seed_name(seed)}.csv"),
            }  # fmt: skip


def _base_depth(params: Params, layout: Layout) -> Iterator[tuple[str, Instance]]:
    for model in params.finetune_depth.models:
        start = getattr(params.base_depth, model)
        pictures = _at.data("train") if start.train is not None else NOTHING
        backbone = None if start.backbone_weights in ("none", "timm", "package") else _path(start.backbone_weights)
        yield model, {
            "model": model, "weights": layout.local(start.weights) or NOTHING, "backbone": backbone or NOTHING,
            "pictures": pictures,
            "out": _at.depth_model(model, ORIGINAL_ARM, None),
            "metrics": _at.metrics("base_depth", f"{model}.json"), "plots": _at.plots("base_depth", model),
        }  # fmt: skip


def _finetune_depth(params: Params) -> Iterator[tuple[str, Instance]]:
    for model in params.finetune_depth.models:
        for arm in (*params.finetune_depth.references, *params.finetune_depth.arms):
            for seed in seeds_of_depth(params, model, arm):
                yield instance_name(model, arm, seed=seed), {
                    "model": model, "arm": arm, "seed": seed, "original": _at.depth_model(model, ORIGINAL_ARM, None),
                    **_depth_pictures(params, model, arm, seed), "out": _at.depth_model(model, arm, seed),
                    **_training("finetune_depth", f"{model}-{arm}", seed),
                }  # fmt: skip


def _depth_pictures(params: Params, model: str, arm: str, seed: int | None) -> Instance:
    """The pictures that train a depth model, whose depth maps they have, and pictures that are mixed in."""
    if arm in (KITTI_ARM, CONDITION_ARM):
        pictures = depth = _at.data(arm)
    else:
        pictures, depth = _at.generated(arm, _its(seed, seeds_of_pictures(params, arm))), _at.data("condition")
    mixed = recipe_of(params, model).mix_ratio > 0 and arm != KITTI_ARM
    return {"pictures": pictures, "depth": depth, "mix": _at.data(KITTI_ARM) if mixed else NOTHING}


def _evaluate_depth(params: Params) -> Iterator[tuple[str, Instance]]:
    section = params.evaluate_depth
    read = [_at.data(role) for role in section.test_sets]
    read += dict.fromkeys(_path(test.scenes) for test in section.test_sets.values() if test.scenes not in ("auto", "frame"))
    if len(read) > MOST_TESTED_ON:
        raise ConfigError(f"evaluate_depth.test_sets: {len(read)} test sets and files of scenes; at most {MOST_TESTED_ON}")
    read += [NOTHING] * (MOST_TESTED_ON - len(read))
    for model in params.finetune_depth.models:
        tests = {
            role: {**test.model_dump(mode="json"), "alignment": test.alignment[model]}
            for role, test in section.test_sets.items()
        }
        for arm in section.arms:
            for seed in seeds_of_depth(params, model, arm):
                yield instance_name(model, arm, seed=seed), {
                    "model": model, "arm": arm, "seed": seed, "weights": _at.depth_model(model, arm, seed),
                    "tests": tests, "data": read, "out": _at.metrics("depth", model, arm, seed_name(seed)),
                }  # fmt: skip
