"""Model folders: written whole, with what made them."""

import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alberti.files import atomic_folder, sha256_folder, write_json
from alberti.processes import is_main

_PACKAGES = ("alberti", "torch", "diffusers", "transformers", "timm", "numpy", "opencv-python-headless", "pillow")


@contextmanager
def out_folder(path: str | Path) -> Iterator[Path]:
    """`atomic_folder` in the main process; in the others a folder that is thrown away."""
    if is_main():
        with atomic_folder(path) as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="alberti-") as name:
            yield Path(name)


def hash_folder(folder: str | Path) -> str:
    """SHA-256 over the names and bytes of a model folder's files; `provenance.json` itself does not count."""
    return sha256_folder(folder, without=["provenance.json"])


def write_provenance(
    folder: str | Path, params: Mapping[str, Any], inputs: Mapping[str, str], seed: int | None, project: Path
) -> None:
    """Write `provenance.json`: what made this folder. No times in it, so that equal runs give equal bytes.

    Args:
        params: the section (or sections) of params.yaml that the stage read.
        inputs: hash or fingerprint of every input, by name.
        project: whose Git revision it is.
    """
    value = {
        "params": dict(params),
        "inputs": dict(inputs),
        "seed": seed,
        "packages": {name: version_of(name) for name in _PACKAGES},
        "python": ".".join(map(str, sys.version_info[:3])),
        "git_revision": _git_revision(project),
    }
    write_json(Path(folder) / "provenance.json", value)


def version_of(package: str) -> str | None:
    """The installed package's version; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision(project: Path) -> str | None:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
