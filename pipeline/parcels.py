"""What a unit made, for a machine that does not see the folder where it ran.

DVC keeps large outs in its remote, by key. What says which key, the unit's entry in dvc.lock, and the small outs that are not
in DVC's cache travel as a parcel.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alberti.errors import ConfigError, DataError
from alberti.files import write_text


@dataclass(frozen=True)
class Parcel:
    """The entry of a unit in dvc.lock, and its outs that are not cached with their files: path -> bytes."""

    name: str
    entry: dict[str, Any]
    outs: tuple[str, ...]
    files: dict[str, bytes]

    @classmethod
    def of(cls, workspace: Path, name: str) -> "Parcel":
        """Pack what a unit made in ``workspace``."""
        files: dict[str, bytes] = {}
        outs = _uncached(workspace, name)
        for out in outs:
            path = workspace / out
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    files[file.relative_to(workspace).as_posix()] = file.read_bytes()
        return cls(name, _read_lock(workspace)["stages"][name], outs, files)


def _read_lock(workspace: Path) -> dict[str, Any]:
    """dvc.lock by DVC's own reader: to PyYAML, of an older YAML, `1e-05` is a text."""
    from dvc.utils.serialize import load_yaml

    path = workspace / "dvc.lock"
    found: dict[str, Any] = load_yaml(str(path)) if path.is_file() else {}
    return found or {"schema": "2.0", "stages": {}}


def _uncached(workspace: Path, name: str) -> tuple[str, ...]:
    from dvc.repo import Repo

    with Repo(str(workspace)) as repo:
        stage = next(stage for stage in repo.index.stages if stage.name == name)
        return tuple(out.def_path for out in stage.outs if not out.use_cache)


def open_parcel(workspace: Path, parcel: Parcel) -> None:
    """Put the parcel's entry into dvc.lock, and its files where they belong."""
    from dvc.repo import Repo
    from dvc.utils.serialize import dump_yaml

    with Repo(str(workspace)) as repo, repo.lock:
        for out in parcel.outs:
            if (workspace / out).is_dir():  # what lay there before is none of the unit's
                shutil.rmtree(workspace / out)
        for name, content in parcel.files.items():
            (workspace / name).parent.mkdir(parents=True, exist_ok=True)
            (workspace / name).write_bytes(content)
        lock, written = _read_lock(workspace), workspace / ".dvc" / "tmp" / "dvc.lock"
        lock["stages"][parcel.name] = parcel.entry
        written.parent.mkdir(parents=True, exist_ok=True)
        dump_yaml(str(written), lock)
        os.replace(written, workspace / "dvc.lock")


def remote_of(workspace: Path) -> dict[str, str]:
    """Settings of the default remote, for machines that have only the code.

    Raises:
        ConfigError: there is none.
    """
    from dvc.repo import Repo

    with Repo(str(workspace)) as repo:
        name = repo.config["core"].get("remote")
        if not name:
            raise ConfigError(
                f"{workspace}: without shared files outs travel through DVC's default remote, and there is none; "
                "`dvc remote add --global --default NAME URL` adds one"
            )
        return {"name": name, **{key: str(value) for key, value in repo.config["remote"][name].items()}}


def fetch(workspace: Path, remote: Mapping[str, str], parcels: Sequence[Parcel], revision: str = "") -> None:
    """Make ``workspace``, which has the code, have what the parcels name; its Git commit is called ``revision``."""
    if revision:  # outs name the commit, and must be the same here as where the repository is
        for folder in ("objects", "refs"):
            (workspace / ".git" / folder).mkdir(parents=True, exist_ok=True)
        write_text(workspace / ".git" / "HEAD", revision + "\n")
    config = (
        f"[core]\n    analytics = false\n    no_scm = true\n    remote = {remote['name']}\n['remote \"{remote['name']}\"']\n"
    )
    config += "".join(f"    {key} = {value}\n" for key, value in remote.items() if key != "name")
    write_text(workspace / ".dvc" / "config", config)
    for parcel in parcels:
        open_parcel(workspace, parcel)
    if names := [parcel.name for parcel in parcels]:
        _dvc(workspace, "pull", *names)


def send(workspace: Path, name: str) -> Parcel:
    """Push a unit's outs to the remote, and pack the rest."""
    _dvc(workspace, "push", name)
    return Parcel.of(workspace, name)


def share(workspace: Path, names: Sequence[str]) -> None:
    """Have the outs of units that lie in ``workspace`` in the remote."""
    if names:
        _dvc(workspace, "push", *names)


def bring(workspace: Path, outs: Sequence[str]) -> None:
    """Have outs from the remote in ``workspace``."""
    if outs:
        _dvc(workspace, "pull", *outs)


def revision_of(workspace: Path) -> str:
    """The Git commit; "" where there is none."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=workspace, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def _dvc(workspace: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"dvc {' '.join(arguments)}: {' '.join((done.stderr or done.stdout).split())}")
