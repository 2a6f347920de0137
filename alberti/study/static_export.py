"""A study as a folder of files for any web host: the same page and script, answers kept in the rater's browser."""

import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from alberti.errors import ConfigError
from alberti.files import atomic_folder, write_text
from alberti.study.design import Study
from alberti.study.schedule import Schedule, Trial
from alberti.study.texts import read_texts

_FILES = ("study.js", "study.css", "icon.svg")


def export_page(folder: Path, out: Path, raters: int, post: str | None = None) -> int:
    """Write ``out``: index.html, script, style and pictures, with the series of ``raters`` raters; returns that number.

    A visitor takes the series that ``?slot=N`` names, or one by lot. Which arm a picture is of is not in it, nor which pairs
    are catch pairs. ``post``: an address (https) that takes each rater's answers as JSON.
    """
    study, texts = Study.open(folder), read_texts(folder)
    settings = page_settings(study, texts, raters, post)
    environment = Environment(
        loader=PackageLoader("alberti.study"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("export.html").render(
        study=study, texts=texts, labels=texts["interface"], settings=settings, post_origin=_origin(post)
    )
    with atomic_folder(out) as made:
        write_text(made / "index.html", page)
        for name in _FILES:
            (made / name).write_bytes((files("alberti.study") / "static" / name).read_bytes())
        (made / "pictures").mkdir()
        for picture in study.pictures:
            shutil.copyfile(folder / picture.file, made / picture.file)
    return raters


def page_settings(study: Study, texts: dict[str, Any], raters: int, post: str | None) -> dict[str, Any]:
    """What the exported page's script needs; series hold numbers of pictures."""
    schedule = Schedule(study)
    place = {picture.id: index for index, picture in enumerate(study.pictures)}
    return {
        "labels": texts["interface"],
        "minimum": study.minimum_picture_px,
        "study": study.id,
        "design": study.digest,
        "key": f"alberti-{study.id}-{study.digest[:12]}",
        "code": study.completion_code,
        "url": study.completion_url,
        "post": post,
        "blocks": [{"question": block.question, "hint": block.hint} for block in study.blocks],
        "pictures": [picture.id for picture in study.pictures],
        "sizes": [[picture.width, picture.height] for picture in study.pictures],
        "series": [[_row(study, trial, place) for trial in schedule.trials(slot, slot)] for slot in range(raters)],
    }


def _row(study: Study, trial: Trial, place: dict[str, int]) -> list[int]:
    """Block, practice (0 no, 1 without a right answer, 2 left is right, 3 right is right), left, right."""
    practice = 0
    if trial.kind == "practice":
        practice = {None: 1, "left": 2, "right": 3}[trial.correct if trial.block.practice_feedback else None]
    return [study.blocks.index(trial.block), practice, place[trial.left.id], place[trial.right.id]]


def _origin(post: str | None) -> str | None:
    if post is None:
        return None
    parts = urlsplit(post)
    if parts.scheme != "https" or not parts.netloc or any(mark in parts.netloc for mark in " ;,'\""):
        raise ConfigError(f"--post {post}: expected an https address")
    return f"https://{parts.netloc}"
