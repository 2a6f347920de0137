"""Stage prepare on data in their native layouts, and what DVC makes of a change in them."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from native_layouts import gray16, picture, synthia, vkitti2

from alberti.data.config import CaptionConfig
from alberti.data.manifest import Dataset
from alberti.errors import ConfigError
from pipeline.profiles import dump, with_graph
from stages.shared.layout import Layout
from stages.shared.source_params import SourceParams

Stage = Callable[..., tuple[int, str]]
Run = Callable[..., subprocess.CompletedProcess[str]]

SEVERAL = {
    "source": "several",
    "sources": [
        {"source": "vkitti2", "root": "datasets/vk", "options": {"scenes": ["Scene18"]}, "limit": 1},
        {"source": "synthia_al", "root": "datasets/sy", "limit": 1},
    ],
    "fit": {"width": 64, "height": 64, "rule": "crops_along"},
    "captions": {"template": "a street"},
    "scenes": None,
}


def change(folder: Path, **sections: object) -> dict:
    values = yaml.safe_load((folder / "params.yaml").read_text())
    for key, value in sections.items():
        section, _, name = key.partition("_in_")
        target = values[name] if name else values
        target[section] = value
    with contextlib.suppress(ConfigError):  # what the stage is to say
        values = with_graph(values)
    (folder / "params.yaml").write_text(dump(values))
    return values


def test_pictures_are_generated_from_two_data_sets_of_other_sizes(here: Path, stage: Stage) -> None:
    """124 x 37 and 64 x 48 become 64 x 64, which is what the base takes."""
    vkitti2(here / "datasets" / "vk")
    synthia(here / "datasets" / "sy")
    change(here, condition_in_prepare=SEVERAL)
    code, stderr = stage("prepare", "--name", "condition")
    assert code == 0, stderr
    condition = Dataset.open(here / "data/condition", check_files=True)
    assert [sample.id.rpartition("_")[2] for sample in condition] == ["0", "1", "2", "000101"]
    code, stderr = stage("generate", "--name", "base")
    assert code == 0, stderr
    generated = Dataset.open(here / "data/generated/base/0", check_files=True)
    for made, given in zip(generated, condition, strict=True):
        assert generated.read_image(made).shape == (64, 64, 3)
        np.testing.assert_array_equal(generated.read_depth(made), condition.read_depth(given))
        assert made.intrinsics == given.intrinsics


def test_frames_of_another_size_are_annotated_and_trained_on(here: Path, stage: Stage) -> None:
    vkitti2(here / "datasets" / "vk")
    source = {"source": "vkitti2", "root": "datasets/vk", "options": {"scenes": ["Scene18"]}, "limit": 2, "scenes": None}
    change(here, train_in_prepare=source | {"fit": SEVERAL["fit"], "captions": {"template": "a street"}})
    for name, *arguments in (
        ("prepare", "--name", "train"),
        ("annotate", "--name", "train"),
        ("finetune", "--name", "unconstrained"),
    ):
        code, stderr = stage(name, *arguments)
        assert code == 0, stderr
    rows = [json.loads(line) for line in (here / "data/annotations/train/annotations.jsonl").read_text().splitlines()]
    assert [(row["width"], row["height"]) for row in rows] == [(64, 64)] * 6
    assert json.loads((here / "metrics/finetune/unconstrained/0.json").read_text())["steps"] == 2


def test_nothing_is_copied_without_a_size(here: Path, stage: Stage) -> None:
    vkitti2(here / "datasets" / "vk")
    source = {"source": "vkitti2", "root": "datasets/vk", "scenes": None}
    change(here, train_in_prepare=source)
    assert stage("prepare", "--name", "train")[0] == 0
    assert sorted(path.name for path in (here / "data/train").rglob("*")) == ["dataset.json", "manifest.jsonl"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (SEVERAL | {"fit": None}, "prepare.condition: fit: needed with several sources"),
        (SEVERAL | {"sources": []}, "prepare.condition: sources: needed"),
        (
            SEVERAL | {"sources": [{"source": "vkitti2", "rot": "x"}]},
            r"sources\.0\.rot: no such parameter; did you mean 'root'",
        ),
        (SEVERAL | {"sources": [{"source": "kitti", "root": "x"}]}, r"sources\.0\.source"),
        (SEVERAL | {"fit": {"width": 64, "height": 64, "rul": "x"}}, "fit.rul: no such parameter; did you mean 'rule'"),
        ({"source": "vkitti2", "root": "x", "options": {"scens": []}}, "unknown option 'scens'; it takes scenes, variations"),
        ({"source": "vkitti2", "root": "x", "options": {"every": "two"}}, "option every: .*integer.*'two'"),
        ({"source": "vkitti2", "root": "x", "options": {"scenes": "Scene01"}}, "option scenes: "),
        ({"source": "kitti", "root": "x", "options": {"test": 3}}, "options.test: expected the path of a list"),
        ({"source": "kitti", "root": "x", "options": {"test": "a"}, "fit": SEVERAL["fit"]}, "fit: not for source 'kitti'"),
        ({"source": "vkitti2", "root": "x", "annotated_only": True}, "annotated_only: only for source 'kitti'"),
    ],
)
def test_sources_that_cannot_be(project: Path, section: dict, message: str) -> None:
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["prepare"]["condition"] = section
    with pytest.raises(ConfigError, match=message):
        with_graph(values)


def test_relative_paths_start_at_the_project_and_outs_lie_in_the_run(here: Path, tmp_path: Path, stage: Stage) -> None:
    picture(here / "datasets" / "photos" / "a.png", 64, 64)
    change(here, train_in_prepare={"source": "folder", "root": "datasets/photos", "scenes": None})
    run = tmp_path / "run"
    places = ("--params", str(here / "params.yaml"), "--root", str(run), "--project", str(here))
    code, stderr = stage("prepare", "--name", "train", *places)
    assert code == 0, stderr
    assert len(Dataset.open(run / "data/train", check_files=True)) == 1


def test_a_caption_model_may_be_a_folder_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "datasets/blip").mkdir(parents=True)
    layout = Layout.of(tmp_path / "run", tmp_path)
    for model, located in (("datasets/blip", str(tmp_path / "datasets/blip")), ("somebody/blip", "somebody/blip")):
        section = SourceParams(source="folder", root="x", captions=CaptionConfig(model=model))
        captions = section.located_captions(layout)
        assert captions is not None
        assert captions.model == located


def kitti(here: Path, stage: Stage) -> Path:
    """The rendered test set as if it were the user's KITTI."""
    assert stage("prepare", "--name", "test")[0] == 0
    (here / "datasets").mkdir(exist_ok=True)
    shutil.move(here / "data/test", here / "datasets/kitti")
    lists = {"test": "datasets/kitti/splits/test.txt"}
    change(here, test_in_prepare={"source": "kitti", "root": "datasets/kitti", "scenes": None, "options": lists})
    return here / "datasets/kitti"


def test_another_scan_or_calibration_makes_another_test_set(here: Path, stage: Stage) -> None:
    root = kitti(here, stage)
    seen = set()
    scan, calibration = next(root.rglob("*.bin")), next(root.rglob("calib_velo_to_cam.txt"))
    image, depth = next(root.rglob("image_02/data/*.png")), next(root.rglob("groundtruth/image_02/*.png"))
    for changed in (None, scan, calibration, image, depth):
        if changed is not None:
            changed.write_bytes(changed.read_bytes() + b" ")
        assert stage("prepare", "--name", "test")[0] == 0
        seen.add(Dataset.open(here / "data/test", check_files=True).info.fingerprint)
    assert len(seen) == 5


def test_frames_without_annotated_depth_are_left_out_when_asked(here: Path, stage: Stage) -> None:
    root = kitti(here, stage)
    sorted(root.rglob("groundtruth/image_02/*.png"))[0].unlink()
    assert stage("prepare", "--name", "test")[0] == 0
    code, stderr = stage("evaluate_depth", "--name", "pixelformer-original")
    assert code == 1
    assert "1 of the frames have no annotated depth" in stderr
    assert "annotated_only: true" in stderr
    values = yaml.safe_load((here / "params.yaml").read_text())
    change(here, test_in_prepare=values["prepare"]["test"] | {"annotated_only": True})
    assert stage("prepare", "--name", "test")[0] == 0
    code, stderr = stage("evaluate_depth", "--name", "pixelformer-original")
    assert code == 0, stderr
    assert json.loads((here / "metrics/depth/pixelformer/original/all/test.json").read_text())["n"] == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.move(root / "raw", root / "images"), "not KITTI raw: expected folders named by date"),
        (lambda root: next(root.rglob("image_02/data/*.png")).unlink(), "files are missing: "),
        (lambda root: next(root.rglob("calib_cam_to_cam.txt")).unlink(), "calib_cam_to_cam.txt"),
        (lambda root: add_line(root, "2011_09_26/2011_09_26_drive_0002_sync 69 l"), "2011_09_26_drive_0002_sync"),
        (lambda root: add_line(root, "2011_09_26 69"), "line 3: expected `<date>/<drive> <frame> l`"),
        (lambda root: (root / "splits/test.txt").unlink(), "no such split file"),
    ],
)
def test_kitti_that_lacks_something(here: Path, stage: Stage, damage: Callable[[Path], object], message: str) -> None:
    root = kitti(here, stage)
    damage(root)
    code, stderr = stage("prepare", "--name", "test")
    assert code == 1
    assert "Traceback" not in stderr
    assert message in stderr
    assert not (here / "data/test").exists()


def test_kitti_without_a_list(here: Path, stage: Stage) -> None:
    change(here, test_in_prepare={"source": "kitti", "root": str(kitti(here, stage)), "scenes": None})
    code, stderr = stage("prepare", "--name", "test")
    assert code == 1
    assert "prepare.test.options: KITTI needs the list" in stderr


def test_kitti_without_a_scan_cannot_be_tested_on_scans(here: Path, stage: Stage) -> None:
    root = kitti(here, stage)
    scan = next(root.rglob("*.bin"))
    scan.unlink()
    values = yaml.safe_load((here / "params.yaml").read_text())
    values["evaluate_depth"]["test_sets"]["test"]["protocol"] = "eigen_garg"
    change(here, evaluate_depth=values["evaluate_depth"])
    assert stage("prepare", "--name", "test")[0] == 0
    code, stderr = stage("evaluate_depth", "--name", "pixelformer-original")
    assert code == 1
    assert scan.name in stderr


def add_line(root: Path, line: str) -> None:
    path = root / "splits/test.txt"
    path.write_text(path.read_text() + line + "\n")


def repro(folder: Path, run_in: Run, *targets: str) -> list[str]:
    """The stages that a `dvc repro` of these ran."""
    done = run_in(folder, "dvc", "repro", *targets)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]


def test_dvc_prepares_again_when_a_watched_file_changes(project_copy: Path, run_in: Run) -> None:
    root = project_copy / "datasets" / "photos"
    for name in ("a", "b"):
        picture(root / f"{name}.png", 64, 64)
        gray16(root / "depth" / f"{name}.png", np.full((64, 64), 2560))
    source = {"source": "folder", "root": "datasets/photos", "scenes": None, "captions": {"template": "a street"}}
    change(project_copy, watch=["train"], train_in_prepare=source)
    assert repro(project_copy, run_in, "prepare@train") == ["watch@train", "prepare@train"]
    assert repro(project_copy, run_in, "prepare@train") == ["watch@train"]
    picture(root / "c.png", 64, 64)
    gray16(root / "depth" / "c.png", np.full((64, 64), 2560))
    assert repro(project_copy, run_in, "prepare@train") == ["watch@train", "prepare@train"]
    assert len(Dataset.open(project_copy / "data/train")) == 3
    before = (project_copy / "data/train/manifest.jsonl").read_bytes()
    os.utime(root / "c.png", ns=(1, 1))
    assert repro(project_copy, run_in, "prepare@train") == ["watch@train", "prepare@train"]
    assert (project_copy / "data/train/manifest.jsonl").read_bytes() == before, "what comes after stays cached"


def test_a_watched_kitti_is_its_recordings_its_depth_and_its_lists(here: Path, stage: Stage) -> None:
    kitti(here, stage)
    root, depth = here / "datasets/kitti/raw", here / "datasets/kitti/depth"  # depth beside the root that is named
    lists = {"test": "datasets/kitti/splits/test.txt"}
    change(here, watch=["test"], test_in_prepare={"source": "kitti", "root": str(root), "scenes": None, "options": lists})
    names = here / lists["test"]
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: next(root.rglob("*.bin")).write_bytes(b""),
        lambda: next(depth.rglob("*.png")).write_bytes(b""),
        lambda: names.write_text(names.read_text() + "\n"),
    ]
    seen = set()
    for act in changes:
        act()
        code, stderr = stage("watch", "--name", "test")
        assert code == 0, stderr
        seen.add((here / "fingerprints/test/files.json").read_text())
        assert stage("watch", "--name", "test")[0] == 0
        assert (here / "fingerprints/test/files.json").read_text() in seen
    assert len(seen) == len(changes)
    names.unlink()
    code, stderr = stage("watch", "--name", "test")
    assert code == 1
    assert "prepare.test.options.test: no such file" in stderr


def test_a_role_without_data_of_its_own_cannot_be_watched(here: Path, stage: Stage) -> None:
    change(here, watch=["train"])
    code, stderr = stage("watch", "--name", "train")
    assert code == 1
    assert "take train off the list" in stderr
