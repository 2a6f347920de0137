"""Copies of the project as Git and DVC repositories of their own, and the environment to run commands in them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent
_PARTS = ("alberti", "stages", "pipeline", "conf", "pretrained", "study")
_FILES = ("dvc.yaml", "params.yaml", "prefect.yaml", ".dvcignore", ".gitignore", "pyproject.toml")


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
    """Environment for subprocesses: this Python first on PATH, no telemetry, no network."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **quiet, "PATH": path}
