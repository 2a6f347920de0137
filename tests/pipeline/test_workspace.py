"""Where a profile runs, and that the project's own params stay."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from project_tools import environment

from alberti.errors import ConfigError
from pipeline.workspace import open_workspace


@pytest.fixture
def small(project_copy: Path) -> Path:
    """The project with one stage that shows a param."""
    (project_copy / "alberti" / "old.py").write_text("")
    stage = "stages: {a: {cmd: 'echo ${generate.steps} > a', outs: [a], params: [generate.steps]}}\n"
    (project_copy / "dvc.yaml").write_text(stage)
    with open(project_copy / ".gitignore", "a") as file:
        file.write("/a\n")
    return project_copy


def steps(folder: Path) -> int:
    return int(yaml.safe_load((folder / "params.yaml").read_text())["generate"]["steps"])


def test_profile_of_params_runs_in_the_project(small: Path) -> None:
    with open_workspace(small, "default") as workspace:
        assert workspace == small


def test_other_profiles_run_in_copies_that_follow_the_project(small: Path) -> None:
    with open_workspace(small, "smoke") as workspace:
        assert workspace == small / ".alberti" / "runs" / "smoke"
        assert steps(workspace) == 4
        assert (workspace / "alberti" / "old.py").exists()
        subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=workspace, check=True)
    assert steps(small) == 10
    assert any((small / ".dvc" / "cache").rglob("*")), "the copy shares the project's cache"

    (workspace / "metrics").mkdir()
    (workspace / "metrics" / "summary.json").write_text("its own")
    (small / "metrics").mkdir()
    (small / "metrics" / "summary.json").write_text("the project's, in Git")
    (small / "alberti" / "old.py").unlink()
    (small / "alberti" / "new.py").write_text("")
    with open_workspace(small, "smoke", ["generate.steps=3"]) as other:
        assert other.name.startswith("smoke-")
    with open_workspace(small, "smoke") as workspace:
        assert (workspace / "a").read_text() == "4\n", "outs stay"
        assert (workspace / "metrics" / "summary.json").read_text() == "its own"
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


def test_a_warm_run_says_why_a_stage_failed(project_copy: Path) -> None:
    """With stages of the project's own, in forks of one process."""
    overrides = ["base.source=path", "base.path=/nowhere/base"]
    command = [sys.executable, "-m", "pipeline.workspace", "smoke", *overrides, "--warm"]
    done = subprocess.run(command, cwd=project_copy, env=environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "/nowhere/base" in done.stderr
    assert "logs/stages.log" in done.stderr
