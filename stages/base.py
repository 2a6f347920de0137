"""Stage base: the diffusion model that every arm starts from, in `models/base/`."""

import shutil
from pathlib import Path

from alberti.data.manifest import Dataset
from alberti.diffusion.base import train_base
from alberti.diffusion.model import DepthDiffusion
from alberti.errors import CheckpointError
from alberti.files import atomic_folder, write_json
from stages.common import CHECKPOINTS, hash_folder, run_stage, write_curves, write_provenance
from stages.params import BaseParams, Params

OUT = Path("models/base")


def base(params: Params, _: str) -> None:
    """Take the base from where `base.source` says, or train it on `data/train`."""
    section = params.base
    curves: dict[str, list[dict[str, float]]] = {"vae": [], "unet": []}
    metrics: dict[str, object] = {"source": section.source}
    inputs: dict[str, str] = {}
    seed = params.seed
    with atomic_folder(OUT) as out:
        if section.source == "train":
            assert section.train is not None
            dataset = Dataset.open("data/train")
            inputs, seed = {"data/train": dataset.info.fingerprint}, section.train.seed
            metrics |= train_base(dataset, out, section.train, checkpoints=CHECKPOINTS / "base")
            curves = metrics.pop("history")  # type: ignore[assignment]
        elif section.source == "hub":
            assert section.id is not None
            DepthDiffusion.load(section.id, revision=section.revision).save(out)
            inputs = {f"{section.id}@{section.revision}": hash_folder(out)}
        else:
            source = _folder(section)
            DepthDiffusion.load(source)  # refuses what is damaged or no depth-conditioned model
            shutil.copytree(source, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.bin", "*.ckpt", ".git*"))
            inputs = {str(source): hash_folder(out)}
        write_provenance(out, {"base": section.model_dump(mode="json")}, inputs, seed)
    for name, rows in curves.items():
        write_curves(f"plots/base/{name}.csv", rows)
    write_json("metrics/base.json", metrics)


def _folder(section: BaseParams) -> Path:
    folder = Path("pretrained/base") if section.source == "pretrained" else Path(section.path or "")
    if not (folder / "model_index.json").is_file():
        raise CheckpointError(
            f"{folder}: expected a diffusers model folder with model_index.json, as base.source is {section.source!r}; "
            "name another folder in base.path, or train a base with base.source: train"
        )
    return folder


if __name__ == "__main__":
    run_stage(base)
