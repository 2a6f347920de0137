"""What installing puts where: a wheel brings `alberti` alone and whole, an editable install the clone's other packages too."""

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from project_tools import environment

BUILD = "from hatchling.builders.wheel import WheelBuilder; print(*WheelBuilder({!r}).build(directory={!r}, versions=[{!r}]))"


def build(project: Path, out: Path, version: str) -> zipfile.ZipFile:
    code = BUILD.format(str(project), str(out), version)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    return zipfile.ZipFile(done.stdout.strip())


@pytest.fixture(scope="module")
def wheel(project: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return build(project, tmp_path_factory.mktemp("wheel"), "standard")


def test_it_holds_the_library_whole_and_nothing_else(project: Path, wheel: zipfile.ZipFile) -> None:
    info = next(name for name in wheel.namelist() if name.endswith("/METADATA")).split("/")[0]
    assert {name.split("/")[0] for name in wheel.namelist()} == {"alberti", info}
    listed = subprocess.run(["git", "ls-files", "alberti"], cwd=project, capture_output=True, text=True, check=True).stdout
    assert set(listed.split()) <= set(wheel.namelist())
    assert "alberti/py.typed" in wheel.namelist()


def test_its_metadata(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    light = [each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert len(light) == 10
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(metadata.get_all("Classifier", []))
    (points,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    assert "alberti = alberti.cli:main" in wheel.read(points).decode()


def test_an_editable_install_puts_the_clone_on_the_path(project: Path, tmp_path: Path) -> None:
    """So `alberti doctor` finds the pipeline, from any folder."""
    editable = build(project, tmp_path, "editable")
    (path_file,) = (name for name in editable.namelist() if name.endswith(".pth"))
    assert editable.read(path_file).decode().splitlines() == [str(project)]
