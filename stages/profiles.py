"""Params of a profile on a machine without Hydra: the same files, merged as Hydra merges them.

`pipeline/profiles.py` is what DVC and the Prefect flow use; a test holds the two to the same result.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from alberti.errors import ConfigError


def compose_plain(
    conf: str | Path, profile: str, experiment: str | None = None, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """The params of ``profile``, then those of ``experiment`` laid over, then ``overrides`` (`a.b=value`, value in YAML).

    Raises:
        ConfigError: no such profile or experiment, or an override that is none.
    """
    conf = Path(conf)
    values = _read(conf, "profile", profile)
    if experiment is not None:
        values = merge(values, _read(conf, "experiment", experiment))
    for override in overrides:
        values = merge(values, _override(override))
    return values


def _read(conf: Path, group: str, name: str) -> dict[str, Any]:
    path = conf / group / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise ConfigError(f"{group} {name!r}: not in {path.parent}; there are {', '.join(known) or 'none'}")
    own: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    values: dict[str, Any] = {}
    for base in own.pop("defaults", []):
        if base != "_self_":
            values = merge(values, _read(conf, group, base))
    return merge(values, own)


def merge(values: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """``other`` laid over ``values``: mappings are merged, everything else is replaced."""
    result = dict(values)
    for key, value in other.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"-S {text}: expected KEY=VALUE, such as arms.constrained.weight=0.05")
    try:
        parsed: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"-S {text}: the value is not valid YAML ({error})") from None
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    return dict(parsed)
