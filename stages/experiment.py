"""All units of an experiment in the workspaces of its seeds: one unit, what seeds share, all of them in turn."""

import contextlib
import gc
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alberti.errors import DataError
from alberti.files import atomic_file, write_json, write_text
from stages.params import Params
from stages.plan import PROJECT, Hashes, Job, Plan, stamp_path
from stages.units import function_of

_OUTPUTS = ("data", "models", "metrics", "plots", "report", "fingerprints", "checkpoints", "params.yaml")
TARGETS = ("evaluate_images", "references", "evaluate_depth")


def run_job(plan: Plan, job: Job) -> float:
    """Run the unit in its workspace and stamp it; the seconds that it took."""
    function = _function(job.unit.module)
    workspace = plan.out / job.workspace
    for out in job.unit.outs:
        _own(workspace, out)
        if (workspace / out).is_symlink():
            (workspace / out).unlink()
    start = time.monotonic()
    with contextlib.chdir(workspace):
        function(plan.params, job.unit.name)
    missing = [out for out in job.unit.outs if not (workspace / out).exists()]
    if missing:
        raise DataError(f"{job.unit.id}: wrote no {missing[0]}, which dvc.yaml names")
    seconds = time.monotonic() - start
    stamp = {"key": job.key, "code": job.code, "made": job.made, "stage": job.unit.module, "seconds": round(seconds, 3)}
    write_json(stamp_path(plan.out, job), {**stamp, "device": _device_name()})
    _release_memory()
    return seconds


def _function(module: str) -> Callable[[Params, str], None]:
    """What the stage calls; said if importing it takes long, for it does so once and not in every unit."""
    start = time.monotonic()
    function = function_of(module)
    if (seconds := time.monotonic() - start) > 1:
        say(f"imported stages.{module}, {seconds:.1f} s")
    return function


def say(line: str) -> None:
    """Print a line in one write: `print` takes two where output is not buffered, between which another process may come."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _device_name() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "cpu"


def _release_memory() -> None:
    gc.collect()
    gc.freeze()  # what is left are modules: looking through all of them again after every unit takes half a second
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def set_up(plan: Plan, workspace: str, project: Path) -> None:
    """Make a workspace: its params, one place for all checkpoints, the project's other files where a stage looks for them."""
    folder = plan.out / workspace
    folder.mkdir(parents=True, exist_ok=True)
    (plan.out / "checkpoints").mkdir(exist_ok=True)
    write_text(folder / "params.yaml", yaml.safe_dump(plan.values, sort_keys=False, width=120))
    _link(folder / "checkpoints", plan.out / "checkpoints")
    for entry in project.iterdir():
        inside = entry == plan.out or entry in plan.out.parents
        if not entry.name.startswith(".") and entry.name not in _OUTPUTS and not inside:
            _link(folder / entry.name, entry)


def link_shared(plan: Plan, job: Job) -> None:
    """Let the seed's workspace have what the unit made, if seeds share it."""
    if job.workspace != "shared":
        return
    for out in job.unit.outs:
        _own(plan.out / plan.seed, out)
        _link(plan.out / plan.seed / out, plan.out / "shared" / out)


def _own(workspace: Path, out: str) -> None:
    """Take away links above an out, which an older layout may have left: writing through one would change the other side."""
    for parent in reversed(Path(out).parents):
        if (workspace / parent).is_symlink():
            (workspace / parent).unlink()


def _link(path: Path, target: Path) -> None:
    relative = os.path.relpath(target, path.parent.resolve())
    if path.is_symlink() and os.readlink(path) == relative:
        return
    if path.is_dir() and not path.is_symlink():  # made by this seed alone before it could be shared
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.symlink_to(relative)


@dataclass(frozen=True)
class Options:
    """What to run."""

    out: Path
    seeds: tuple[int, ...]
    only: tuple[str, ...] = TARGETS
    arms: tuple[str, ...] | None = None
    any_code: bool = False
    stop_after: float | None = None
    """Minutes after which no further unit is started."""


class Experiment:
    """The plans of all seeds, and what of each is wanted."""

    def __init__(self, values: Mapping[str, Any], options: Options, project: Path = PROJECT):
        self.out, self.project = options.out.resolve(), project
        hashes = Hashes(project)
        self.plans = [Plan({**values, "seed": seed}, self.out, hashes, project, options.any_code) for seed in options.seeds]
        self.targets = [plan.targets(options.only, options.arms) for plan in self.plans]
        self.total = sum(len(plan.needed(units)) for plan, units in zip(self.plans, self.targets, strict=True))

    def set_up(self) -> None:
        """Make the workspaces, and forget results whose params or inputs are no longer theirs."""
        for plan in self.plans:
            for workspace in ("shared", plan.seed):
                set_up(plan, workspace, self.project)
            for job in plan.jobs(plan.units):  # results without a stamp are not collected
                if plan.stamp(job) is None:
                    stamp_path(plan.out, job).unlink(missing_ok=True)

    def jobs(self) -> Iterator[tuple[Plan, Job]]:
        """What is wanted, seed by seed."""
        for plan, units in zip(self.plans, self.targets, strict=True):
            for job in plan.jobs(units):
                yield plan, job

    def left(self) -> int:
        """How many units are not done."""
        return sum(plan.stamp(job) is None for plan, job in self.jobs())

    def say_done(self, seconds: float) -> None:
        say(f"{self.total} units are done in {self.out}, {seconds:.1f} s")


def run_experiment(values: Mapping[str, Any], options: Options, project: Path = PROJECT) -> bool:
    """Run what is not done yet, seed by seed; True once everything is, False where ``stop_after`` came first.

    Raises:
        ConfigError: params that do not hold, an unknown stage or arm. Whatever a stage raises; what is done stays done.
    """
    start, experiment = time.monotonic(), Experiment(values, options, project)
    experiment.set_up()
    for done, (plan, job) in enumerate(experiment.jobs(), start=1):
        late = options.stop_after is not None and time.monotonic() - start > 60 * options.stop_after
        if plan.stamp(job) is None:
            if late:
                say(f"stopped after {options.stop_after:g} minutes before {plan.seed} {job.unit.id}; run it again to go on")
                return False
            seconds = run_job(plan, job)
            say(f"[{done}/{experiment.total}] {job.workspace} {job.unit.id} {seconds:.1f} s")
        link_shared(plan, job)
    experiment.say_done(time.monotonic() - start)
    return True
