"""Docstrings as MkDocs shows them: Sphinx's marks become code, and `a, b: text` describes each of the two."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")
_SHARED = re.compile(r"^( {4,8})(\w+(?:, \w+)+): (.*(?:\n\1 {4}.*)*)$", re.MULTILINE)


class Roles(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = _SHARED.sub(_each, text) if "Args:" in text else text


def _each(match: re.Match[str]) -> str:
    indent, names, text = match.groups()
    return "\n".join(f"{indent}{name}: {text}" for name in names.split(", "))
