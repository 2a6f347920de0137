"""What tests of stages and pipeline share: the project's folder, and copies of it that tests may work in."""

import copy
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from project_tools import PROJECT, copy_project, environment

from pipeline.profiles import compose

# A shell that starts the tests in the background has them ignore SIGINT, and processes that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's own folder; read only."""
    return PROJECT


@pytest.fixture(scope="session")
def composed(project: Path) -> Callable[[str], dict[str, Any]]:
    """A profile's params, a copy of one's own."""

    @cache
    def compose_once(profile: str) -> dict[str, Any]:
        return compose(project, profile)

    return lambda profile: copy.deepcopy(compose_once(profile))


@pytest.fixture
def project_copy(tmp_path: Path) -> Path:
    """A copy of the project as a Git and DVC repository of its own, nothing run in it."""
    return copy_project(tmp_path / "project")


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
