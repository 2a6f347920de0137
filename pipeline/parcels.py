"""What a unit made, for a machine that does not see the folder where it ran.

DVC keeps large outs in its remote, by key. What says which key, the unit's entry in dvc.lock, and the small outs that are not
in DVC's cache travel as a parcel.
"""

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
    """The entry of a unit in dvc.lock, and its outs that are not cached: path -> bytes."""

    name: str
    entry: dict[str, Any]
    files: dict[str, bytes]

    @classmethod
    def of(cls, workspace: Path, name: str) -> "Parcel":
        """Pack what a unit made in ``workspace``."""
        import yaml

        lock = yaml.safe_load((workspace / "dvc.lock").read_text(encoding="utf-8"))
        files: dict[str, bytes] = {}
        for out in _uncached(workspace, name):
            path = workspace / out
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    files[file.relative_to(workspace).as_posix()] = file.read_bytes()
        return cls(name, lock["stages"][name], files)


def _uncached(workspace: Path, name: str) -> list[str]:
    from dvc.repo import Repo

    with Repo(str(workspace)) as repo:
        stage = next(stage for stage in repo.index.stages if stage.name == name)
        return [out.def_path for out in stage.outs if not out.use_cache]


def open_parcel(workspace: Path, parcel: Parcel) -> None:
    """Put the parcel's entry into dvc.lock, and its files where they belong."""
    import yaml
    from dvc.repo import Repo

    for name, content in parcel.files.items():
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_bytes(content)
    with Repo(str(workspace)) as repo, repo.lock:
        path = workspace / "dvc.lock"
        lock = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
        lock = lock or {"schema": "2.0", "stages": {}}
        lock["stages"][parcel.name] = parcel.entry
        write_text(path, yaml.safe_dump(lock, sort_keys=False))


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


def fetch(workspace: Path, remote: Mapping[str, str], parcels: Sequence[Parcel]) -> None:
    """Make ``workspace``, which has the code, have what the parcels name."""
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


def _dvc(workspace: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"dvc {' '.join(arguments)}: {' '.join((done.stderr or done.stdout).split())}")
