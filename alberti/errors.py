"""Errors that a person can act on: each message names the file or argument, what was expected and what came."""

from typing import Any


class AlbertiError(ValueError):
    """Base of every error that the user's input causes; commands print it as one paragraph and exit with 1."""


class DataError(AlbertiError):
    """A file or data set that is missing, damaged or not what was expected."""


class ConfigError(AlbertiError):
    """A parameter that is unknown, of the wrong type or contradicts another."""


def first_line(error: BaseException) -> str:
    """What an error of another library says, for a message of ours: its first line, or the name of its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class CheckpointError(AlbertiError):
    """A model folder or training checkpoint that cannot be used."""


def first_problem(error: Any, name: str = "value") -> str:
    """The first problem of a pydantic ``ValidationError`` in one line: where, what is wrong, what came.

    pydantic's own text runs over several lines and ends in a link. ``name`` stands for a problem of the whole.
    """
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where or name}: {problem['msg']} (got {problem.get('input')!r:.80})"
