"""What every stage shares: its command line, errors as one paragraph, provenance."""

import argparse
import atexit
import errno
import gc
import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from alberti.errors import AlbertiError, ConfigError
from alberti.files import atomic_folder, sha256_folder, write_json
from alberti.processes import is_main, join, leave, rank
from stages.params import Params, load_params

CHECKPOINTS = Path("checkpoints")
"""Training checkpoints live here, outside DVC's outs, so that an interrupted `dvc repro` resumes."""

_PACKAGES = ("alberti", "torch", "diffusers", "transformers", "timm", "numpy", "opencv-python-headless", "pillow")
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# safetensors and torch.save hide the operating system's error in a text of their own
_FULL_DISK_TEXTS = ("No space left on device", "File too large", "PytorchStreamWriter failed", "Disk quota exceeded")


def run_stage(
    stage: Callable[[Params, str], None],
    instances: Callable[[Params], Iterable[str]] | None = None,
    processes: Literal["one", "apart", "together"] = "one",
) -> None:
    """The `main` of a stage module: parse `--name` and `--params`, run, and end as :func:`exit_code_of` says.

    Args:
        stage: called with the params and the instance's name ("" for a stage that has none).
        instances: the names that params.yaml allows, where the stage has instances.
        processes: what happens under `torchrun`: the main process alone works and the others end at once, each does its
            share without the others, or all train one model and only the main one writes.
    """
    if processes == "one" and not is_main():
        return
    gc.freeze()  # what is imported by now is no garbage: later collections need not look through it
    gc.enable()
    # a process that has imported diffusers else ends by collecting, for over a second, what the system frees at once
    atexit.register(gc.freeze)
    parser = argparse.ArgumentParser(description=sys.modules[stage.__module__].__doc__)
    parser.add_argument("--params", default="params.yaml", help="params file (default: params.yaml)")
    if instances is not None:
        parser.add_argument("--name", required=True, help="the instance: what stands behind the @ in dvc.yaml")
    arguments = parser.parse_args()

    def call() -> None:
        params = load_params(arguments.params)
        name = arguments.name if instances is not None else ""
        if instances is not None and name not in (known := list(instances(params))):
            raise ConfigError(f"--name {name}: no such instance in {arguments.params}; there are {', '.join(known)}")
        if processes == "together":
            join()
        stage(params, name)
        leave()

    sys.exit(exit_code_of(call))


def exit_code_of(call: Callable[[], None]) -> int:
    """Run ``call``; 0, or 1 with one paragraph on stderr for what a person can mend. Other errors keep their traceback."""
    try:
        call()
    except AlbertiError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        _complain("interrupted; the same command goes on from the last checkpoint")
        return 130
    except Exception as error:
        if _is_full_disk(error):
            return _complain(f"the disk is full or a file limit is reached ({error}); free some space and run it again")
        if type(error).__name__ == "OutOfMemoryError":
            return _complain(f"the device ran out of memory ({error}); lower batch_size in params.yaml")
        raise
    return 0


def _complain(message: str) -> int:
    who = "" if is_main() else f"process {rank()}: "
    print(f"{who}error: {' '.join(message.split())}", file=sys.stderr)
    return 1


def _is_full_disk(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL_DISK:
            return True
        if any(text in str(error) for text in _FULL_DISK_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False


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


def write_provenance(folder: str | Path, params: Mapping[str, Any], inputs: Mapping[str, str], seed: int) -> None:
    """Write `provenance.json`: what made this folder. No times in it, so that equal runs give equal bytes.

    Args:
        params: the section (or sections) of params.yaml that the stage read.
        inputs: hash or fingerprint of every input, by name.
    """
    value = {
        "params": dict(params),
        "inputs": dict(inputs),
        "seed": seed,
        "packages": {name: version_of(name) for name in _PACKAGES},
        "python": ".".join(map(str, sys.version_info[:3])),
        "git_revision": _git_revision(),
    }
    write_json(Path(folder) / "provenance.json", value)


def version_of(package: str) -> str | None:
    """The installed package's version; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
