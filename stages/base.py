"""Stage base: the diffusion model that every arm starts from, in `models/base/`."""

import shutil
from pathlib import Path

import torch

from alberti.data.manifest import Dataset
from alberti.diffusion.base import train_base
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.sources import DatasetSource, SceneSource
from alberti.errors import CheckpointError
from alberti.files import write_json
from alberti.processes import is_main
from stages.common import CHECKPOINTS, device, hash_folder, out_folder, run_stage, write_provenance
from stages.curves import curves
from stages.params import BaseParams, Params
from stages.source_params import SceneParams, in_project

OUT = Path("models/base")


def base(params: Params, _: str) -> None:
    """Take the base from where `base.source` says, or train it on `data/train`."""
    section = params.base
    metrics: dict[str, object] = {"source": section.source}
    if section.source != "train" and not is_main():
        return
    with curves("plots/base", group=str.lower), out_folder(OUT) as out:
        inputs, seed = {}, params.seed
        if section.source == "train":
            assert section.train is not None
            source = _scenes(section.scenes) if section.scenes is not None else DatasetSource(Dataset.open("data/train"))
            inputs, seed = {"pictures": source.fingerprint}, section.train.unet.seed
            metrics |= train_base(source, out, section.train, checkpoints=CHECKPOINTS / "base")
            del metrics["history"]
        else:
            inputs = _take(section, out)
        write_provenance(out, {"base": section.model_dump(mode="json")}, inputs, seed)
    if is_main():
        write_json("metrics/base.json", metrics)


def _scenes(scenes: SceneParams) -> SceneSource:
    source = SceneSource(scenes.count, scenes.seed, scenes.library_config(), fresh=False)
    source.render_all(torch.device(device()))
    return source


def _take(section: BaseParams, out: Path) -> dict[str, str]:
    """Put a base that exists into ``out``; where it came from, and its hash."""
    if section.source == "hub":
        assert section.id is not None
        DepthDiffusion.load(section.id, revision=section.revision).save(out)
        return {f"{section.id}@{section.revision}": hash_folder(out)}
    source = _folder(section)
    model = DepthDiffusion.load(source)  # refuses what is damaged or no depth-conditioned model
    if section.source == "pretrained":
        shutil.copytree(source, out, dirs_exist_ok=True)
    else:
        # written anew: a download may hold further variants of its weights, and class names that are gone
        model.save(out)
    return {str(source): hash_folder(source)}


def _folder(section: BaseParams) -> Path:
    folder = Path("pretrained/base") if section.source == "pretrained" else in_project(section.path or "")
    if not (folder / "model_index.json").is_file():
        raise CheckpointError(
            f"{folder}: expected a diffusers model folder with model_index.json, as base.source is {section.source!r}; "
            "name another folder in base.path, or train a base with base.source: train"
        )
    return folder


if __name__ == "__main__":
    run_stage(base, processes="together")
