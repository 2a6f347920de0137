"""Writes docs/params.md from the schema, docs/commands.md from the commands, docs/links.md from the pages.

Run `python -m pipeline.reference` after a change of any of them.
"""

import argparse
import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from alberti.diffusion.config import ConstraintSettings
from alberti.files import write_text
from pipeline.command_reference import command_reference
from pipeline.links import link_page
from pipeline.profiles import PROJECT
from stages.shared.params import ArmParams, Params
from stages.shared.source_params import SourceParams

TARGET = PROJECT / "docs" / "params.md"
COMMANDS = PROJECT / "docs" / "commands.md"
LINKS = PROJECT / "docs" / "links.md"
_INTRO = """# Params

Every key of `params.yaml`, written by `python -m pipeline.reference` from the schema. Where a profile says nothing else
(`conf/profile/`), a key has its default. NAME is a name of your own, `null` means none.
An arm has what `finetune` says where it says nothing itself, and a variant what `generate` says.

"""
_WORDS: dict[Any, str] = {str: "text", bool: "true, false", int: "integer", float: "number"}


def reference() -> str:
    """The page in Markdown: a table for each kind of section, with all places where it stands."""
    places: dict[type[BaseModel], list[str]] = {}
    for place, model in _sections(Params, ""):
        places.setdefault(model, []).append(place)
    return _INTRO + "\n".join(_table(model, where) for model, where in places.items())


def _sections(model: type[BaseModel], place: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield place, model
    nested = [(name, field.annotation) for name, field in model.model_fields.items()]
    if model.model_config.get("extra") == "allow":
        nested.append(("NAME", SourceParams))
    for name, annotation in nested:
        key = f"{place}.{name}" if place else name
        found = _model_in(annotation)
        if found is not None:
            yield from _sections(found, key + _among(annotation, ".NAME", "[]", ""))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [model for model in map(_model_in, get_args(annotation)) if model is not None]
    return found[0] if found else None


def _among(annotation: Any, by_name: str, listed: str, alone: str) -> str:
    """Which of three, by whether the annotation is a mapping, a list or neither."""
    origin = get_origin(annotation)
    return by_name if origin is dict else listed if origin is list else alone


def _table(model: type[BaseModel], places: Sequence[str]) -> str:
    title = "Top level" if places == [""] else f"`{places[0]}`"
    also = f"\nAlso at {', '.join(f'`{place}`' for place in places[1:])}.\n" if len(places) > 1 else ""
    rows = "\n".join(_row(model, name, field) for name, field in model.model_fields.items())
    about = _plain(inspect.getdoc(model) or "")
    return f"## {title}\n\n{about}\n{also}\n| key | default | values | meaning |\n|---|---|---|---|\n{rows}\n"


def _row(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    meaning = _meanings(model).get(name, "")
    if issubclass(model, ArmParams) and name in ConstraintSettings.model_fields:
        field = ConstraintSettings.model_fields[name]
        meaning = meaning or _meanings(ConstraintSettings).get(name, "")
    cells = (f"`{name}`", _default(field), _values(field.annotation), _plain(meaning))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        given = ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.model_dump(exclude_defaults=True).items())
        return f"`{{{given}}}`"
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)


def _values(annotation: Any) -> str:
    """What may stand there, in YAML's words."""
    if _model_in(annotation) is not None:
        return _among(annotation, "sections by name", "list of sections", "section")
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return _WORDS.get(annotation, "any")
    if str(get_origin(annotation)) == "typing.Literal":
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (list, tuple):
        return "list: " + _values(get_args(annotation)[0])
    if get_origin(annotation) is dict:
        return "mapping"
    return _join(_values(part) for part in get_args(annotation) if part is not type(None) and not hasattr(part, "gt"))


def _join(parts: Iterator[str]) -> str:
    return " or ".join(dict.fromkeys(part for part in parts if part)) or "any"


@cache
def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """The strings behind the fields of a model and of what it is made from; a derived model's own come first."""
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        if issubclass(parent, BaseModel) and parent is not BaseModel:
            found |= _own_meanings(parent)
    return found


def _own_meanings(model: type[BaseModel]) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for field, behind in zip(definition.body, definition.body[1:], strict=False):
        match field, behind:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = text
    return found


def _plain(text: str) -> str:
    """A docstring as Markdown on one line, without Sphinx's marks."""
    text = re.sub(r":[a-z]+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    return " ".join(text.split())


def main() -> None:
    """Write the pages."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write_text(Path(TARGET), reference())
    write_text(COMMANDS, command_reference())
    write_text(LINKS, link_page())


if __name__ == "__main__":
    main()
