"""The units of a DVC workspace, one for each stage instance: what each runs, reads and writes, and what it waits for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alberti.errors import ConfigError


@dataclass(frozen=True)
class Unit:
    """One stage instance of dvc.yaml, as DVC resolves it."""

    name: str
    """`stage@instance`, or `stage` alone."""
    command: str
    deps: tuple[str, ...]
    """Files and folders, relative to the workspace."""
    outs: tuple[str, ...]
    """Everything that it writes: outs, metrics, plots."""
    params: tuple[str, ...]
    """Dotted keys of params.yaml; "" stands for the whole file."""
    upstream: tuple[str, ...]
    """Names of the units whose outs it reads."""
    always: bool = False
    """Runs every time; what follows from it runs only if its outs changed."""

    @property
    def stage(self) -> str:
        return self.name.partition("@")[0]


def read_units(workspace: str | Path) -> dict[str, Unit]:
    """Every unit by name, each after what it waits for.

    Raises:
        ConfigError: dvc.yaml or params.yaml that DVC cannot read; the message is DVC's.
    """
    import networkx as nx

    def read(repo: Any) -> dict[str, Unit]:
        graph = repo.index.graph  # edges run from a stage to what it depends on
        order = nx.lexicographical_topological_sort(graph.reverse(copy=True), key=lambda stage: stage.name)
        return {stage.name: _unit(stage, sorted(up.name for up in graph.successors(stage))) for stage in order}

    return _with_repo(workspace, read)


def _unit(stage: Any, upstream: list[str]) -> Unit:
    from dvc.dependency import ParamsDependency

    deps = dict.fromkeys(dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency))
    params = [
        key for dep in stage.deps if isinstance(dep, ParamsDependency) for key in (dep.params or [""])
    ]  # no keys: the whole file
    outs = tuple(out.def_path for out in stage.outs)
    return Unit(stage.name, stage.cmd, tuple(deps), outs, tuple(params), tuple(upstream), bool(stage.always_changed))


def stage_graph(workspace: str | Path) -> dict[str, list[str]]:
    """Name of a unit -> names of those that it waits for, every unit after these."""
    return {name: list(unit.upstream) for name, unit in read_units(workspace).items()}


def changed_units(workspace: str | Path, units: Mapping[str, Unit], allow_missing: bool = False) -> set[str]:
    """Units that DVC would run, by its own count, and all that depend on one of them.

    Args:
        allow_missing: an out that dvc.lock names need not be here.
    """

    def changed(repo: Any) -> set[str]:
        with repo.lock:
            found = {stage.name for stage in repo.index.stages if stage.name in units and stage.changed(allow_missing)}
        for name, unit in units.items():
            if found.intersection(unit.upstream):
                found.add(name)
        return found

    return _with_repo(workspace, changed)


def _with_repo(workspace: str | Path, read: Callable[[Any], Any]) -> Any:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(workspace)) as repo:
            return read(repo)
    except DvcException as error:
        raise ConfigError(f"{workspace}: {error}") from error
