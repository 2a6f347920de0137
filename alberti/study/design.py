"""What a study is: arms, pictures, questions and the rules that are fixed before the first answer.

A study folder holds ``study.json`` (a :class:`Study` without its pictures), ``pictures.jsonl`` (a :class:`Picture` a row),
``pictures/`` and ``texts/``. Answers come to lie beside them.
"""

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from alberti.errors import DataError, first_problem
from alberti.files import atomic_file, read_json, sha256_json, write_json

SCHEMA_VERSION = 1
STRAIGHT, BENT = "straight", "bent"
"""What stands in the place of an arm in catch pairs."""
PUBLISHED_SHARE = 0.696
"""Upadhyay et al. 2023: the share of human trials that preferred the constrained model's picture to Stable Diffusion v2's."""

Side = Literal["left", "right"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Arm(_Frozen):
    """One way of making pictures."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")
    source: str = ""
    """Where its pictures came from, for the reader of the results."""


class Picture(_Frozen):
    """One file of ``pictures/``. Its id tells nothing of its arm, and is all that a rater's browser ever sees."""

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    arm: str
    """An arm's name; "straight" or "bent" in catch pairs."""
    name: str
    """The same for the pictures that are compared."""
    scene: str
    """What pictures of one scene share; the clusters of the intervals. The name, unless several seeds drew it."""
    width: int
    height: int
    sha256: str

    @property
    def file(self) -> str:
        return f"pictures/{self.id}.png"


class Block(_Frozen):
    """One question, asked of a series of pairs."""

    key: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    question: str
    hint: str = ""
    per_comparison: int = Field(ge=1)
    """Pairs that a rater sees of each comparison."""
    catch: int = Field(default=5, ge=0)
    repeats: int = Field(default=4, ge=0)
    practice: int = Field(default=2, ge=0)
    practice_feedback: bool = False
    """Practise on catch pairs and say what was right; otherwise on pairs of arms, without a word."""

    def trials(self, comparisons: int) -> int:
        """How many pairs a rater sees in this block."""
        return self.practice + self.per_comparison * comparisons + self.catch + self.repeats


class Rules(_Frozen):
    """Whose answers count. Part of the design's digest: they cannot be changed quietly after the first answer."""

    min_catch_share: float = Field(default=0.8, ge=0, le=1)
    min_repeat_share: float = Field(default=0.25, ge=0, le=1)
    """Low on purpose: someone who finds two arms equal contradicts themselves in half of the repeats. What it finds is
    someone who always presses the same key, since repeats come with their sides swapped."""
    min_median_ms: float = Field(default=400, ge=0)
    finished_only: bool = False


class Study(_Frozen):
    """A whole study; equal designs have equal digests."""

    schema_version: Literal[1] = 1
    id: str = Field(pattern=r"^[a-z0-9-]{4,64}$")
    title: str
    created: str
    seed: int
    arms: tuple[Arm, ...] = Field(min_length=2)
    comparisons: tuple[tuple[str, str], ...] = Field(min_length=1)
    """The share of the first arm is what is reported."""
    blocks: tuple[Block, ...] = Field(min_length=1)
    rules: Rules = Rules()
    minimum_picture_px: int = Field(default=200, ge=50)
    """How wide, in CSS pixels, each picture must at least be shown."""
    completion_code: str | None = None
    """One for all (Prolific); None: each rater's own."""
    completion_url: str | None = Field(default=None, pattern=r"^https://")
    published_share: float = PUBLISHED_SHARE
    language: str = Field(default="en", pattern=r"^[A-Za-z-]{2,20}$")
    pictures: tuple[Picture, ...] = Field(default=(), exclude=True)

    @model_validator(mode="after")
    def _names_agree(self) -> "Study":
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names) or {STRAIGHT, BENT} & set(names):
            raise ValueError(f"arms: expected distinct names other than {STRAIGHT!r} and {BENT!r}, got {names}")
        pairs = [frozenset(pair) for pair in self.comparisons]
        unknown = {name for pair in self.comparisons for name in pair} - set(names)
        if unknown or len(set(pairs)) != len(pairs) or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"comparisons: expected distinct pairs of two of {names}, got {list(self.comparisons)}")
        keys = [block.key for block in self.blocks]
        if len(set(keys)) != len(keys):
            raise ValueError(f"blocks: keys must differ, got {keys}")
        return self

    @cached_property
    def by_id(self) -> dict[str, Picture]:
        return {picture.id: picture for picture in self.pictures}

    @cached_property
    def by_place(self) -> dict[tuple[str, str], Picture]:
        """(arm, name) -> picture."""
        return {(picture.arm, picture.name): picture for picture in self.pictures}

    @cached_property
    def names(self) -> list[str]:
        """Names of the pictures that are compared, sorted."""
        return sorted(picture.name for picture in self.pictures if picture.arm == self.arms[0].name)

    @cached_property
    def catch_names(self) -> list[str]:
        return sorted(picture.name for picture in self.pictures if picture.arm == STRAIGHT)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that decides what raters see and whose answers count; titles and links may change."""
        values = self.model_dump(mode="json", include={"id", "seed", "arms", "comparisons", "blocks", "rules"})
        return sha256_json([values, [picture.model_dump(mode="json") for picture in self.pictures]])

    @property
    def trials(self) -> int:
        """How many pairs one rater sees."""
        return sum(block.trials(len(self.comparisons)) for block in self.blocks)

    def save(self, folder: Path) -> None:
        """Write ``pictures.jsonl``, then ``study.json``, whose presence says that the folder is whole."""
        with atomic_file(folder / "pictures.jsonl") as temporary, open(temporary, "w", encoding="utf-8") as file:
            for picture in self.pictures:
                file.write(picture.model_dump_json() + "\n")
        write_json(folder / "study.json", self.model_dump(mode="json"))

    @classmethod
    def open(cls, folder: str | Path) -> "Study":
        """Read and validate a study folder.

        Raises:
            DataError: no study there, another version, a malformed value, pictures that do not fit the arms.
        """
        folder = Path(folder)
        path = folder / "study.json"
        if not path.is_file():
            raise DataError(f"{folder}: not a study: no study.json there; make one with `alberti study create`")
        values = read_json(path)
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA_VERSION:
            raise DataError(f"{path}: schema version {version!r}, but this alberti reads {SCHEMA_VERSION}; create it again")
        try:
            study = cls.model_validate({**values, "pictures": list(_rows(folder / "pictures.jsonl"))})
        except ValidationError as error:
            raise DataError(f"{path}: {first_problem(error)}") from None
        check_pictures(study, path)
        return study


def check_pictures(study: Study, where: str | Path) -> None:
    """DataError unless every arm has a picture of every name, and each catch pair both of its sides."""
    if len(study.by_id) != len(study.pictures) or len(study.by_place) != len(study.pictures):
        raise DataError(f"{where}: two pictures share an id, or an arm has a name twice")
    for names, arms in ((study.names, [arm.name for arm in study.arms]), (study.catch_names, [STRAIGHT, BENT])):
        for arm in arms:
            missing = [name for name in names if (arm, name) not in study.by_place]
            if missing:
                raise DataError(f"{where}: arm {arm!r} has no picture {missing[0]!r}, and lacks {len(missing)} in all")
    most = max(block.per_comparison for block in study.blocks)
    if most > len(study.names):
        raise DataError(f"{where}: {most} pairs of each comparison are asked for, but there are {len(study.names)} pictures")
    catches = max(block.catch + (block.practice if block.practice_feedback else 0) for block in study.blocks)
    if catches > len(study.catch_names):
        raise DataError(
            f"{where}: {catches} catch and practice pairs a block are asked for, but there are {len(study.catch_names)} "
            "straight pictures; ask for fewer (--catch) or give more (--straight)"
        )


def _rows(path: Path) -> Iterable[Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; study.json stands without its pictures: create the study again")
    with open(path, encoding="utf-8") as file:
        for line, text in enumerate(file, 1):
            try:
                yield json.loads(text)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {line}: not valid JSON ({error})") from None
