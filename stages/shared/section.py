"""Sections of params.yaml: frozen models that reject what they do not know, and problems told as one paragraph."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError

from alberti.errors import ConfigError, in_words

M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """A part of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def validate(model: type[M], values: Any, where: str) -> M:
    """The values as a model; ConfigError that names every problem, with ``where`` in front of each key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_problems(model, error, where))) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelled name, or nothing."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _problems(model: type[BaseModel], error: ValidationError, where: str) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        loc = [str(part) for part in problem["loc"]]
        key = where + ".".join(loc)
        if problem["type"] == "extra_forbidden":
            known = list(_fields_at(model, loc[:-1]))
            yield f"{key}: no such parameter{nearest(loc[-1], known)}; known here: {', '.join(known)}"
        elif problem["type"] == "missing":
            yield f"{key}: missing"
        else:
            yield f"{key}: {in_words(problem)}, got {problem['input']!r:.80}"


def _fields_at(model: type[BaseModel], loc: list[str]) -> Iterable[str]:
    """The known keys of the (nested) model at ``loc``."""
    names = iter(loc)
    for name in names:
        if name.isdigit():  # an item of a list of sections: its own are the keys
            continue
        annotation = model.model_fields[name].annotation if name in model.model_fields else _extra_of(model)
        found = _models_in(annotation)
        if not found:
            return []
        if get_origin(annotation) is dict:
            next(names, None)  # the key of a mapping of sections
        model = found[0]
    return model.model_fields


def _extra_of(model: type[BaseModel]) -> Any:
    """What a model takes under names of its user's own choice."""
    extra = get_type_hints(model).get("__pydantic_extra__")
    return get_args(extra)[-1] if extra is not None else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
