"""What the options of several commands have in common."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alberti.errors import ConfigError, in_words

if TYPE_CHECKING:
    from pydantic import ValidationError


def at_home(path: Path) -> Path:
    """The path with ``~`` expanded, which shells leave alone in ``--out=~/there``."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: {error}") from None


def check_device(name: str | None) -> str:
    """The device of this name; "auto" or None: a GPU if there is one, else the CPU. ConfigError if it cannot be used here."""
    from alberti.device import choose_device

    try:
        return str(choose_device(name))
    except ConfigError as error:
        raise ConfigError(f"--{error}") from None


def check_finite(option: str, value: float | None) -> None:
    """ConfigError if the number that an option gave is infinite or none at all; typer's ``min`` lets infinity pass."""
    if value is not None and not math.isfinite(value):
        raise ConfigError(f"{option}: expected a finite number, got {value}")


def check_positive(option: str, value: float | None) -> None:
    """ConfigError if the number that an option gave is not a finite one above 0."""
    if value is not None and not 0 < value < math.inf:
        raise ConfigError(f"{option}: expected a finite number above 0, got {value}")


def refused_option(error: "ValidationError") -> ConfigError:
    """The error of a setting that an option gave, in the option's own name."""
    problem: Any = error.errors()[0]
    option = "--" + str(problem["loc"][-1]).replace("_", "-") if problem["loc"] else "options"
    return ConfigError(f"{option}: {in_words(problem)}, got {problem.get('input')!r:.80}")
