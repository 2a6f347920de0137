"""Answers that another host collected: checked against the study, then kept as JSONL in ``imported/``."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alberti.errors import DataError, first_problem
from alberti.study.answers import IMPORTED, Answer, answer_of, check_answers, write_answers
from alberti.study.collect import collect
from alberti.study.design import Side, Study
from alberti.study.label_studio import read_annotations
from alberti.study.schedule import Schedule

_MOST_BYTES = 200_000_000


class _PageAnswer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    trial: int = Field(ge=0)
    left: str
    right: str
    chosen: Side
    ms: float = Field(ge=0, allow_inf_nan=False)
    layout: Literal["row", "column"]
    device: Literal["key", "mouse", "touch", "pen"]
    window: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    at: datetime


class _PageFile(BaseModel):
    """What an exported page saves or posts."""

    model_config = ConfigDict(extra="forbid")

    study: str
    design: str
    rater: str = Field(pattern=r"^[0-9a-f-]{36}$")
    slot: int = Field(ge=0, le=1_000_000)
    parameters: dict[str, str] = {}
    withdrawn: bool = False
    posted: bool = False
    answers: list[_PageAnswer]


def import_files(folder: Path, paths: Sequence[Path]) -> dict[Path, int]:
    """Read files of an exported page (an object each) or Label Studio exports (a list); returns how many answers each gave.

    All or nothing: if one file is refused, none is taken.

    Raises:
        DataError: a file of another study, one that does not fit the schedule, or answers that are there already.
    """
    study = Study.open(folder)
    found = {path: _read(study, path) for path in paths}
    check_answers([*collect(folder), *(answer for answers in found.values() for answer in answers)], study.id, folder)
    for path, answers in found.items():
        if answers:
            write_answers(_free(folder / IMPORTED, path.stem), answers)
    return {path: len(answers) for path, answers in found.items()}


def _free(folder: Path, stem: str) -> Path:
    safe = "".join(mark if mark.isalnum() or mark in "-_" else "-" for mark in stem)[:80] or "answers"
    number, path = 1, folder / f"{safe}.jsonl"
    while path.exists():
        number += 1
        path = folder / f"{safe}-{number}.jsonl"
    return path


def _read(study: Study, path: Path) -> list[Answer]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{path}: {path.stat().st_size} bytes; answers of one file are at most {_MOST_BYTES}")
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None
    if isinstance(value, list):
        return read_annotations(study, value, path)
    return _read_page(study, value, path)


def _read_page(study: Study, value: Any, path: Path) -> list[Answer]:
    try:
        page = _PageFile.model_validate(value)
    except ValidationError as error:
        raise DataError(f"{path}: neither answers of an exported page nor of Label Studio: {first_problem(error)}") from None
    if (page.study, page.design) != (study.id, study.digest):
        raise DataError(f"{path}: of study {page.study!r} or another design of it; this one is {study.id!r}")
    if page.withdrawn:
        return []
    trials = Schedule(study).trials(page.slot, page.slot)
    answers = []
    for number, given in enumerate(page.answers):
        if given.trial != number or number >= len(trials):
            raise DataError(f"{path}: answer {number} is to trial {given.trial} of {len(trials)}; expected them in order")
        trial = trials[number]
        if (given.left, given.right) != (trial.left.id, trial.right.id):
            raise DataError(f"{path}: answer {number}: not the pictures of that trial, or not on these sides")
        measured = given.model_dump(include={"ms", "layout", "device", "window"})
        answers.append(
            answer_of(
                study,
                trial,
                given.chosen,
                source="static",
                rater=f"page-{page.rater}",
                received_at=given.at.isoformat(),
                finished=len(page.answers) == len(trials),
                **measured,
            )
        )
    return answers
