"""Every stage by its own command, without DVC and Prefect, in the order of the DAG."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from alberti.data.manifest import Dataset
from pipeline.graph import stage_graph
from stages.shared.curves import read_curves

Stage = Callable[..., tuple[int, str]]


def commands(project: Path, here: Path) -> list[tuple[str, ...]]:
    """The DAG's commands for these params, in order."""
    shutil.copy(project / "dvc.yaml", here)
    (here / ".dvc").mkdir()
    (here / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    graph = stage_graph(here)
    result = []
    for stage in graph:
        name, _, instance = stage.partition("@")
        result.append((name, "--name", instance) if instance else (name,))
    return result


@pytest.mark.parametrize("name", ["annotate", "finetune", "report"])
def test_stages_that_may_train_nothing_import_no_torch(project: Path, name: str) -> None:
    """It takes a second; `finetune` imports it once an arm has steps to train."""
    code = f"import sys, stages.{name}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_all_stages_in_order(project: Path, here: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    order = commands(project, here)
    for name in ("data", "models"):
        shutil.rmtree(here / name)
    for module in ("dvc", "prefect", "hydra"):
        monkeypatch.setitem(sys.modules, module, None)
    for command in order:
        code, stderr = stage(*command)
        assert code == 0, (command, stderr)

    params = yaml.safe_load((here / "params.yaml").read_text())
    for role in ("train", "condition", "kitti", "test"):
        Dataset.open(here / "data" / role, check_files=True)
    for arm in ("base", *params["arms"]):
        assert len(Dataset.open(here / "data/generated" / arm / "0", check_files=True)) == 2
        assert len(pd.read_csv(here / "metrics/images" / arm / "0.csv")) == 2
    for arm in params["arms"]:
        made = json.loads((here / "models/finetuned" / arm / "0/provenance.json").read_text())
        assert made["params"]["arm"] == arm
        assert made["seed"] == 0
        assert made["inputs"]["models/base"]
        assert made["packages"]["torch"]
    assert (here / "report/index.html").is_file()
    assert list((here / "metrics/headlines").rglob("*.json"))
    left = [path for name in ("finetune", "base", "depth") for path in (here / "checkpoints" / name).glob("*/step-*")]
    assert left == []


def test_base_trained_on_streets_rendered_for_it(here: Path, stage: Stage) -> None:
    shutil.rmtree(here / "data/train")
    values = yaml.safe_load((here / "params.yaml").read_text())
    size = {name: values["base"]["train"][name] for name in ("width", "height")}
    values["base"] |= {"source": "train", "scenes": {"splits": {"all": 6}, "style": "mixed", "seed": 5, **size}}
    (here / "params.yaml").write_text(yaml.safe_dump(values))
    code, stderr = stage("base")
    assert code == 0, stderr
    made = json.loads((here / "models/base/provenance.json").read_text())
    assert "count 6" in made["inputs"]["pictures"]
    further = {
        "splits": {"all": 4},
        "style": "mixed",
        "camera": "driving",
        "seed": 6,
        "width": 2 * size["width"],
        "height": size["height"],
    }
    (here / "models/base").rename(here / "models/first")
    values["base"] |= {"start": "models/first", "further": [further]}
    values["base"]["train"]["unet"]["batch_size"] = 4
    (here / "params.yaml").write_text(yaml.safe_dump(values))
    code, stderr = stage("base")
    assert code == 0, stderr
    onward = json.loads((here / "models/base/provenance.json").read_text())
    assert set(onward["inputs"]) == {*made["inputs"], f"pictures, {further['width']} x {further['height']}", "models/first"}
    autoencoders = [
        (here / "models" / name / "vae/diffusion_pytorch_model.safetensors").read_bytes() for name in ("first", "base")
    ]
    assert autoencoders[0] == autoencoders[1]

    values["base"] |= {"start": "models/none"}
    (here / "params.yaml").write_text(yaml.safe_dump(values))
    code, stderr = stage("base")
    assert code == 1
    assert "models/none" in stderr
    assert "base.start" in stderr
    assert "Traceback" not in stderr
    values["base"] |= {"start": None, "further": []}
    values["base"]["scenes"]["width"] *= 2
    (here / "params.yaml").write_text(yaml.safe_dump(values))
    code, stderr = stage("base")
    assert code == 1
    assert "base.scenes" in stderr or "pixels" in stderr


def test_arms_differ_in_the_constraint_only(here: Path, stage: Stage) -> None:
    """Same base, data order and noise: the ordinary loss of the first step is the same."""
    first = []
    for arm in ("unconstrained", "constrained"):
        assert stage("finetune", "--name", arm)[0] == 0
        first.append(read_curves(here / "plots/finetune")[f"{arm}/0"].iloc[0])
    assert first[0]["mse"] == first[1]["mse"]
    assert first[1]["loss"] > first[0]["loss"]


def test_user_s_kitti_is_indexed_where_it_lies(here: Path, stage: Stage) -> None:
    assert stage("prepare", "--name", "test")[0] == 0
    shutil.move(here / "data/test", here / "kitti")
    values = yaml.safe_load((here / "params.yaml").read_text())
    splits = {"test": "kitti/splits/test.txt"}
    values["prepare"]["test"] = {"source": "kitti", "root": "kitti", "scenes": None, "options": splits}
    (here / "params.yaml").write_text(yaml.safe_dump(values))
    assert stage("prepare", "--name", "test")[0] == 0
    assert not list((here / "data/test").rglob("*.png"))
    code, stderr = stage("evaluate_depth", "--name", "pixelformer-original")
    assert code == 0, stderr
    assert json.loads((here / "metrics/depth/pixelformer/original/all/test.json").read_text())["n"] == 2


def test_kitti_without_annotated_depth_is_tested_on_its_scans(here: Path, stage: Stage) -> None:
    assert stage("prepare", "--name", "test")[0] == 0
    shutil.move(here / "data/test", here / "kitti")
    shutil.rmtree(here / "kitti/depth")
    values = yaml.safe_load((here / "params.yaml").read_text())
    splits = {"test": "kitti/splits/test.txt"}
    values["prepare"]["test"] = {"source": "kitti", "root": "kitti", "scenes": None, "options": splits, "limit": 1}
    values["evaluate_depth"]["test_sets"]["test"]["protocol"] = "eigen_garg"
    (here / "params.yaml").write_text(yaml.safe_dump(values))
    assert stage("prepare", "--name", "test")[0] == 0
    code, stderr = stage("evaluate_depth", "--name", "pixelformer-original")
    assert code == 0, stderr
    assert json.loads((here / "metrics/depth/pixelformer/original/all/test.json").read_text())["n"] == 1


def test_weights_that_contradict_the_params_are_refused(here: Path, stage: Stage) -> None:
    values = yaml.safe_load((here / "params.yaml").read_text())
    shutil.copytree(here / "models/depth/pixelformer/original/all", here / "given")
    values["base_depth"]["pixelformer"] |= {"weights": "given", "max_depth": 60.0, "train": None}
    (here / "params.yaml").write_text(yaml.safe_dump(values))
    code, stderr = stage("base_depth", "--name", "pixelformer")
    assert code == 1
    assert "max_depth 80.0, not 60.0" in stderr


def test_detected_points_need_a_row_a_sample(here: Path, stage: Stage) -> None:
    values = yaml.safe_load((here / "params.yaml").read_text())
    values["arms"]["constrained"]["vanishing_points"] = "detected"
    (here / "params.yaml").write_text(yaml.safe_dump(values))
    assert stage("annotate", "--name", "train")[0] == 0
    path = here / "data/annotations/train/annotations.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    code, stderr = stage("finetune", "--name", "constrained")
    assert code == 1
    assert "no row for" in stderr
