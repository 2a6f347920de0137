"""The files of an analysis: JSON, CSV, the raw answers, and a page that needs nothing else."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from alberti.errors import DataError
from alberti.files import atomic_file, read_json, write_json, write_text
from alberti.study.analysis import Design, analyse, answer_table, most_split, pair_table, rater_table
from alberti.study.answers import ANSWERS, Answer, write_answers
from alberti.study.collect import collect
from alberti.study.design import Study

_SPLIT_PAIRS = 12
_THUMBNAIL = 280
_NONE = "\N{EN DASH}"


def write_results(folder: Path, out: Path, *, proxies: Sequence[Path] = ()) -> dict[str, Any]:
    """Analyse the answers of a study folder into ``out``; returns what stands in ``results.json``.

    ``answers.jsonl`` of the study folder then holds all of them, for publishing and for a run's report.

    Raises:
        DataError: no study, answers that do not belong to it, or none at all.
    """
    study = Study.open(folder)
    answers = collect(folder)
    if not answers:
        raise DataError(f"{folder}: no answers yet; collect some with `alberti study serve {folder}` or `alberti study import`")
    tables = [read_json(path) for path in proxies]
    design, table = Design.of(study), answer_table(answers)
    results = analyse(table, design) | ({"proxies": tables} if tables else {})
    raters = rater_table(table, design.rules)
    pairs = pair_table(table, raters.index[raters["excluded"] == ""])
    out.mkdir(parents=True, exist_ok=True)
    write_answers(folder / ANSWERS, answers)
    _write_csv(out / "raters.csv", raters.reset_index())
    _write_csv(out / "pairs.csv", pairs)
    _write_csv(out / "comparisons.csv", comparison_table(results))
    write_json(out / "results.json", results)
    write_text(out / "index.html", render_page(results, split=_shown(folder, study, most_split(pairs, _SPLIT_PAIRS))))
    return results


def comparison_table(results: dict[str, Any]) -> pd.DataFrame:
    """A row a question and comparison."""
    rows = []
    for key, block in results["blocks"].items():
        for row in block["comparisons"]:
            clustered, binomial = row["clustered"] or {}, row["binomial"] or {}
            rows.append(
                {
                    "block": key,
                    "arm": row["arm"],
                    "other": row["other"],
                    "share": clustered.get("share"),
                    "low": clustered.get("low"),
                    "high": clustered.get("high"),
                    "n": row["n"],
                    "preferred": row["preferred"],
                    "raters": clustered.get("raters"),
                    "scenes": clustered.get("scenes"),
                    "binomial_p": binomial.get("p"),
                    "binomial_low": binomial.get("low"),
                    "binomial_high": binomial.get("high"),
                    "share_before_exclusions": row["share_before_exclusions"],
                    "n_before_exclusions": row["n_before_exclusions"],
                }
            )
    return pd.DataFrame(rows)


def arm_table(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Arm -> its few numbers, for a table with a row an arm: strength and, against each other arm, share and interval."""
    rows: dict[str, dict[str, Any]] = {}
    for key, block in results["blocks"].items():
        for strength in block["bradley_terry"] or []:
            rows.setdefault(strength["arm"], {})[f"{key}_strength"] = round(strength["strength"], 4)
        for row in block["comparisons"]:
            found = row["clustered"]
            if found is None:
                continue
            shares = {"share": found["share"], "low": found["low"], "high": found["high"]}
            turned = {"share": 1 - found["share"], "low": 1 - found["high"], "high": 1 - found["low"]}
            for arm, other, values in ((row["arm"], row["other"], shares), (row["other"], row["arm"], turned)):
                named = {f"{key}_over_{other}_{name}": round(value, 4) for name, value in values.items()}
                rows.setdefault(arm, {}).update(named | {f"{key}_over_{other}_n": row["n"]})
    return rows


def render_page(results: dict[str, Any], *, split: Sequence[dict[str, Any]] = ()) -> str:
    """The page of results as one self-contained HTML text."""
    return _environment().get_template("results.html").render(results=results, split=split, blocks=results["blocks"], page=None)


def render_fragment(results: dict[str, Any], *, page: str | None = None) -> str:
    """The tables of the page without their frame, for another page; ``page``: a link to the whole."""
    return _environment().get_template("results_tables.html").render(results=results, blocks=results["blocks"], page=page)


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("alberti.study"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda value: _NONE if value is None else f"{100 * value:.1f} %"
    environment.filters["seconds"] = lambda value: _NONE if value is None else f"{value / 1000:.1f} s"
    environment.filters["number"] = lambda value: _NONE if value is None else f"{value:.2f}"
    return environment


def _shown(folder: Path, study: Study, pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of ``pairs`` with both pictures as data."""
    shown = []
    for row in json.loads(pairs.to_json(orient="records")):
        pictures = [(arm, study.by_place[arm, row["picture"]]) for arm in (row["arm"], row["other"])]
        data = [{"arm": arm, "data": _thumbnail(folder / picture.file)} for arm, picture in pictures]
        shown.append({**row, "pictures": data})
    return shown


def _thumbnail(path: Path) -> str:
    with Image.open(path) as image:
        small = image.convert("RGB")
        small.thumbnail((_THUMBNAIL, _THUMBNAIL))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False)


def analyse_answers(answers: Sequence[Answer], study: Study | None = None) -> dict[str, Any]:
    """The results of answers alone; without their study, rules are the defaults and comparisons those that were asked."""
    design = Design.guess(answers) if study is None else Design.of(study)
    return analyse(answer_table(answers), design)
