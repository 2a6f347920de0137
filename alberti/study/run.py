"""What a finished run needs of its study, which lies in the folder ``study/`` of the run.

Answers are those of ``study/answers.jsonl``, and nothing else, so that a report follows from files that can be tracked:
`alberti study analyse` writes it, or it was put there. Without ``study.json`` beside it, rules are the defaults.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alberti.extras import require_extra
from alberti.study.answers import ANSWERS, Answer, check_answers, read_answers
from alberti.study.design import Study

FOLDER = "study"


@dataclass(frozen=True)
class RunStudy:
    """The state of a run's human trial."""

    folder: Path
    study: Study | None
    """None: not created."""
    results: dict[str, Any] | None
    """As ``results.json`` of `alberti study analyse`; None: ``answers.jsonl`` is missing or empty."""

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Arm -> its row for ``dvc metrics show``; empty without answers."""
        if self.results is None:
            return {}
        from alberti.study.results import arm_table

        return arm_table(self.results)

    def fragment(self, *, link_base: str = "..") -> str:
        """A piece of HTML without a heading: the results, or how to get them. ``link_base``: from the page to the run."""
        if self.results is not None:
            from alberti.study.results import render_fragment

            page = self.folder / "results" / "index.html"
            return render_fragment(self.results, page=f"{link_base}/{FOLDER}/results/index.html" if page.is_file() else None)
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(loader=PackageLoader("alberti.study"), autoescape=True, undefined=StrictUndefined)
        return environment.get_template("offer.html").render(study=self.study, folder=FOLDER)


def read_run_study(run: str | Path) -> RunStudy:
    """The human trial of a run's folder, as far as there is one.

    Raises:
        DataError: a study or answers are there but damaged, or do not belong to each other.
        MissingExtra: there are answers, and the packages of the extra `study` are not installed.
    """
    folder = Path(run) / FOLDER
    study = Study.open(folder) if (folder / "study.json").is_file() else None
    answers = _answers(folder, study)
    return RunStudy(folder, study, _analysed(answers, study) if answers else None)


def _analysed(answers: list[Answer], study: Study | None) -> dict[str, Any]:
    require_extra("study", f"{study.title if study else FOLDER}: counting a study's answers")
    from alberti.study.results import analyse_answers

    return analyse_answers(answers, study)


def _answers(folder: Path, study: Study | None) -> list[Answer]:
    path = folder / ANSWERS
    answers = list(read_answers(path)) if path.is_file() else []
    if answers:
        check_answers(answers, answers[0].study if study is None else study.id, path)
    return answers
