"""A small workspace as the stages leave it, and a way to run a stage in it."""

import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from alberti.files import atomic_folder
from pipeline.profiles import with_graph

Stage = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, composed: Callable[[str], dict]) -> Path:
    """params.yaml, every role's data, an untrained base and untrained depth models, all tiny."""
    from alberti.data.manifest import Dataset
    from alberti.data.scenes import SceneConfig, render_dataset
    from alberti.depth.models import build_depth_model
    from alberti.diffusion.small import build_small_base
    from stages.shared.params import check_params

    folder = tmp_path_factory.mktemp("prepared")
    values = composed("smoke")
    short = {"steps": 2, "batch_size": 2, "warmup_steps": 0, "checkpoint_every": 1, "log_every": 1}
    for network in ("vae", "unet"):
        values["base"]["train"][network] |= {"steps": 1, "batch_size": 2, "lr": 1e-3, "ema_decay": 0.0, "checkpoint_every": 1}
    for arm in values["arms"].values():
        arm["training"] |= short
    values["arms"]["constrained"]["num_lines"] = 50
    values["generate"]["steps"] = 2
    values["annotate"]["workers"] = 1
    for model in ("dpt", "pixelformer"):
        values["base_depth"][model]["train"]["training"] |= short
        values["finetune_depth"]["train"][model]["training"] |= short
    for role in values["prepare"]:
        splits = values["prepare"][role]["scenes"]["splits"]
        values["prepare"][role]["scenes"] |= {"splits": dict.fromkeys(splits, 2), "supersample": 1}
    values = with_graph(values)
    params = check_params(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    for role in ("train", "condition"):
        scenes = getattr(params.prepare, role).scenes
        config = SceneConfig(**scenes.model_dump(exclude={"splits", "seed"}))
        with atomic_folder(folder / "data" / role) as out:
            render_dataset(out, name="streets", role=role, count=2, seed=1, config=config)
    captions = [sample.caption or "" for sample in Dataset.open(folder / "data" / "train")]
    assert params.base.train is not None
    build_small_base(params.base.train, captions).save(folder / "models" / "base")
    build_depth_model("pixelformer", "tiny").save(folder / "models" / "depth" / "pixelformer" / "original" / "all")
    return folder


@pytest.fixture
def here(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared workspace, as the working directory."""
    folder = tmp_path / "workspace"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Stage:
    """Run `python -m stages.NAME ARGUMENTS` in this process; returns the exit code and what it wrote to stderr."""

    def run(name: str, *arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [f"stages.{name}", *arguments])
            patch.delitem(sys.modules, f"stages.{name}", raising=False)
            with pytest.raises(SystemExit) as ended:
                runpy.run_module(f"stages.{name}", run_name="__main__")
        return int(ended.value.code or 0), capfd.readouterr().err

    return run
