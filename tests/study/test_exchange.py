"""Label Studio and exported pages: out, back in, and refused where they do not fit."""

import copy
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from alberti.errors import ConfigError, DataError
from alberti.study.collect import collect
from alberti.study.design import Study
from alberti.study.importing import import_files
from alberti.study.label_studio import export_tasks
from alberti.study.schedule import Schedule
from alberti.study.static_export import export_page


def annotated(tasks: list[dict[str, Any]], person: Any = 7) -> list[dict[str, Any]]:
    """The tasks as Label Studio exports them after an annotator chose the left picture of each."""
    result = [
        {"id": "x", "type": "pairwise", "from_name": "preference", "to_name": "left,right", "value": {"selected": "left"}}
    ]
    annotation = {"id": 1, "completed_by": person, "result": result, "was_cancelled": False, "lead_time": 2.5}
    return [{"id": n, **task, "annotations": [annotation]} for n, task in enumerate(tasks)]


@pytest.fixture
def tasks(folder: Path, tmp_path: Path) -> list[dict[str, Any]]:
    assert export_tasks(folder, tmp_path / "ls", 2, "/data/local-files/?d=pictures/") == 2
    exported: list[dict[str, Any]] = json.loads((tmp_path / "ls" / "tasks-0001.json").read_text())
    return exported


def test_tasks_are_the_pairwise_template_s(folder: Path, study: Study, tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    view = ET.parse(tmp_path / "ls" / "interface.xml").getroot()
    pairwise = view.find(".//Pairwise")
    assert pairwise is not None
    names = [image.get("name") for image in view.iter("Image")]
    assert pairwise.get("toName") == ",".join(map(str, names)) == "left,right"
    assert [image.get("value") for image in view.iter("Image")] == ["$left", "$right"]
    for task, trial in zip(tasks, Schedule(study).trials(1, 1), strict=True):
        assert task["data"]["left"] == f"/data/local-files/?d=pictures/{trial.left.id}.png"
        assert (tmp_path / "ls" / "pictures" / f"{trial.right.id}.png").is_file()
        assert "base" not in json.dumps(task)


@pytest.mark.parametrize("person", [7, {"id": 7, "email": "someone@example.org"}])
def test_annotations_come_back_as_answers(folder: Path, study: Study, tasks: list[dict[str, Any]], person: Any) -> None:
    path = folder.parent / "export.json"
    path.write_text(json.dumps(annotated(tasks, person)))
    assert import_files(folder, [path]) == {path: study.trials}
    answers = collect(folder)
    for answer, trial in zip(answers, Schedule(study).trials(1, 1), strict=True):
        assert (answer.left, answer.right, answer.kind) == (trial.left.arm, trial.right.arm, trial.kind)
        assert (answer.chosen, answer.ms, answer.rater, answer.finished) == ("left", 2500, "ls7-1", True)
    assert "example.org" not in (folder / "imported" / "export.jsonl").read_text()
    with pytest.raises(DataError, match="two answers"):
        import_files(folder, [path])
    assert len(list((folder / "imported").glob("*.jsonl"))) == 1


def test_skipped_tasks_are_left_out_and_the_rater_is_unfinished(
    folder: Path, study: Study, tasks: list[dict[str, Any]]
) -> None:
    value = annotated(tasks)
    value[3] = copy.deepcopy(value[3])
    value[3]["annotations"][0]["was_cancelled"] = True
    value[4] = {**value[4], "annotations": []}
    path = folder.parent / "export.json"
    path.write_text(json.dumps(value))
    assert import_files(folder, [path]) == {path: study.trials - 2}
    assert not any(answer.finished for answer in collect(folder))


def _exchanged(value: Any) -> None:
    data = value[2]["data"]
    data["left"], data["right"] = data["right"], data["left"]


def _other_study(value: Any) -> None:
    value[2]["data"]["alberti"]["study"] = "study-x"


def _no_place(value: Any) -> None:
    del value[2]["data"]["alberti"]


def _past_the_end(value: Any) -> None:
    value[2]["data"]["alberti"]["trial"] = 99


def _no_choice(value: Any) -> None:
    value[2]["annotations"] = copy.deepcopy(value[2]["annotations"])
    value[2]["annotations"][0]["result"][0]["value"] = {"selected": "none"}


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (_exchanged, "task 2: its left picture"),
        (_other_study, "study-x"),
        (_no_place, "task 2: not a task"),
        (_past_the_end, "trial 99"),
        (_no_choice, "'left' or 'right', got 'none'"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(folder: Path, tasks: list[dict[str, Any]], damage: Any, match: str) -> None:
    value = annotated(copy.deepcopy(tasks))
    damage(value)
    path = folder.parent / "export.json"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=match):
        import_files(folder, [path])
    assert collect(folder) == []


def page_file(study: Study, **changes: Any) -> dict[str, Any]:
    """What an exported page saves."""
    trials = Schedule(study).trials(2, 2)
    given = {"chosen": "right", "ms": 700.5, "layout": "column", "device": "touch", "window": [390, 844]}
    answers = [
        {"trial": trial.index, "left": trial.left.id, "right": trial.right.id, "at": "2026-01-01T00:00:00Z", **given}
        for trial in trials
    ]
    rater = "0b9a6c1e-0000-4000-8000-000000000001"
    whole = {"study": study.id, "design": study.digest, "rater": rater, "slot": 2, "parameters": {"PROLIFIC_PID": "secret"}}
    return {**whole, "withdrawn": False, "answers": answers, **changes}


def test_a_page_s_file_is_taken_without_who_it_was(folder: Path, study: Study) -> None:
    path = folder.parent / "page.json"
    path.write_text(json.dumps(page_file(study)))
    assert import_files(folder, [path]) == {path: study.trials}
    assert {answer.device for answer in collect(folder)} == {"touch"}
    assert "secret" not in (folder / "imported" / "page.jsonl").read_text()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"design": "0" * 64}, "another design"),
        ({"slot": 3}, "not the pictures of that trial"),
        ({"rater": "../../x"}, "rater"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_page_s_file_that_does_not_fit(folder: Path, study: Study, changes: dict[str, Any], match: str) -> None:
    path = folder.parent / "page.json"
    path.write_text(json.dumps(page_file(study, **changes)))
    with pytest.raises(DataError, match=match):
        import_files(folder, [path])


def test_a_page_s_answers_must_be_in_order_and_of_those_sides(folder: Path, study: Study) -> None:
    path = folder.parent / "page.json"
    value = page_file(study)
    value["answers"][3], value["answers"][4] = value["answers"][4], value["answers"][3]
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match="in order"):
        import_files(folder, [path])
    value = page_file(study)
    answer = value["answers"][5]
    answer["left"], answer["right"] = answer["right"], answer["left"]
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match="answer 5"):
        import_files(folder, [path])


def test_one_bad_file_keeps_all_out(folder: Path, study: Study) -> None:
    good, bad = folder.parent / "good.json", folder.parent / "bad.json"
    good.write_text(json.dumps(page_file(study)))
    bad.write_text("{")
    with pytest.raises(DataError, match=r"bad\.json"):
        import_files(folder, [good, bad])
    assert collect(folder) == []


def test_who_withdrew_on_a_page_is_not_taken(folder: Path, study: Study) -> None:
    path = folder.parent / "page.json"
    path.write_text(json.dumps(page_file(study, withdrawn=True)))
    assert import_files(folder, [path]) == {path: 0}


def test_the_exported_page_names_no_arm_and_only_the_address_it_posts_to(folder: Path, tmp_path: Path) -> None:
    export_page(folder, tmp_path / "site", 2, "https://collect.example/answers?x=1")
    page = (tmp_path / "site" / "index.html").read_text()
    assert "connect-src https://collect.example;" in page
    settings = re.search(r'id="settings">(.*?)</script>', page, re.S)
    assert settings is not None
    values = json.loads(settings[1].replace("\\u0026", "&").replace("\\u0027", "'"))
    assert len(values["series"]) == 2
    del values["labels"]
    assert not re.search(r"constrained|base|straight|bent|catch", json.dumps(values))
    with pytest.raises(ConfigError, match="https"):
        export_page(folder, tmp_path / "other", 2, "http://collect.example")
