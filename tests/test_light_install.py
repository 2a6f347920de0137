"""What `pip install alberti` can do by itself: real commands in processes where every package it does not bring is missing."""

import json
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from project_tools import PROJECT, environment

from alberti.data.scenes import SceneConfig, render_scenes
from alberti.images import read_image, write_depth, write_image

DEPTH, DIFFUSION, STUDY = (f"pip install 'alberti[{name}]'" for name in ("depth", "diffusion", "study"))


def brought(wanted: list[Requirement]) -> set[str]:
    """The distributions that installing ``wanted`` brings, as their own metadata says."""
    found, stack = set[str](), list(wanted)
    while stack:
        requirement = stack.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            stack += map(Requirement, requires(requirement.name) or ())
        except PackageNotFoundError:  # for another system
            found.discard(name)
    return found


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Python finds this project and the light library's dependencies, and nothing else."""
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    there = brought([Requirement(each) for each in declared])
    missing = sorted(
        package
        for package, distributions in packages_distributions().items()
        if package.isidentifier()
        and package not in ("alberti", "_virtualenv")
        and not there & {canonicalize_name(each) for each in distributions}
    )
    assert {"diffusers", "transformers", "timm", "pandas", "matplotlib", "scipy", "dvc", "prefect"} <= set(missing)
    assert not {"torch", "numpy", "cv2", "PIL", "typer"} & set(missing)
    folder = tmp_path_factory.mktemp("light")
    # `stages` and `pipeline` are of a clone
    blocked = [*missing, "stages", "pipeline"]
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({blocked}))\n")
    (folder / "alberti").symlink_to(PROJECT / "alberti")
    return {**environment(), "PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    (street,) = render_scenes(["street"], seed=3, config=SceneConfig(width=128, height=128))
    write_image(folder / "photos/street.png", street.image)
    write_depth(folder / "depth.png", street.depth)
    (folder / "model").mkdir()
    (folder / "predictions").mkdir()
    return folder


def python(light: dict[str, str], place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=place, env=light, capture_output=True, text=True, timeout=120)


def alberti(light: dict[str, str], place: Path, arguments: str) -> subprocess.CompletedProcess[str]:
    return python(light, place, "-m", "alberti.cli", *arguments.split())


def test_the_loss(light: dict[str, str], place: Path) -> None:
    code = (
        "import torch; from alberti.losses import PerspectiveLoss; image = torch.rand(1, 3, 32, 32);"
        "print(PerspectiveLoss(num_lines=20)(image, image, torch.tensor([[[16.0, 16.0, 1.0]]])).item())"
    )
    done = python(light, place, "-c", code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == 0


def test_annotate_and_score(light: dict[str, str], place: Path) -> None:
    done = alberti(light, place, "annotate photos --out rows.jsonl --overlays overlays --workers 2")
    assert done.returncode == 0, done.stderr
    assert len(json.loads((place / "rows.jsonl").read_text())["vanishing_points"]) >= 1
    assert read_image(place / "overlays/street.png.png").shape == (128, 128, 3)
    done = alberti(light, place, "score photos --out score.json --vanishing-points rows.jsonl --workers 2")
    assert done.returncode == 0, done.stderr
    assert json.loads((place / "score.json").read_text())["consistency_2"]["n"] == 1
    assert "<svg" in (place / "score.html").read_text()


def test_help_shows_the_library_s_commands(light: dict[str, str], place: Path) -> None:
    done = alberti(light, place, "--help")
    assert done.returncode == 0, done.stderr
    assert "annotate" in done.stdout
    assert "doctor" not in done.stdout


@pytest.mark.parametrize(
    "module",
    ["alberti.data.scenes", "alberti.data.transforms", "alberti.geometry.vanishing_points", "alberti.metrics.depth",
     "alberti.metrics.images", "alberti.depth.models", "alberti.depth.train", "alberti.training.loop",
     "alberti.diffusion.config", "alberti.diffusion.constraints", "alberti.losses.orientation"],
)  # fmt: skip
def test_modules_that_need_no_extra_until_something_of_it_is_used(light: dict[str, str], place: Path, module: str) -> None:
    done = python(light, place, "-c", f"import {module}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("from alberti.guidance import VanishingGuidance", DIFFUSION),
        ("import alberti.diffusion.model", DIFFUSION),
        ("import alberti.diffusion.tiny", DIFFUSION),
        ("import alberti.families.drawing", DIFFUSION),
        ("from alberti.depth.models import build_depth_model; build_depth_model('dpt', 'tiny')", DEPTH),
        ("from alberti.metrics.features import feature_extractor; feature_extractor()", DEPTH),
        ("from alberti.metrics.evaluation import summarise; summarise([], 'eigen_garg', 'none')", DEPTH),
    ],
)
def test_python_that_needs_an_extra_says_which(light: dict[str, str], place: Path, code: str, advice: str) -> None:
    done = python(light, place, "-c", code)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("alberti.extras.MissingExtra: ")
    assert last.endswith(advice)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ("draw depth.png --base base --out out.png", DIFFUSION),
        ("draw photos/street.png --base base --out out.png --depth-model model", DEPTH),
        ("distil-decoder base photos --out out", DIFFUSION),
        ("predict-depth model photos --out out", DEPTH),
        ("evaluate-depth --predictions predictions --kitti kitti --split list.txt --out out.json", DEPTH),
        ("score-depth model kitti --split list.txt --out out.json", DEPTH),
        ("study analyse study", STUDY),
        ("doctor", "which works in a clone of the repository only"),
    ],
)
def test_a_command_that_needs_an_extra_says_which(light: dict[str, str], place: Path, arguments: str, advice: str) -> None:
    if "kitti" in arguments and not (place / "kitti").exists():
        from native_layouts import kitti_noise

        frames = kitti_noise(place / "kitti", 1, np.random.default_rng(0))
        (place / "list.txt").write_text("".join(frame.line() + "\n" for frame in frames))
    done = alberti(light, place, arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(f"{advice}\n")
    assert "Traceback" not in done.stderr
    assert not (place / "out.json").exists()


@pytest.mark.parametrize("name", ["perspective_loss", "score_pictures"])
def test_examples_that_need_no_extra(light: dict[str, str], place: Path, name: str) -> None:
    done = python(light, place, str(PROJECT / "examples" / f"{name}.py"))
    assert done.returncode == 0, done.stderr
