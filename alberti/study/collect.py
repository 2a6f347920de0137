"""All answers of a study, wherever they came in."""

from pathlib import Path

from alberti.study.answers import ANSWERS, IMPORTED, Answer, check_answers, read_answers
from alberti.study.design import Study
from alberti.study.store import DATABASE, read_store


def collect(folder: str | Path) -> list[Answer]:
    """Every answer of a study folder: of the server's database, of the files of ``imported/``, and of ``answers.jsonl``.

    ``answers.jsonl`` adds only raters that the others do not know. Where there is a database, it alone says what the server
    took: whoever withdrew does not come back through an older file.

    Raises:
        DataError: an answer of another study, or two to one trial of one rater.
    """
    folder = Path(folder)
    study = Study.open(folder)
    has_database = (folder / DATABASE).is_file()
    answers: list[Answer] = read_store(folder, study) if has_database else []
    for path in sorted((folder / IMPORTED).glob("*.jsonl")):
        answers += read_answers(path)
    if (folder / ANSWERS).is_file():
        known = {answer.rater for answer in answers}
        for answer in read_answers(folder / ANSWERS):
            if answer.rater not in known and not (has_database and answer.source == "server"):
                answers.append(answer)
    check_answers(answers, study.id, folder)
    return answers
