"""What a unit needs while it runs, and which of the ready ones should start first.

The figures are those of the small models of the profiles `default` and `gpu`; for others, `needs` of the flow
replaces them. They decide where and when units run, never what comes out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from alberti.errors import ConfigError
from pipeline.graph import Unit


@dataclass(frozen=True)
class Needs:
    """What one unit of a stage takes."""

    gpu: bool = False
    """Whether it uses a GPU where there is one."""
    cores: int = 1
    """Cores that it keeps busy beside a GPU; 0: as many as it gets."""
    memory: float = 2.0
    """GB of main memory."""
    seconds: float = 10.0
    """How long it takes, about: units on the longest path start first."""


DEFAULTS = {
    "watch": Needs(cores=1, memory=1, seconds=5),
    "prepare": Needs(cores=0, memory=4, seconds=20),
    "annotate": Needs(cores=0, memory=4, seconds=15),
    "base": Needs(gpu=True, cores=2, memory=6, seconds=5),
    "finetune": Needs(gpu=True, cores=2, memory=6, seconds=60),
    "generate": Needs(gpu=True, cores=1, memory=4, seconds=30),
    "evaluate_images": Needs(gpu=True, cores=2, memory=4, seconds=25),
    "references": Needs(gpu=True, cores=2, memory=4, seconds=25),
    "base_depth": Needs(gpu=True, cores=2, memory=4, seconds=5),
    "finetune_depth": Needs(gpu=True, cores=2, memory=4, seconds=15),
    "evaluate_depth": Needs(gpu=True, cores=1, memory=4, seconds=12),
    "report": Needs(cores=1, memory=4, seconds=20),
}
"""By stage."""


def needs_of(stage: str, overrides: Sequence[str] = ()) -> Needs:
    """What a unit of ``stage`` needs.

    Args:
        overrides: `STAGE.KEY=VALUE`, such as `finetune.seconds=3600`; the last one counts.

    Raises:
        ConfigError: an override that names no stage or key, or whose value is none.
    """
    found = DEFAULTS.get(stage, Needs())
    for override in overrides:
        name, _, assignment = override.partition(".")
        key, _, value = assignment.partition("=")
        types = {field.name: type(getattr(found, field.name)) for field in fields(Needs)}
        if name not in DEFAULTS or key not in types:
            raise ConfigError(
                f"needs {override!r}: expected STAGE.KEY=VALUE with a stage of dvc.yaml and one of {', '.join(types)}, "
                "such as finetune.seconds=3600"
            )
        if name == stage:
            changed: dict[str, Any] = {key: _value(types[key], value, override)}
            found = replace(found, **changed)
    return found


def _value(kind: type, text: str, override: str) -> bool | int | float:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        number: int | float = kind(text)
    except (KeyError, ValueError):
        raise ConfigError(f"needs {override!r}: expected a value of type {kind.__name__}, got {text!r}") from None
    return number


def path_lengths(units: Mapping[str, Unit], seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds from the start of each unit to the end of the longest chain of units that depend on it.

    Args:
        units: every unit after what it waits for.
    """
    lengths = dict.fromkeys(units, 0.0)
    for name in reversed(list(units)):
        lengths[name] += seconds[name]
        for upstream in units[name].upstream:
            lengths[upstream] = max(lengths[upstream], lengths[name])
    return lengths
