"""Errors that a person can act on: each message names the file or argument, what was expected and what came."""

from typing import Any

_WORDS = {
    "Input should be greater": "expected a number greater",
    "Input should be less": "expected a number less",
    "Input should be": "expected",
    "String should match pattern": "expected text that matches",
    "Field required": "expected a value",
    "Extra inputs are not permitted": "there is no such key",
}
"""How pydantic's sentences begin, and ours."""


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


def in_words(problem: Any) -> str:
    """What one problem of a pydantic ``ValidationError`` says, in the words of our own messages."""
    said = str(problem["msg"]).removeprefix("Value error, ")
    for theirs, ours in _WORDS.items():
        if said.startswith(theirs):
            return ours + said.removeprefix(theirs)
    return said[:1].lower() + said[1:] if said[1:2].islower() else said


def first_problem(error: Any, name: str = "value") -> str:
    """The first problem of a pydantic ``ValidationError`` in one line: where, what is wrong, what came.

    pydantic's own text runs over several lines and ends in a link. ``name`` stands for a problem of the whole, whose
    validator says itself what came.
    """
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if not where and problem["type"] == "value_error":
        return in_words(problem)
    return f"{where or name}: {in_words(problem)}, got {problem.get('input')!r:.80}"
