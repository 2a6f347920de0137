"""Profile photos: a folder of photographs, and nothing else, through every stage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from alberti.annotations import read_annotations
from alberti.data.manifest import Dataset
from alberti.data.scenes import SceneConfig, render_dataset
from alberti.depth.models import build_depth_model
from alberti.diffusion.depth_estimator import write_untrained_estimator
from alberti.errors import ConfigError
from pipeline.graph import stage_graph
from pipeline.profiles import compose, dump
from pipeline.rehearsal.sizes import SIZES
from pipeline.rehearsal.weights import write_blip

Stage = Callable[..., tuple[int, str]]
PICTURES = 6
TINY = (
    *(f"prepare.{role}.fit.{side}=64" for role in ("train", "condition") for side in ("width", "height")),
    "prepare.kitti.scenes.splits={train:2,val:1}",
    "prepare.test.scenes.splits={test:2}",
    "finetune.training={steps:2,batch_size:2,checkpoint_every:0,log_every:1}",
    "finetune.num_lines=50",
    "generate.steps=4",
    *(f"finetune_depth.train.{model}.training={{steps:2,batch_size:2,checkpoint_every:0}}" for model in ("dpt", "pixelformer")),
    *(f"finetune_depth.train.{model}.augmentation.crop=[64,64]" for model in ("dpt", "pixelformer")),
    "finetune_depth.arms=[unconstrained,guided]",
    "evaluate_depth.arms=[original,kitti,unconstrained,guided]",
    "evaluate_images.extractor=random_convolutions_256",
)


def photographs(folder: Path) -> Path:
    """Pictures of six streets, as a user's folder has them."""
    streets = folder.parent / "streets"
    streets.mkdir(parents=True)
    config = SceneConfig(width=96, height=80)
    render_dataset(streets, name="streets", role="train", count=PICTURES, seed=3, config=config)
    shutil.move(streets / "images", folder)
    shutil.rmtree(streets)
    return folder


@pytest.fixture
def workspace(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty run beside the shipped models, with a folder of photographs."""
    photographs(tmp_path / "photos")
    shutil.copy(project / "dvc.yaml", tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "pretrained").symlink_to(project / "pretrained")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_params(project: Path, folder: Path, *overrides: str) -> dict:
    roots = [f"prepare.{role}.root=photos" for role in ("train", "condition")]
    values = compose(project, "photos", [*roots, *TINY, *overrides])
    (folder / "params.yaml").write_text(dump(values))
    return values


@pytest.mark.slow
def test_a_folder_of_photographs_goes_through_every_stage(project: Path, workspace: Path, stage: Stage) -> None:
    values = write_params(project, workspace)
    for name, instance in [each.split("@") if "@" in each else (each, "") for each in stage_graph(workspace)]:
        if name == "watch":
            continue
        code, stderr = stage(name, *(("--name", instance) if instance else ()))
        assert code == 0, (name, instance, stderr)
    for role in ("train", "condition"):
        dataset = Dataset.open(workspace / "data" / role, check_files=True)
        assert len(dataset) == PICTURES
        assert dataset.info.depth_kind == "z"
        assert {sample.caption for sample in dataset} == {"a photograph of a city street"}
        assert {(sample.width, sample.height) for sample in dataset} == {(64, 64)}
    rows = {row["id"]: row for row in read_annotations(workspace / "data/annotations/condition/annotations.jsonl")}
    guided = Dataset.open(workspace / "data/generated/guided/0", check_files=True)
    assert {sample.id: len(sample.vanishing_points or []) for sample in guided} == {
        name: len(row["vanishing_points"]) for name, row in rows.items()
    }
    plain = Dataset.open(workspace / "data/generated/unconstrained/0")
    moved = [sample.id for sample in guided if sample.sha256["image"] != plain.by_id(sample.id).sha256["image"]]
    assert moved
    assert set(moved) == {sample.id for sample in guided if sample.vanishing_points}
    assert (workspace / "report/index.html").is_file()
    for model in values["finetune_depth"]["models"]:
        assert json.loads((workspace / f"metrics/depth/{model}/guided/0/test.json").read_text())["n"] == 2


def test_training_pictures_may_have_relative_depth_and_captions_by_blip(project: Path, workspace: Path, stage: Stage) -> None:
    write_blip(workspace / "blip", SIZES["tiny"], "cpu")
    write_untrained_estimator(workspace)
    shutil.copy(workspace / "feature_extractor" / "preprocessor_config.json", workspace / "depth_estimator")
    named = [f"prepare.{role}.estimate_depth.model=depth_estimator" for role in ("train", "condition")]
    write_params(project, workspace, *named, "prepare.train.captions.model=blip")
    for name, instance in (("prepare", "train"), ("annotate", "train")):
        code, stderr = stage(name, "--name", instance)
        assert code == 0, stderr
        assert "note: prepare" not in stderr
    train = Dataset.open(workspace / "data/train", check_files=True)
    assert train.info.depth_kind == "inverse"
    assert all(sample.caption and "city street" not in sample.caption for sample in train)
    for arguments in (("base",), ("finetune", "--name", "constrained")):
        code, stderr = stage(*arguments)
        assert code == 0, stderr
    code, stderr = stage("prepare", "--name", "condition")
    assert code == 0
    assert "prepare.condition.estimate_depth.model" in stderr  # a note: pictures can be generated, depth models not trained
    for arguments in (("generate", "--name", "base"), ("base_depth", "--name", "pixelformer")):
        assert stage(*arguments)[0] == 0
    values = yaml.safe_load((workspace / "params.yaml").read_text())
    values["finetune_depth"]["arms"].append("base")
    (workspace / "params.yaml").write_text(yaml.safe_dump(values))
    code, stderr = stage("finetune_depth", "--name", "pixelformer-base")
    assert code == 1
    assert "prepare.condition.estimate_depth.model" in stderr


def test_what_cannot_be_estimated_is_told_with_the_param(project: Path, workspace: Path, stage: Stage) -> None:
    with pytest.raises(ConfigError, match=r"prepare\.test\.estimate_depth: depth models are tested on measured depth"):
        write_params(
            project, workspace, "prepare.test={source:folder,root:photos,estimate_depth:{model:pretrained/pixelformer}}"
        )
    with pytest.raises(ConfigError, match=r"estimate_depth: not for source 'scenes'"):
        write_params(project, workspace, "prepare.kitti.estimate_depth={model:pretrained/pixelformer}")
    with pytest.raises(ConfigError, match=r"estimate_depth\.modl: no such parameter; did you mean 'model'"):
        write_params(project, workspace, "+prepare.train.estimate_depth.modl=x")
    write_params(project, workspace, "prepare.train.estimate_depth.kind=inverse")
    code, stderr = stage("prepare", "--name", "train")
    assert code == 1
    assert "prepare.train.estimate_depth.kind: inverse, but" in stderr
    build_depth_model("dpt", "tiny").save(workspace / "relative")
    write_params(project, workspace, "prepare.train.estimate_depth.model=relative", "prepare.train.options.depth=true")
    code, stderr = stage("prepare", "--name", "train")
    assert code == 1
    assert "depth/" in stderr
    assert not (workspace / "data/train").exists()
