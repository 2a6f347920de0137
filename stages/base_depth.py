"""Stage base_depth@<model>: the original depth model, before any fine-tuning, in `models/depth/<model>/original/all/`."""

from pathlib import Path

from alberti.data.manifest import Dataset
from alberti.depth.models import SIDECAR, DepthModel, build_depth_model
from alberti.errors import ConfigError
from alberti.processes import is_main
from stages.shared.curves import curves
from stages.shared.depth_training import train, write_model
from stages.shared.graph import Instance
from stages.shared.layout import Layout
from stages.shared.params import ORIGINAL_ARM, DepthStartParams, Params, plain
from stages.shared.provenance import hash_folder
from stages.shared.running import run_stage


def base_depth(layout: Layout, params: Params, instance: Instance) -> None:
    """Take the model's weights from where `base_depth.<model>` says, and train it on `data/train` if it says how."""
    name = instance["model"]
    section: DepthStartParams = getattr(params.base_depth, name)
    if section.train is None and not is_main():
        return
    weights = _weights(section, layout)
    model, inputs, result = _start(name, section, weights), {}, None
    if section.weights is not None and weights is not None and Path(weights).is_dir():
        inputs[section.weights] = hash_folder(weights)
    with curves(layout.root / instance["plots"]):
        if section.train is not None:
            dataset = Dataset.open(layout.data("train"))
            inputs["data/train"] = dataset.info.fingerprint
            config = section.train.model_copy(
                update={"training": section.train.training.model_copy(update={"seed": section.seed})}
            )
            result = train(f"{name}-{ORIGINAL_ARM}", model, config, inputs, layout, dataset=dataset)
            model = result.model  # type: ignore[assignment]
    write_model(layout, instance, model, result, {"base_depth": {name: plain(section)}}, inputs, section.seed)


def _weights(section: DepthStartParams, layout: Layout) -> str | None:
    """A file or folder, where there is one of this name, with its whole path; else a hub id as it is."""
    if section.weights is None:
        return None
    path = layout.named(section.weights)
    return str(path) if path.exists() else section.weights


def _start(name: str, section: DepthStartParams, weights: str | None) -> DepthModel:
    if weights is not None and (Path(weights) / SIDECAR).is_file():
        model = DepthModel.load(weights)
        found = {key: getattr(model.info, key) for key in ("size", "kind", "max_depth", "input_height")}
        asked = {key: getattr(section, key) for key in found if getattr(section, key) is not None}
        if wrong := [f"{key} {found[key]!r}, not {value!r}" for key, value in asked.items() if value != found[key]]:
            raise ConfigError(f"base_depth.{name}: {section.weights} has {'; '.join(wrong)}; say the same, or leave it out")
        return model
    options = section.model_dump(exclude={"train", "size"}) | {"weights": weights}
    return build_depth_model(name, section.size, **options)


if __name__ == "__main__":
    run_stage(base_depth, processes="together")
