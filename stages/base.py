"""Stage base: the diffusion model that every arm starts from, in `models/base/`."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from alberti.device import choose_device
from alberti.errors import CheckpointError
from alberti.files import write_json
from alberti.processes import is_main
from stages.shared.curves import curves
from stages.shared.graph import Instance
from stages.shared.layout import Layout
from stages.shared.params import BaseParams, Params, plain
from stages.shared.provenance import hash_folder, out_folder, write_provenance
from stages.shared.running import run_stage
from stages.shared.source_params import SceneParams

if TYPE_CHECKING:
    from alberti.diffusion.sources import SceneSource


def base(layout: Layout, params: Params, _: Instance) -> None:
    """Take the base from where `base.source` says, or train it on `data/train` or on streets of its own."""
    section = params.base
    metrics: dict[str, object] = {"source": section.source}
    if section.source != "train" and not is_main():
        return
    with curves(layout.plots("base"), group=str.lower), out_folder(layout.base) as out:
        if section.source == "train":
            assert section.train is not None
            inputs, trained = _train(section, layout, out)
            metrics |= trained
        else:
            inputs = _take(section, layout, out)
        seed = section.train.unet.seed if section.train is not None else None
        write_provenance(out, {"base": plain(section)}, inputs, seed, layout.project)
    if is_main():
        write_json(layout.metrics("base.json"), metrics)


def _train(section: BaseParams, layout: Layout, out: Path) -> tuple[dict[str, str], dict[str, object]]:
    """Train a base into ``out``: the fingerprint of its pictures, and the last values logged."""
    from alberti.data.manifest import Dataset
    from alberti.diffusion.base import train_base
    from alberti.diffusion.sources import DatasetSource

    assert section.train is not None
    source = DatasetSource(Dataset.open(layout.data("train"))) if section.scenes is None else _streets(section.scenes)
    further = [_streets(scenes) for scenes in section.further]
    start = None if section.start is None else _model_folder(layout.named(section.start), "base.start names")
    inputs = {"pictures": source.fingerprint}
    inputs |= {
        f"pictures, {scenes.width} x {scenes.height}": part.fingerprint for scenes, part in zip(section.further, further)
    }
    inputs |= {} if start is None else {str(section.start): hash_folder(start)}
    metrics = train_base(source, out, section.train, checkpoints=layout.checkpoints("base"), others=further, start=start)
    del metrics["history"]
    return inputs, metrics


def _streets(scenes: SceneParams) -> "SceneSource":
    """Streets rendered on the training device and kept there."""

    from alberti.diffusion.sources import SceneSource
    from stages.shared.streets import scene_config

    source = SceneSource(scenes.count, scenes.seed, scene_config(scenes), fresh=False)
    source.render_all(choose_device())
    return source


def _take(section: BaseParams, layout: Layout, out: Path) -> dict[str, str]:
    """Put a base that exists into ``out``; where it came from, and its hash."""
    from alberti.diffusion.model import DepthDiffusion

    if section.source == "hub":
        assert section.id is not None
        DepthDiffusion.load(section.id, revision=section.revision).save(out)
        return {f"{section.id}@{section.revision}": hash_folder(out)}
    source = layout.pretrained("base") if section.source == "pretrained" else layout.named(section.path or "")
    _model_folder(source, f"base.source is {section.source!r}, base.path names")
    model = DepthDiffusion.load(source)  # refuses what is damaged or no depth-conditioned model
    if section.source == "pretrained":
        shutil.copytree(source, out, dirs_exist_ok=True)
    else:
        # written anew: a download may hold further variants of its weights, and class names that are gone
        model.save(out)
    return {section.path or "pretrained/base": hash_folder(source)}


def _model_folder(folder: Path, named: str) -> Path:
    """``folder``; CheckpointError where it holds no model."""
    if not (folder / "model_index.json").is_file():
        raise CheckpointError(
            f"{folder}: expected a diffusers model folder with model_index.json: {named} it; "
            "name another folder, or train a base with base.source: train"
        )
    return folder


if __name__ == "__main__":
    run_stage(base, processes="together")
