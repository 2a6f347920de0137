"""Bad input through the stages' own commands: one paragraph that says what and where, exit code 1, no half-written outs."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from project_tools import PROJECT, environment

from alberti.images import write_depth

Stage = Callable[..., tuple[int, str]]


def first_row(folder: Path) -> dict:
    return json.loads((folder / "manifest.jsonl").read_text().splitlines()[0])


def change_rows(folder: Path, change: Callable[[dict], dict]) -> None:
    path = folder / "manifest.jsonl"
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def change_params(folder: Path, *keys: str, value: object) -> None:
    values = yaml.safe_load((folder / "params.yaml").read_text())
    section = values
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(values))


def assert_refused(result: tuple[int, str], folder: Path, out: str, *texts: str) -> None:
    """Exit code 1, one line of error with the texts, neither ``out`` nor a temporary sibling of it."""
    code, stderr = result
    assert code == 1, stderr
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, stderr
    assert "Traceback" not in stderr
    for text in texts:
        assert text in errors[0]
    assert not (folder / out).exists()
    parent = (folder / out).parent
    assert not parent.exists() or not list(parent.glob(".*.tmp"))


def test_missing_image(here: Path, stage: Stage) -> None:
    image = here / "data" / "train" / first_row(here / "data/train")["image"]
    image.unlink()
    assert_refused(stage("annotate", "--name", "train"), here, "data/annotations", image.name, "no such image")
    assert_refused(stage("base"), here / "elsewhere", "models/base", image.name)


def test_truncated_image_and_next_run(here: Path, stage: Stage) -> None:
    image = here / "data" / "train" / first_row(here / "data/train")["image"]
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    assert_refused(stage("annotate", "--name", "train"), here, "data/annotations", image.name, "cannot read")
    image.write_bytes(whole)
    assert stage("annotate", "--name", "train")[0] == 0
    assert len((here / "data/annotations/train/annotations.jsonl").read_text().splitlines()) == 2


def test_depth_of_another_size(here: Path, stage: Stage) -> None:
    depth = first_row(here / "data/train")["depth"]
    write_depth(here / "data/train" / depth, np.full((32, 64), 5.0, np.float32))
    name = Path(depth).name
    result = stage("finetune", "--name", "unconstrained")
    assert_refused(result, here, "models/finetuned/unconstrained/0", name, "64 x 32", "64 x 64")
    shutil.rmtree(here / "models/depth/pixelformer")
    result = stage("base_depth", "--name", "pixelformer")
    assert_refused(result, here, "models/depth/pixelformer/original/all", name, "64 x 32")


def test_nan_in_depth(here: Path, stage: Stage) -> None:
    folder = here / "data/condition"
    info = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(info | {"depth_format": "npy", "depth_scale": 1.0}))
    depth = np.full((64, 64), 5.0, np.float32)
    np.save(folder / "depth" / "good.npy", depth)
    depth[3, 4] = np.nan
    np.save(folder / "depth" / "bad.npy", depth)
    names = iter(["depth/good.npy", "depth/bad.npy"])
    change_rows(folder, lambda row: row | {"depth": next(names), "sha256": {}})
    assert_refused(stage("generate", "--name", "base"), here, "data/generated/base/0", "bad.npy", "NaN")


def test_no_vanishing_points_anywhere(here: Path, stage: Stage) -> None:
    change_rows(here / "data/train", lambda row: row | {"vanishing_points": []})
    result = stage("finetune", "--name", "constrained")
    assert_refused(result, here, "models/finetuned/constrained/0", "data/train", "vanishing point")


def test_misspelled_param_and_unknown_instance(here: Path, stage: Stage) -> None:
    result = stage("finetune", "--name", "constraned")
    assert_refused(result, here, "models/finetuned/constraned", "constraned", "constrained")
    change_params(here, "finetune", "learning_rat", value=1)
    result = stage("finetune", "--name", "constrained")
    assert_refused(result, here, "models/finetuned/constrained/0", "params.yaml", "finetune.learning_rat")
    result = stage("prepare", "--name", "train", "--params", "nosuch.yaml")
    assert_refused(result, here, "data/elsewhere", "nosuch.yaml", "no such params file")


def test_corrupt_model(here: Path, stage: Stage) -> None:
    weights = here / "models/base/unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    assert_refused(stage("finetune", "--name", "unconstrained"), here, "models/finetuned/unconstrained/0", "unet")
    weights = here / "models/depth/pixelformer/original/all/model.safetensors"
    weights.write_bytes(b"\0" * 100)
    result = stage("evaluate_depth", "--name", "pixelformer-original")
    assert_refused(result, here, "metrics/depth/pixelformer/original/all/test.json", "pixelformer/original")
    change_params(here, "base", "source", value="path")
    change_params(here, "base", "path", value="models/base")
    shutil.move(here / "models/base", here / "models/damaged")
    change_params(here, "base", "path", value="models/damaged")
    assert_refused(stage("base"), here, "models/base", "models/damaged", "unet")


def test_corrupt_checkpoints(here: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged newest checkpoint is reported and the one before used; with all damaged the run is refused."""
    import alberti.diffusion.model as model

    def interrupted(self: object, folder: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model.DepthDiffusion, "save", interrupted)
        assert stage("finetune", "--name", "unconstrained")[0] == 130
    states = sorted((here / "checkpoints/finetune").rglob("step-*/state.safetensors"))
    assert len(states) == 2
    states[1].write_bytes(b"\0" * 50)
    code, stderr = stage("finetune", "--name", "unconstrained")
    assert code == 0
    assert "damaged" in stderr
    assert "step 2" in stderr

    shutil.rmtree(here / "models/finetuned/unconstrained/0")
    with monkeypatch.context() as patch:
        patch.setattr(model.DepthDiffusion, "save", interrupted)
        stage("finetune", "--name", "unconstrained")
    for state in (here / "checkpoints/finetune").rglob("step-*/state.safetensors"):
        state.write_bytes(b"\0" * 50)
    result = stage("finetune", "--name", "unconstrained")
    assert_refused(result, here, "models/finetuned/unconstrained/0", "no usable checkpoint", "Delete the folder")


def test_empty_folders(here: Path, stage: Stage) -> None:
    shutil.rmtree(here / "data/train")
    (here / "data/train").mkdir()
    assert_refused(stage("annotate", "--name", "train"), here, "data/annotations", "data/train", "the folder is empty")
    shutil.rmtree(here / "data/train")
    (here / "mine").mkdir()
    source = {"source": "folder", "root": "mine", "scenes": None}
    change_params(here, "prepare", "train", value=source)
    assert_refused(stage("prepare", "--name", "train"), here, "data/train", "mine", "empty")
    change_params(here, "prepare", "train", value=source | {"root": "nosuch"})
    assert_refused(stage("prepare", "--name", "train"), here, "data/train", "nosuch", "no such folder")


def test_empty_pretrained_folder(here: Path, stage: Stage) -> None:
    shutil.rmtree(here / "models/base")
    (here / "pretrained/base").mkdir(parents=True)
    change_params(here, "base", "source", value="pretrained")
    assert_refused(stage("base"), here, "models/base", "pretrained/base", "model_index.json")


@pytest.mark.parametrize("path", ["../../secret.png", "/etc/hostname"])
def test_row_outside_its_root(here: Path, stage: Stage, path: str) -> None:
    change_rows(here / "data/train", lambda row: row | {"image": path})
    assert_refused(stage("annotate", "--name", "train"), here, "data/annotations", "manifest.jsonl, line 1", path, "outside")


def test_wrong_schema_version(here: Path, stage: Stage) -> None:
    path = here / "data/condition/dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    result = stage("generate", "--name", "base")
    assert_refused(result, here, "data/generated/base/0", "dataset.json", "schema version 99")


def test_source_of_another_kind(here: Path, stage: Stage) -> None:
    shutil.rmtree(here / "data/train")
    change_params(here, "prepare", "train", value={"source": "kitti", "root": ".", "scenes": None})
    assert_refused(stage("prepare", "--name", "train"), here, "data/train", "prepare.train.source")


_LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("limit", "command", "out"),
    [
        (3_000, ("stages.prepare", "--name", "train"), "data/train"),
        (60_000, ("stages.base",), "models/base"),
        (60_000, ("stages.finetune", "--name", "unconstrained"), "models/finetuned/unconstrained/0"),
    ],
)
def test_full_disk(here: Path, limit: int, command: tuple[str, ...], out: str) -> None:
    """A limit on the size of files stands for the full disk: the system refuses the same calls."""
    if command[0] == "stages.prepare":
        shutil.rmtree(here / "data/train")
    if command[0] == "stages.base":
        shutil.rmtree(here / "models/base")
    run = [sys.executable, "-c", _LIMITED, str(limit), *command]
    env = {**environment(), "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(run, cwd=here, env=env, capture_output=True, text=True, timeout=120)
    assert_refused((done.returncode, done.stderr), here, out, "disk is full")
