"""What is wrong with the arguments is said at once: before torch is imported, and in words that a person can act on."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from native_layouts import kitti_noise
from project_tools import PROJECT

from alberti.depth.models import build_depth_model
from alberti.images import write_depth, write_image

Command = Callable[..., int]
_WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from alberti.cli import main; main()"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a depth map, a photo, frames of KITTI and a folder that passes for a model's."""
    frames = kitti_noise(tmp_path / "kitti", 1, np.random.default_rng(0))
    (tmp_path / "list.txt").write_text("".join(frame.line() + "\n" for frame in frames))
    (tmp_path / "model").mkdir()
    write_depth(tmp_path / "depth.png", np.full((8, 8), 4.0))
    write_depth(tmp_path / "empty.png", np.zeros((8, 8)))
    np.save(tmp_path / "centimetres.npy", np.linspace(400.0, 1600.0, 64).reshape(8, 8))
    write_image(tmp_path / "photo.png", np.full((8, 8, 3), 90, np.uint8))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("draw none.png --base b --out out.png", "none.png: no such depth map or photo"),
        ("draw depth.png --base b --out out.gif", "--out: expected the name of a picture"),
        ("draw depth.png --base b --out out.png --size 12", "--size: expected WIDTHxHEIGHT"),
        ("draw empty.png --base b --out out.png", "empty.png: no pixel of this depth map has a measurement"),
        ("draw photo.png --base b --out out.png", "has 8 bits, so it is no depth map (16-bit PNG, or .npy in metres)"),
        ("draw photo.png --base b --out out.png", "name a model with --depth-model FOLDER"),
        (
            "draw centimetres.npy --base b --out out.png",
            "centimetres.npy: its values are 990.5 in the median, which is no scene",
        ),
        ("draw depth.png --base b --out out.png --focal 0", "--focal: expected a finite number above 0, got 0.0"),
        ("draw depth.png --base b --out out.png --focal nan", "--focal: expected a finite number above 0, got nan"),
        ("draw depth.png --base b --out out.png --depth-scale inf", "--depth-scale: expected a finite number above 0, got inf"),
        ("draw depth.png --base b --out out.png --strength inf", "--strength: expected a finite number, got inf"),
        ("draw depth.png --base b --out out.png --guidance-scale nan", "--guidance-scale: expected a finite number, got nan"),
        (
            "score photo.png --out out.json --vanishing-points model",
            "model: a folder, where a file that `alberti annotate` wrote",
        ),
        ("distil-decoder none data --out new --steps 0", "--steps: expected a number greater than 0, got 0"),
        ("distil-decoder none data --out new --precision half", "--precision: expected 'no' or 'bf16', got 'half'"),
        ("draw photo.png --base b --out out.png --depth-model none", "--depth-model none: no such folder of a depth model"),
        ("score-depth model kitti --out out.json --align mean", "alignment (--align): expected one of none, "),
        ("score-depth model kitti --out out.json --split list.txt --protocol own", "protocol (--protocol): unknown 'own'"),
        ("score-depth none kitti --out out.json --split list.txt", "none: no such folder of a depth model"),
        ("score-depth model none --out out.json --split list.txt", "none: no such folder; for KITTI raw, expected folders"),
        ("score-depth model kitti --out out.json --split none.txt", "none.txt: no such"),
        ("score-depth model kitti --out out.json --split list.txt --scenes model", "model: a folder, where a list of scenes"),
        (
            "score-depth model kitti --out out.json --split list.txt --scenes list.txt",
            "expected a CSV with columns id and scene",
        ),
        ("score-depth model kitti --out out.json", "split (--split): KITTI raw needs the list of frames"),
        ("score-depth model kitti --out kitti/out.json --split list.txt", "--out kitti/out.json: lies inside the input kitti"),
        ("distil-decoder none data --out model", "--out model: exists already"),
    ],
)
def test_before_torch_is_imported(place: Path, arguments: str, message: str) -> None:
    command = [sys.executable, "-c", _WITHOUT_TORCH, *arguments.split()]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "--kitti" not in done.stderr
    assert not (place / "out.json").exists()


@pytest.mark.parametrize("line", ["{bad", "[" * 100_000])
def test_vanishing_points_that_are_no_json(
    place: Path, alberti: Command, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (place / "points.jsonl").write_text(line)
    given = ("--vanishing-points", place / "points.jsonl")
    assert alberti("score", place / "photo.png", "--out", place / "out.json", *given) == 1
    told = capsys.readouterr().err
    assert "points.jsonl: expected rows of JSON with image and vanishing_points" in told
    assert "this line is no JSON: '" + line[:5] in told
    assert "Error" not in told


def test_a_folder_given_as_the_file_of_annotations(place: Path, alberti: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert alberti("annotate", place / "photo.png", "--out", place / "model") == 1
    assert f"say {place / 'model' / 'annotations.jsonl'}" in capsys.readouterr().err


def test_a_picture_that_cannot_be_read_is_named_once(place: Path, alberti: Command, capsys: pytest.CaptureFixture[str]) -> None:
    build_depth_model("dpt", "tiny").save(place / "dpt")
    (place / "pictures").mkdir()
    write_image(place / "pictures/a.png", np.full((32, 32, 3), 90, np.uint8))
    (place / "pictures/bad.png").write_text("no")
    assert alberti("predict-depth", place / "dpt", place / "pictures", "--out", place / "out", "--device", "cpu") == 1
    assert capsys.readouterr().err.count("bad.png") == 1


def test_a_relative_model_is_not_scored_as_metres(place: Path, alberti: Command, capsys: pytest.CaptureFixture[str]) -> None:
    build_depth_model("dpt", "tiny").save(place / "dpt")
    common = ("score-depth", place / "dpt", place / "kitti", "--split", place / "list.txt", "--device", "cpu")
    assert alberti(*common, "--out", place / "out.json", "--align", "none") == 1
    assert "the predictions are inverse relative depth: score them with --align affine_disparity" in capsys.readouterr().err


def test_a_device_that_there_is_not_is_told_without_torch_own_list(
    place: Path, alberti: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    build_depth_model("dpt", "tiny").save(place / "dpt")
    common = ("predict-depth", place / "dpt", place / "photo.png", "--out", place / "out")
    assert alberti(*common, "--device", "abacus") == 1
    told = capsys.readouterr().err
    assert "--device: 'abacus' cannot be used here (torch knows no device of this name); expected cpu" in told
    assert "privateuseone" not in told


def test_a_height_that_no_memory_holds_is_refused(place: Path, alberti: Command, capsys: pytest.CaptureFixture[str]) -> None:
    build_depth_model("dpt", "tiny").save(place / "dpt")
    common = ("predict-depth", place / "dpt", place / "photo.png", "--out", place / "out")
    assert alberti(*common, "--input-height", "100000") == 2
    assert "--input-height" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["none", "model"])
def test_the_example_that_scores_pictures_says_what_it_expected(place: Path, folder: str) -> None:
    command = [sys.executable, str(PROJECT / "examples/score_pictures.py"), folder]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == f"error: {folder}: expected a folder with pictures in it\n"
