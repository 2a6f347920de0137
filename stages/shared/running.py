"""How a stage runs: its command line, its device, errors as one paragraph."""

import argparse
import atexit
import errno
import gc
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from alberti.errors import AlbertiError, ConfigError
from alberti.processes import is_main, join, leave, rank
from stages.shared.graph import Instance, check_graph, derive
from stages.shared.layout import Layout, instance_name
from stages.shared.params import Params, load_params

StageFunction = Callable[[Layout, Params, Instance], None]
_SINGLE = ("base", "references", "report")
"""Stages that have one instance and no name for it."""

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# safetensors and torch.save hide the operating system's error in a text of their own
_FULL_DISK_TEXTS = ("No space left on device", "File too large", "PytorchStreamWriter failed", "Disk quota exceeded")


def run_stage(
    stage: StageFunction,
    processes: Literal["one", "apart", "together"] = "one",
) -> None:
    """The `main` of a stage module: parse the command line, run, and end as :func:`exit_code_of` says.

    Args:
        stage: called with the run's paths, its params and the instance: an entry of `graph`, {} for a stage that has only one.
        processes: what happens under `torchrun`: the main process alone works and the others end at once, each does its
            share without the others, or all train one model and only the main one writes.
    """
    if processes == "one" and not is_main():
        return
    name = Path(inspect.getfile(stage)).stem
    arguments = stage_parser(getattr(stage, "__globals__", {}).get("__doc__"), named=name not in _SINGLE).parse_args()

    def call() -> None:
        # DVC sees only what is written out; by hand, or from a makefile, a shorter file does
        params = load_params(arguments.params, complete="DVC_STAGE" in os.environ)
        layout = Layout.of(arguments.root, arguments.project)
        if "DVC_STAGE" in os.environ:
            check_graph(params, f"{arguments.params}: ", layout)
        instance = _instance(name, params, arguments.name) if name not in _SINGLE else {}
        if processes == "together":
            join()
        stage(layout, params, instance)
        leave()

    # Before torch loads OpenMP: its threads else spin while they wait, and on a machine that is busy with anything else (a
    # second stage, say) that makes small models many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # a process that has imported diffusers else ends by collecting, for over a second, what the system frees at once
    atexit.register(gc.freeze)
    sys.exit(exit_code_of(call))


def stage_parser(description: str | None, named: bool) -> argparse.ArgumentParser:
    """The command line of a stage; ``named``: it has instances."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml", help="params file (default: params.yaml)")
    parser.add_argument("--root", default=".", help="folder of the run, where stages read and write (default: .)")
    parser.add_argument("--project", default=".", help="folder that relative paths in params start from (default: .)")
    if named:
        parser.add_argument(
            "--name",
            required=True,
            help="the instance: what follows the @ in `dvc stage list`; with one seed the seed's number can be left out",
        )
    return parser


def _instance(stage: str, params: Params, name: str) -> Instance:
    known = derive(params)[stage]
    for found in (name, instance_name(name, seed=params.seeds[0])):
        if found in known and (found == name or len(params.seeds) == 1):
            return {"name": found, **known[found]}
    raise ConfigError(f"--name {name}: stage {stage} has no such instance; there are {', '.join(known) or 'none'}")


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
