"""Which stage instances an experiment of several seeds consists of, where each runs, and whether it is done."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alberti.errors import ConfigError
from alberti.files import read_json, sha256_file, sha256_json
from stages.params import Params, check_params
from stages.units import Unit, look_up, producers, read_units, reads

PROJECT = Path(__file__).resolve().parent.parent
STAMPS = ".done"
_CODE = ("alberti", "stages", "pipeline")


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
        self.units = [without_spare_deps(unit, self.params) for unit in read_units(project / "dvc.yaml", values)]
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
        named = params.finetune.training.model_fields_set | set(params.arms[unit.name].get("training", {}))
        return params.arm(unit.name).training.steps > 0 and "seed" not in named
    if unit.module == "generate":
        own = params.variants[unit.name].generate if unit.name in params.variants else {}
        return "seed" not in {**params.generate.model_dump(exclude_unset=True), **own}
    if unit.module == "finetune_depth":
        return "seed" not in getattr(params.finetune_depth.train, unit.name.partition("-")[0]).training.model_fields_set
    return True


def without_spare_deps(unit: Unit, params: Params) -> Unit:
    """DVC's dependencies are the same for all settings; only some read the annotations, which take long, or pictures."""
    spare = set()
    if unit.module == "finetune" and params.arm(unit.name).vanishing_points != "detected":
        spare.add("data/annotations")
    if unit.module == "base_depth" and getattr(params.base_depth, unit.name).train is None:
        spare.add("data/train")
    if unit.module == "base" and (params.base.source != "train" or params.base.scenes is not None):
        spare.add("data/train")
    return Unit(**{**vars(unit), "deps": tuple(dep for dep in unit.deps if dep not in spare)}) if spare else unit


def _arm_of(unit: Unit, names: set[str]) -> str | None:
    arm = unit.name.partition("-")[2] or unit.name
    return arm if arm in names else None
