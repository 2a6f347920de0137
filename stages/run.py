"""The whole experiment in one process: every stage of dvc.yaml for several seeds, without DVC, Hydra or Prefect.

    python -m stages.run --profile gpu --seeds 0 1 2 --out runs/first

Where starting a process costs as much as a stage, this is the way to run many of them; outs are those of `dvc repro` with the
same params. What does not depend on the seed runs once, in `RUNS/shared/`; each seed has a workspace `RUNS/seed<N>/` in which
the shared outs are linked and in which every stage also runs by hand. A unit whose params and inputs are those of its
last run is skipped, so the same command goes on after a kill. `pipeline.results` makes tables and figures from RUNS.
"""

import argparse
import contextlib
import gc
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alberti.errors import ConfigError, DataError
from alberti.files import atomic_file, read_json, sha256_file, sha256_json, write_json, write_text
from stages.common import exit_code_of
from stages.params import Params, check_params
from stages.profiles import compose_plain
from stages.units import Unit, function_of, look_up, producers, read_units, reads

PROJECT = Path(__file__).resolve().parent.parent
STAMPS = ".done"
_OUTPUTS = ("data", "models", "metrics", "plots", "report", "fingerprints", "checkpoints", "params.yaml")
_CODE = ("alberti", "stages", "pipeline")
TARGETS = ("evaluate_images", "references", "evaluate_depth")


@dataclass(frozen=True)
class Job:
    """A unit in the workspace where it runs."""

    unit: Unit
    workspace: str
    key: str
    """Hash of its params, of what its inputs were made from, and of files that no stage makes."""
    code: str
    """Hash of the modules that make its outs."""

    @property
    def made(self) -> str:
        return sha256_json([self.key, self.code])


class Hashes:
    """Content hashes of files and folders that no stage makes, each read once."""

    def __init__(self, project: Path):
        self._project = project
        self._known: dict[str, str | None] = {}

    def __call__(self, path: str) -> str | None:
        if path not in self._known:
            self._known[path] = self._read(self._project / path)
        return self._known[path]

    def _read(self, path: Path) -> str | None:
        if path.is_file():
            return sha256_file(path)
        files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        return sha256_json([[file.relative_to(path).as_posix(), sha256_file(file)] for file in files]) if files else None


class Plan:
    """The units of one seed, in order, and where each runs."""

    def __init__(self, values: Mapping[str, Any], out: Path, hashes: Hashes, project: Path, any_code: bool = False):
        self.values, self.out, self.any_code = dict(values), out, any_code
        self.params = check_params(values)
        self.hashes, self.seed = hashes, f"seed{self.params.seed}"
        self.units = [_without_spare_deps(unit, self.params) for unit in read_units(project / "dvc.yaml", values)]
        self.upstream = {unit.id: producers(unit, self.units) for unit in self.units}
        self._made = {out for unit in self.units for out in unit.outs}
        self._seeded: dict[str, bool] = {}
        for unit in self.units:
            upstream = self.upstream[unit.id]
            self._seeded[unit.id] = _draws_from_seed(unit, self.params) or any(self._seeded[up.id] for up in upstream)

    def workspace(self, unit: Unit) -> str:
        return self.seed if self._seeded[unit.id] else "shared"

    def targets(self, stages: Sequence[str], arms: Sequence[str] | None) -> list[Unit]:
        """The units of ``stages`` (modules), of ``arms`` only where a unit belongs to one."""
        known = {unit.module for unit in self.units}
        if unknown := sorted(set(stages) - known):
            raise ConfigError(f"--only {unknown[0]}: no such stage; there are {', '.join(sorted(known))}")
        names = {*self.params.picture_arms, *self.params.evaluate_depth.arms}
        if arms is not None and (unknown := sorted(set(arms) - names)):
            raise ConfigError(f"--arms {unknown[0]}: no such arm; there are {', '.join(sorted(names))}")
        return [
            unit for unit in self.units if unit.module in stages and (arms is None or _arm_of(unit, names) in (None, *arms))
        ]

    def needed(self, targets: list[Unit]) -> list[Unit]:
        """``targets`` and everything that they wait for, in order."""
        wanted, stack = set[str](), list(targets)
        while stack:
            unit = stack.pop()
            if unit.id not in wanted:
                wanted.add(unit.id)
                stack += self.upstream[unit.id]
        return [unit for unit in self.units if unit.id in wanted]

    def jobs(self, targets: list[Unit]) -> Iterator[Job]:
        """What has to be there for ``targets``, in order, with keys that follow what was found or made before."""
        made: dict[str, str] = {}
        for unit in self.needed(targets):
            upstream = {up.id: made[up.id] for up in self.upstream[unit.id]}
            job = self._job(unit, upstream)
            found = self.stamp(job)
            made[unit.id] = found["made"] if found is not None else job.made
            yield job
            if unit.always:
                written = Hashes(self.out / job.workspace)
                made[unit.id] = sha256_json([written(out) for out in unit.outs])

    def _job(self, unit: Unit, upstream: Mapping[str, str]) -> Job:
        files = {dep: self.hashes(dep) for dep in unit.deps if not any(reads(dep, out) for out in self._made)}
        code = {dep: value for dep, value in files.items() if dep.split("/")[0] in _CODE}
        params = {key: look_up(self.values, key) for key in unit.params if key != "seed" or self.workspace(unit) != "shared"}
        inputs = {dep: value for dep, value in files.items() if dep not in code}
        return Job(unit, self.workspace(unit), sha256_json([unit.id, params, upstream, inputs]), sha256_json(code))

    def stamp(self, job: Job) -> dict[str, Any] | None:
        """The stamp of an earlier run that still holds, or None."""
        path = stamp_path(self.out, job)
        if job.unit.always or not path.is_file():
            return None
        found = read_json(path)
        current = found["key"] == job.key and (self.any_code or found["code"] == job.code)
        there = all((self.out / job.workspace / out).exists() for out in job.unit.outs)
        return dict(found) if current and there else None


def stamp_path(out: Path, job: Job) -> Path:
    return out / job.workspace / STAMPS / f"{job.unit.id}.json"


def _draws_from_seed(unit: Unit, params: Params) -> bool:
    """Whether the unit's outs depend on the experiment's seed: it reads `seed`, and uses it."""
    if "seed" not in unit.params:
        return "" in unit.params
    if unit.module == "finetune":
        own = {**params.finetune.model_dump(exclude_unset=True), **params.arms[unit.name]}
        return params.arm(unit.name).steps > 0 and "seed" not in own
    if unit.module == "generate":
        own = params.variants[unit.name].generate if unit.name in params.variants else {}
        return "seed" not in {**params.generate.model_dump(exclude_unset=True), **own}
    if unit.module == "finetune_depth":
        return getattr(params.finetune_depth.train, unit.name.partition("-")[0]).seed is None
    return True


def _without_spare_deps(unit: Unit, params: Params) -> Unit:
    """DVC's dependencies are the same for all settings; only some read the annotations, which take long, or pictures."""
    spare = set()
    if unit.module == "finetune" and params.arm(unit.name).vanishing_points != "detected":
        spare.add("data/annotations")
    if unit.module == "base" and (params.base.source != "train" or params.base.scenes is not None):
        spare.add("data/train")
    return Unit(**{**vars(unit), "deps": tuple(dep for dep in unit.deps if dep not in spare)}) if spare else unit


def _arm_of(unit: Unit, names: set[str]) -> str | None:
    arm = unit.name.partition("-")[2] or unit.name
    return arm if arm in names else None


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
        print(f"imported stages.{module}, {seconds:.1f} s", flush=True)
    return function


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
    """Let the seed's workspace have what a shared unit made."""
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


def run_experiment(values: Mapping[str, Any], options: Options, project: Path = PROJECT) -> bool:
    """Run what is not done yet, seed by seed; True once everything is, False where ``stop_after`` came first.

    Raises:
        ConfigError: params that do not hold, an unknown stage or arm. Whatever a stage raises; what is done stays done.
    """
    out, start, hashes = options.out.resolve(), time.monotonic(), Hashes(project)
    plans = [Plan({**values, "seed": seed}, out, hashes, project, options.any_code) for seed in options.seeds]
    targets = [plan.targets(options.only, options.arms) for plan in plans]
    total = sum(len(plan.needed(units)) for plan, units in zip(plans, targets, strict=True))
    done = 0
    for plan, units in zip(plans, targets, strict=True):
        for workspace in ("shared", plan.seed):
            set_up(plan, workspace, project)
        for job in plan.jobs(plan.units):  # results without a stamp are not collected
            if plan.stamp(job) is None:
                stamp_path(plan.out, job).unlink(missing_ok=True)
        for job in plan.jobs(units):
            done += 1
            late = options.stop_after is not None and time.monotonic() - start > 60 * options.stop_after
            if plan.stamp(job) is None:
                if late:
                    print(
                        f"stopped after {options.stop_after:g} minutes before {plan.seed} {job.unit.id}; run it again to go on"
                    )
                    return False
                seconds = run_job(plan, job)
                print(f"[{done}/{total}] {job.workspace} {job.unit.id} {seconds:.1f} s", flush=True)
            if job.workspace == "shared":
                link_shared(plan, job)
    print(f"{total} units are done in {out}, {time.monotonic() - start:.1f} s", flush=True)
    return True


def main() -> None:
    """Parse the command line, run, and end as a stage does."""
    gc.enable()  # `stages` switches it off while it is imported
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", help="a params file, instead of --profile")
    parser.add_argument("--profile", help="a profile of conf/profile/, composed without Hydra")
    parser.add_argument("--experiment", help="a set of arms from conf/experiment/, laid over the profile")
    parser.add_argument("-S", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="set a param")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="values of the param `seed` (default: 0)")
    parser.add_argument("--only", nargs="+", default=list(TARGETS), metavar="STAGE", help="these stages and what they need")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="these arms only")
    parser.add_argument("--out", default="runs", help="folder of all workspaces (default: runs)")
    parser.add_argument("--any-code", action="store_true", help="keep what other versions of the code made")
    parser.add_argument("--stop-after", type=float, metavar="MINUTES", help="start no further unit after so long")
    arguments = parser.parse_args()
    sys.exit(exit_code_of(lambda: _run(arguments)))


def _run(arguments: argparse.Namespace) -> None:
    if (arguments.params is None) == (arguments.profile is None):
        raise ConfigError("name either --profile or --params")
    if arguments.params is not None:
        values = yaml.safe_load(Path(arguments.params).read_text(encoding="utf-8"))
    else:
        values = compose_plain(PROJECT / "conf", arguments.profile, arguments.experiment, arguments.overrides)
    arms = tuple(arguments.arms) if arguments.arms is not None else None
    options = Options(
        Path(arguments.out), tuple(arguments.seeds), tuple(arguments.only), arms, arguments.any_code, arguments.stop_after
    )
    run_experiment(values, options)


if __name__ == "__main__":
    main()
