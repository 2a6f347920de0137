"""The stage instances of dvc.yaml without DVC: what each one runs, reads and writes for given params.

Covers the part of DVC's templating that dvc.yaml uses: `foreach` over a mapping or list, `matrix`, and `${a.b}` from params,
`item` or `key`.
"""

import importlib
import itertools
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alberti.errors import ConfigError
from stages.params import Params

_EXPRESSION = re.compile(r"\$\{([\w.]+)\}")


@dataclass(frozen=True)
class Unit:
    """One stage instance."""

    stage: str
    """Name in dvc.yaml."""
    module: str
    """`stages.<module>` runs it."""
    name: str
    """The instance, "" for a stage that has none."""
    params: tuple[str, ...]
    """Dotted keys of the params that it reads; "" stands for all of them."""
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    """Everything that it writes: outs, metrics, plots."""
    always: bool = False
    """Runs every time: what follows from it depends on what it wrote."""

    @property
    def id(self) -> str:
        return f"{self.stage}@{self.name}" if self.name else self.stage


def read_units(path: str | Path, values: Mapping[str, Any]) -> list[Unit]:
    """Every stage instance of the dvc.yaml at ``path`` for the params ``values``, each after what it waits for.

    Raises:
        ConfigError: an expression that the params have no value for, a command that is not `python -m stages.X`, a circle.
    """
    stages = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["stages"]
    units = [unit for stage, definition in stages.items() for unit in _instances(stage, definition, values)]
    return _ordered(units)


def _instances(stage: str, definition: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Unit]:
    if "foreach" in definition:
        items = _resolve(definition["foreach"], values)
        pairs = items.items() if isinstance(items, Mapping) else ((str(item), item) for item in items)
        for key, item in pairs:
            yield _unit(stage, definition["do"], {**values, "key": key, "item": item})
    elif "matrix" in definition:
        axes = {name: _resolve(axis, values) for name, axis in definition["matrix"].items()}
        for chosen in itertools.product(*axes.values()):
            yield _unit(stage, definition, {**values, "item": dict(zip(axes, chosen, strict=True))})
    else:
        yield _unit(stage, definition, values)


def _unit(stage: str, definition: Mapping[str, Any], context: Mapping[str, Any]) -> Unit:
    def paths(section: str) -> list[str]:
        entries = definition.get(section, [])
        return [_resolve(entry if isinstance(entry, str) else next(iter(entry)), context) for entry in entries]

    words = shlex.split(_resolve(definition["cmd"], context))
    if words[:2] != ["python", "-m"] or not words[2].startswith("stages."):
        raise ConfigError(f"dvc.yaml: stage {stage}: expected `python -m stages.X`, got {' '.join(words)!r}")
    params = ["" if not isinstance(entry, str) else _resolve(entry, context) for entry in definition.get("params", [])]
    always = bool(definition.get("always_changed", False))
    name = words[words.index("--name") + 1] if "--name" in words else ""
    outs = [path for section in ("outs", "metrics", "plots") for path in paths(section)]
    return Unit(stage, words[2].removeprefix("stages."), name, tuple(params), tuple(paths("deps")), tuple(outs), always)


def _resolve(text: Any, context: Mapping[str, Any]) -> Any:
    """``text`` with its expressions replaced; an expression alone keeps its type."""
    if not isinstance(text, str):
        return text
    if whole := _EXPRESSION.fullmatch(text):
        return look_up(context, whole[1])
    return _EXPRESSION.sub(lambda match: str(look_up(context, match[1])), text)


def look_up(values: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, the whole for ""; ConfigError if there is none."""
    found: Any = values
    for part in key.split(".") if key else ():
        if not isinstance(found, Mapping) or part not in found:
            raise ConfigError(f"params: no value {key!r}, which dvc.yaml refers to")
        found = found[part]
    return found


def reads(dep: str, out: str) -> bool:
    """Whether the dependency ``dep`` is made of, or part of, the out ``out``."""
    return dep == out or dep.startswith(out + "/") or out.startswith(dep + "/")


def producers(unit: Unit, units: list[Unit]) -> list[Unit]:
    """The units whose outs ``unit`` reads."""
    return [other for other in units if other is not unit and any(reads(dep, out) for dep in unit.deps for out in other.outs)]


def _ordered(units: list[Unit]) -> list[Unit]:
    """In the file's order as far as dependencies allow it."""
    waiting, done, result = {unit.id: producers(unit, units) for unit in units}, set[str](), list[Unit]()
    while len(result) < len(units):
        ready = [unit for unit in units if unit.id not in done and all(up.id in done for up in waiting[unit.id])]
        if not ready:
            raise ConfigError("dvc.yaml: stages wait for each other in a circle")
        result += ready
        done |= {unit.id for unit in ready}
    return result


def function_of(module: str) -> Callable[[Params, str], None]:
    """What `python -m stages.<module>` calls with the params and an instance's name."""
    name = {"finetune": "finetune_arm", "generate": "generate_arm"}.get(module, module)
    function: Callable[[Params, str], None] = getattr(importlib.import_module(f"stages.{module}"), name)
    return function
