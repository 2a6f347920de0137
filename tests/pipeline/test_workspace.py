"""Where a profile runs, and that the project's own params stay."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from project_tools import commit

from alberti.errors import ConfigError
from pipeline.workspace import open_workspace


@pytest.fixture
def small(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "conf" / "profile").mkdir(parents=True)
    (folder / ".dvc").mkdir()
    (folder / "alberti").mkdir()
    (folder / "alberti" / "old.py").write_text("")
    (folder / "conf" / "config.yaml").write_text("defaults:\n  - profile: default\n  - _self_\n")
    for name, value in (("default", 1), ("smoke", 2)):
        (folder / "conf" / "profile" / f"{name}.yaml").write_text(f"# @package _global_\nvalue: {value}\n")
    (folder / "params.yaml").write_text("value: 1\n")
    (folder / "dvc.yaml").write_text("stages: {a: {cmd: 'echo ${value} > a', outs: [a], params: [value]}}\n")
    (folder / ".dvc" / "config").write_text("")
    (folder / ".gitignore").write_text(".alberti/\n/a\n/.dvc/cache\n/.dvc/tmp\n")
    commit(folder)
    return folder


def test_profile_of_params_runs_in_the_project(small: Path) -> None:
    with open_workspace(small, "default") as workspace:
        assert workspace == small


def test_other_profiles_run_in_copies_that_follow_the_project(small: Path) -> None:
    with open_workspace(small, "smoke") as workspace:
        assert workspace == small / ".alberti" / "runs" / "smoke"
        assert yaml.safe_load((workspace / "params.yaml").read_text()) == {"value": 2}
        assert (workspace / "alberti" / "old.py").exists()
        subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=workspace, check=True)
    assert yaml.safe_load((small / "params.yaml").read_text()) == {"value": 1}
    assert any((small / ".dvc" / "cache").rglob("*")), "the copy shares the project's cache"

    (small / "alberti" / "old.py").unlink()
    (small / "alberti" / "new.py").write_text("")
    with open_workspace(small, "smoke", ["value=3"]) as other:
        assert other.name.startswith("smoke-")
    with open_workspace(small, "smoke") as workspace:
        assert (workspace / "a").read_text() == "2\n", "outs stay"
        assert not (workspace / "alberti" / "old.py").exists()
        assert (workspace / "alberti" / "new.py").exists()


def test_one_run_at_a_time(small: Path) -> None:
    with open_workspace(small, "smoke"), pytest.raises(ConfigError, match="another flow run"), open_workspace(small, "smoke"):
        pass
    with open_workspace(small, "smoke"):
        pass


def test_without_git(small: Path, tmp_path: Path) -> None:
    import shutil

    shutil.rmtree(small / ".git")
    with pytest.raises(ConfigError, match="Git"), open_workspace(small, "smoke"):
        pass
