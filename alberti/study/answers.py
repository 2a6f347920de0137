"""Raw answers: one JSON object per line, each complete in itself, whoever collected it."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alberti.errors import DataError, first_problem
from alberti.files import atomic_file, write_json
from alberti.study.design import Side, Study
from alberti.study.schedule import Kind, Trial

ANSWERS, IMPORTED = "answers.jsonl", "imported"


class Answer(BaseModel):
    """One choice of one rater. Nothing in it says who the rater is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    study: str
    design: str
    """Digest of the design under which it was given."""
    source: Literal["server", "static", "label-studio", "simulation"]
    rater: str
    """A pseudonym, unique within the study."""
    trial: int = Field(ge=0)
    """Its place in the rater's series, from 0."""
    block: str
    kind: Kind
    picture: str
    scene: str
    left: str
    """The arm whose picture stood left, or above; "straight" or "bent" in catch pairs."""
    right: str
    chosen: Side
    repeat_of: int | None = None
    """The trial that this one repeats, sides swapped."""
    ms: float | None = Field(default=None, ge=0)
    """From both pictures on the screen to the choice, by the rater's browser."""
    received_at: str | None = None
    """ISO 8601, UTC."""
    layout: Literal["row", "column"] | None = None
    device: Literal["key", "mouse", "touch", "pen"] | None = None
    window: tuple[int, int] | None = None
    """Width and height in CSS pixels."""
    finished: bool = True
    """Whether the rater went through to the end."""


def answer_of(study: Study, trial: Trial, chosen: Side, **values: Any) -> Answer:
    """The answer to a trial of the schedule; ``values``: source, rater and what was measured."""
    return Answer(
        study=study.id,
        design=study.digest,
        trial=trial.index,
        block=trial.block.key,
        kind=trial.kind,
        picture=trial.left.name,
        scene=trial.left.scene,
        left=trial.left.arm,
        right=trial.right.arm,
        chosen=chosen,
        repeat_of=trial.repeat_of,
        **values,
    )


def write_answers(path: str | Path, answers: Iterable[Answer]) -> int:
    """Write a JSONL file and, beside it, the JSON Schema of its rows; returns how many there are."""
    path, count = Path(path), 0
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for answer in answers:
            file.write(answer.model_dump_json(exclude_none=True) + "\n")
            count += 1
    write_json(path.with_suffix(".schema.json"), Answer.model_json_schema())
    return count


def read_answers(path: str | Path) -> Iterator[Answer]:
    """The rows of a JSONL file; DataError that names the line of a malformed one."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected answers as `alberti study analyse` writes them")
    with open(path, encoding="utf-8") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                yield Answer.model_validate(json.loads(text))
            except ValidationError as error:
                raise DataError(f"{path}, line {line}: {first_problem(error)}") from None
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise DataError(f"{path}, line {line}: not valid JSON ({error})") from None


def check_answers(answers: Iterable[Answer], study_id: str, where: str | Path) -> None:
    """DataError if an answer belongs to another study, or a rater answered a trial twice."""
    seen: set[tuple[str, int]] = set()
    for answer in answers:
        if answer.study != study_id:
            raise DataError(f"{where}: an answer of study {answer.study!r} among those of {study_id!r}; remove its file")
        if (answer.rater, answer.trial) in seen:
            raise DataError(f"{where}: two answers of rater {answer.rater} to trial {answer.trial}; was a file imported twice?")
        seen.add((answer.rater, answer.trial))
