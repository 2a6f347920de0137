"""What tests of stages and pipeline share: the project's folder, and copies of it that tests may work in."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
_PARTS = ("alberti", "stages", "pipeline", "conf", "pretrained")
_FILES = ("dvc.yaml", "params.yaml", "prefect.yaml", ".dvcignore", ".gitignore", "pyproject.toml")


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's own folder; read only."""
    return PROJECT


@pytest.fixture
def project_copy(tmp_path: Path) -> Path:
    """A copy of the project as a Git and DVC repository of its own, nothing run in it."""
    return copy_project(tmp_path / "project")


def copy_project(target: Path) -> Path:
    """Copy the project's files to ``target`` and commit them there."""
    target.mkdir(parents=True)
    for name in _PARTS:
        shutil.copytree(PROJECT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _FILES:
        shutil.copy(PROJECT / name, target / name)
    (target / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(PROJECT / ".dvc" / name, target / ".dvc" / name)
    commit(target)
    return target


def commit(folder: Path) -> None:
    """Make ``folder`` a Git repository with all of it in one commit."""
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)


def environment() -> dict[str, str]:
    """Environment for subprocesses: this Python first on PATH, one thread, no telemetry, no network."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **quiet, "PATH": path}


@pytest.fixture
def run_in() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in a folder and return what came of it; `python` and `dvc` are this environment's."""

    def run(folder: Path, *command: str, timeout: float = 300, **extra: str) -> subprocess.CompletedProcess[str]:
        if command[0] in ("python", "dvc"):
            prefix = [sys.executable] if command[0] == "python" else [sys.executable, "-m", "dvc"]
            command = (*prefix, *command[1:])
        return subprocess.run(
            command, cwd=folder, env={**environment(), **extra}, capture_output=True, text=True, timeout=timeout
        )

    return run
