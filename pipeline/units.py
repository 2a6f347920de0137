"""The units of a plan: every stage instance with its command, what it waits for, and how long it is expected to take."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from alberti.errors import ConfigError
from alberti.files import sha256_file, sha256_json, write_text
from pipeline import graph
from pipeline.profiles import dump
from pipeline.resources import needs_of


@dataclass(frozen=True)
class Unit:
    """One stage instance."""

    id: str
    """As DVC names it: `finetune@constrained-0`."""
    command: str
    waits_for: tuple[str, ...]
    key: str
    """Hash of the command, of the params and code that it depends on, of its inputs that no unit makes, and of the keys of
    what it waits for: another key, another result."""
    seconds: float
    outs: tuple[str, ...] = ()
    """Relative to the run's folder."""
    always: bool = False
    """Runs every time; what follows from it runs only if its outs changed."""

    @property
    def stage(self) -> str:
        return self.id.partition("@")[0]


def read_units(project: Path, values: Mapping[str, Any]) -> list[Unit]:
    """Every unit of the project's dvc.yaml for these params, each after what it waits for.

    Raises:
        ConfigError: dvc.yaml or params that DVC cannot read, with DVC's message.
    """
    with tempfile.TemporaryDirectory(prefix="alberti-") as name:
        folder = Path(name)
        shutil.copy(project / "dvc.yaml", folder)
        write_text(folder / "params.yaml", dump(values))
        write_text(folder / ".dvc" / "config", "[core]\n    no_scm = true\n")
        stages = graph.read_units(folder)
    made = {out for stage in stages.values() for out in stage.outs}
    digests = _Digests(project)
    units: dict[str, Unit] = {}
    for stage in stages.values():
        given = {dep: digests(dep) for dep in stage.deps if not any(_overlap(dep, out) for out in made)}
        params = {key: look_up(values, key) if key else dict(values) for key in stage.params}
        key = sha256_json([stage.command, params, [units[name].key for name in stage.upstream], given])
        seconds = needs_of(stage.stage).seconds
        units[stage.name] = Unit(stage.name, stage.command, stage.upstream, key, seconds, tuple(stage.outs), stage.always)
    return list(units.values())


def _overlap(dep: str, out: str) -> bool:
    return dep == out or dep.startswith(f"{out}/") or out.startswith(f"{dep}/")


def look_up(values: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key."""
    found: Any = values
    for part in key.split("."):
        found = found[part]
    return found


class _Digests:
    """Hashes of the project's files and folders, each read once; None for what is not there (yet)."""

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


def chosen(units: Sequence[Unit], only: Sequence[str]) -> list[Unit]:
    """The units of the stages or instances in ``only``, and all that they wait for; every unit for an empty list.

    Raises:
        ConfigError: neither a stage nor an instance.
    """
    known = {unit.id: unit for unit in units}
    for name in only:
        if name not in known and name not in {unit.stage for unit in units}:
            stages = list(dict.fromkeys(unit.stage for unit in units))
            near = get_close_matches(name, [*known, *stages], n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"--only {name}: neither a stage ({', '.join(stages)}) nor an instance{hint}")
    wanted: set[str] = set()
    stack = [unit.id for unit in units if not only or unit.id in only or unit.stage in only]
    while stack:
        name = stack.pop()
        if name not in wanted:
            wanted.add(name)
            stack += known[name].waits_for
    return [unit for unit in units if unit.id in wanted]


def longest_first(units: Sequence[Unit]) -> list[Unit]:
    """By the seconds of the longest chain that begins with a unit, so that nothing long is left for the end."""
    ahead: dict[str, float] = {}
    for unit in reversed(units):
        ahead[unit.id] = unit.seconds + ahead.get(unit.id, 0.0)
        for name in unit.waits_for:
            ahead[name] = max(ahead.get(name, 0.0), ahead[unit.id])
    return sorted(units, key=lambda unit: -ahead[unit.id])


def levels(units: Sequence[Unit]) -> list[list[Unit]]:
    """The units in waves: each waits only for units of earlier ones."""
    place: dict[str, int] = {}
    for unit in units:
        place[unit.id] = 1 + max((place[name] for name in unit.waits_for), default=-1)
    return [[unit for unit in units if place[unit.id] == level] for level in range(max(place.values(), default=-1) + 1)]
