"""The study as tasks of Label Studio's pairwise template, and its annotations as answers.

A task names its pictures and carries the place of the pair in the series, so that what comes back can be checked and counted
like answers of our own page. Label Studio measures no time to the first paint: ``lead_time`` is what it has.
"""

import shutil
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from alberti.errors import DataError
from alberti.files import atomic_folder, write_json, write_text
from alberti.study.answers import Answer, answer_of
from alberti.study.design import Study
from alberti.study.schedule import Schedule

KEY = "alberti"


def labelling_interface(study: Study) -> str:
    """The project's labelling configuration: the pairwise template with two pictures."""
    title = quoteattr(study.title)
    return (
        f'<View>\n  <Header value={title}/>\n  <Header value="$question"/>\n'
        '  <Pairwise name="preference" toName="left,right"/>\n'
        '  <View style="display: flex; gap: 12px">\n    <Image name="left" value="$left"/>\n'
        '    <Image name="right" value="$right"/>\n'
        "  </View>\n</View>\n"
    )


def export_tasks(folder: Path, out: Path, raters: int, image_prefix: str) -> int:
    """Write ``out``: interface.xml, one file of tasks per rater, and pictures/; returns the number of raters.

    Import one file into one project: its tasks are one rater's series, and several annotators may do them all.
    """
    study = Study.open(folder)
    schedule = Schedule(study)
    with atomic_folder(out) as made:
        write_text(made / "interface.xml", labelling_interface(study))
        for slot in range(raters):
            tasks = [_task(study, slot, index, trial, image_prefix) for index, trial in enumerate(schedule.trials(slot, slot))]
            write_json(made / f"tasks-{slot:04d}.json", tasks)
        (made / "pictures").mkdir()
        for picture in study.pictures:
            shutil.copyfile(folder / picture.file, made / picture.file)
    return raters


def _task(study: Study, slot: int, index: int, trial: Any, prefix: str) -> dict[str, Any]:
    sides = {side: f"{prefix}{getattr(trial, side).id}.png" for side in ("left", "right")}
    place = {"study": study.id, "design": study.digest, "slot": slot, "trial": index}
    return {"data": {**sides, "question": trial.block.question, KEY: place}}


def read_annotations(study: Study, tasks: list[Any], where: Path) -> list[Answer]:
    """Answers out of Label Studio's JSON export; skipped and empty annotations are left out.

    An annotator has one pseudonym a series. Whether it was finished is told by the number of answers.

    Raises:
        DataError: a task that is not of this study, or an annotation that is no pairwise choice.
    """
    schedule = Schedule(study)
    given: dict[tuple[str, int], dict[int, Answer]] = {}
    for number, task in enumerate(tasks):
        place = _place(study, task, f"{where}, task {number}")
        trials = schedule.trials(place["slot"], place["slot"])
        if place["trial"] >= len(trials):
            raise DataError(f"{where}, task {number}: trial {place['trial']}, but a series has {len(trials)}")
        trial = trials[place["trial"]]
        _check_sides(task, trial, f"{where}, task {number}")
        for annotation in task.get("annotations") or []:
            chosen = _chosen(annotation, f"{where}, task {number}")
            if chosen is None:
                continue
            person = annotation.get("completed_by")
            person = str(person.get("id") if isinstance(person, dict) else person)
            seconds = annotation.get("lead_time")
            given.setdefault((person, place["slot"]), {})[trial.index] = answer_of(
                study,
                trial,
                chosen,
                source="label-studio",
                rater=f"ls{person}-{place['slot']}",
                ms=round(1000 * float(seconds), 1) if seconds is not None else None,
                received_at=annotation.get("created_at"),
            )
    total = study.trials
    return [
        answer.model_copy(update={"finished": len(answers) == total})
        for _, answers in sorted(given.items())
        for _, answer in sorted(answers.items())
    ]


def _place(study: Study, task: Any, where: str) -> dict[str, Any]:
    data = task.get("data") if isinstance(task, dict) else None
    place = data.get(KEY) if isinstance(data, dict) else None
    if not isinstance(place, dict) or not all(type(place.get(key)) is int and place[key] >= 0 for key in ("slot", "trial")):
        raise DataError(f"{where}: not a task of `alberti study export --label-studio`: no data.{KEY} with slot and trial")
    if place.get("study") != study.id or place.get("design") != study.digest:
        raise DataError(f"{where}: of study {place.get('study')!r} or another design of it; this one is {study.id!r}")
    return place


def _check_sides(task: Any, trial: Any, where: str) -> None:
    for side in ("left", "right"):
        if not str(task["data"].get(side, "")).endswith(f"{getattr(trial, side).id}.png"):
            raise DataError(f"{where}: its {side} picture is not the one of that trial; the tasks were changed")


def _chosen(annotation: Any, where: str) -> Any:
    if annotation.get("was_cancelled"):
        return None
    pairwise = [region for region in annotation.get("result") or [] if region.get("type") == "pairwise"]
    if not pairwise:
        return None
    chosen = (pairwise[-1].get("value") or {}).get("selected")
    if chosen not in ("left", "right"):
        raise DataError(f"{where}: expected a pairwise choice of 'left' or 'right', got {chosen!r}")
    return chosen
