"""From answers to results: figures that can be counted by hand, and files that hold them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from project_tools import environment

from alberti import extras
from alberti.errors import DataError
from alberti.study.analysis import Design, analyse, answer_table, most_split, pair_table, rater_table
from alberti.study.answers import ANSWERS, Answer, read_answers, write_answers
from alberti.study.collect import collect
from alberti.study.design import Rules, Study
from alberti.study.results import arm_table, render_fragment, write_results
from alberti.study.run import read_run_study
from alberti.study.simulate import Raters, simulated_answers


def answer(rater: str, trial: int, kind: str, left: str, right: str, chosen: str, **values: Any) -> Answer:
    fields = {"study": "s-01", "design": "d", "source": "server", "block": "realism", "picture": "p", "scene": "p", "ms": 900.0}
    return Answer(rater=rater, trial=trial, kind=kind, left=left, right=right, chosen=chosen, **(fields | values))


def series(rater: str, chosen: list[str], *, catch: str = "left", again: str | None = None, **values: Any) -> list[Answer]:
    """Pairs of a and b, a always left, then a catch pair whose left side is straight, then the first pair swapped."""
    given = [
        answer(rater, i, "main", "a", "b", side, picture=f"p{i}", scene=f"p{i}", **values) for i, side in enumerate(chosen)
    ]
    n = len(chosen)
    given.append(answer(rater, n, "catch", "straight", "bent", catch, **values))
    same = "right" if chosen[0] == "left" else "left"
    given.append(answer(rater, n + 1, "repeat", "b", "a", again or same, repeat_of=0, picture="p0", scene="p0", **values))
    return given


DESIGN = Design("s-01", "t", ("a", "b"), (("a", "b"),), {"realism": "?"}, Rules(min_catch_share=1, min_repeat_share=1), None)


def test_counted_by_hand() -> None:
    answers = series("one", ["left", "left", "right"]) + series("two", ["left", "left", "left"], ms=1100.0)
    results = analyse(answer_table(answers), DESIGN)
    row = results["blocks"]["realism"]["comparisons"][0]
    assert (row["n"], row["preferred"]) == (6, 5)
    assert row["clustered"]["share"] == pytest.approx(5 / 6)
    assert (row["clustered"]["raters"], row["clustered"]["scenes"]) == (2, 3)
    assert row["binomial"]["p"] == pytest.approx(14 / 64)  # 1, 6 and their mirror images of 2^6
    assert results["response_ms"]["p50"] == 1000
    assert results["side_bias"]["left"]["share"] == pytest.approx(5 / 6)
    assert results["blocks"]["realism"]["agreement"]["agreeing_pairs"] == pytest.approx(2 / 3)
    assert results["raters"] == {
        "all": 2,
        "counted": 2,
        "finished": 2,
        "excluded": {"catch pairs": 0, "repeated pairs": 0, "response time": 0, "unfinished": 0},
        "catch_right_share": 1.0,
        "repeat_agreement": 1.0,
    }
    json.dumps(results, allow_nan=False)


def test_each_rule_leaves_out_whom_it_names() -> None:
    answers = [
        *series("good", ["left", "left"]),
        *series("blind", ["right", "right"], catch="right"),
        *series("fickle", ["right", "right"], again="right"),
        *series("hasty", ["right", "right"], ms=100.0),
        *series("gone", ["right", "right"], finished=False),
    ]
    table = answer_table(answers)
    found = rater_table(table, Rules(min_catch_share=1, min_repeat_share=1, finished_only=True))["excluded"].to_dict()
    wanted = {"blind": "catch pairs", "fickle": "repeated pairs", "hasty": "response time", "gone": "unfinished", "good": ""}
    assert found == wanted
    results = analyse(table, DESIGN)
    row = results["blocks"]["realism"]["comparisons"][0]
    assert results["raters"]["counted"] == 2  # unfinished ones count by this design's rules
    assert row["n"] == 4
    assert row["share_before_exclusions"] == pytest.approx(2 / 10)
    assert row["clustered"]["share"] == pytest.approx(0.5)


def test_practice_catch_and_repeats_are_no_preferences() -> None:
    answers = [*series("one", ["left"]), answer("one", 3, "practice", "a", "b", "right")]
    assert analyse(answer_table(answers), DESIGN)["answers"] == {"all": 4, "main": 1, "counted": 1}


def test_nobody_left_gives_no_figures_and_no_error() -> None:
    results = analyse(answer_table(series("blind", ["left"], catch="right")), DESIGN)
    row = results["blocks"]["realism"]["comparisons"][0]
    assert row["clustered"] is None
    assert row["binomial"] is None
    assert results["blocks"]["realism"]["bradley_terry"] is None
    assert "no answers that count" in render_fragment(results)
    assert arm_table(results) == {}


def test_the_pairs_that_split_raters_come_first() -> None:
    sides = {"one": ["left", "left", "left"], "two": ["left", "right", "left"], "three": ["left", "right", "right"]}
    table = answer_table([given for rater, chosen in sides.items() for given in series(rater, chosen)])
    pairs = pair_table(table, sides)
    assert pairs.set_index("picture")["preferred"].to_dict() == {"p0": 3, "p1": 1, "p2": 2}
    assert list(most_split(pairs, 2)["picture"]) == ["p1", "p2"]


def test_an_arm_s_row_says_its_shares_from_its_own_side() -> None:
    rows = arm_table(analyse(answer_table(series("one", ["left", "left", "right"])), DESIGN))
    assert rows["a"]["realism_over_b_share"] == pytest.approx(0.6667)
    assert rows["b"]["realism_over_a_share"] == pytest.approx(0.3333)
    assert rows["a"]["realism_over_b_low"] == pytest.approx(1 - rows["b"]["realism_over_a_high"], abs=1e-3)
    assert rows["a"]["realism_strength"] == pytest.approx(-rows["b"]["realism_strength"])


@pytest.fixture
def answered(folder: Path, study: Study) -> Path:
    """The small study with twelve simulated raters."""
    write_answers(folder / ANSWERS, simulated_answers(study, Raters(0.8), 12, seed=1))
    return folder


def test_results_are_files_that_agree(answered: Path, tmp_path: Path) -> None:
    results = write_results(answered, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    comparisons = pd.read_csv(tmp_path / "out" / "comparisons.csv")
    row = results["blocks"]["lines"]["comparisons"][0]
    assert comparisons.set_index("block").loc["lines", "share"] == pytest.approx(row["clustered"]["share"])
    assert len(pd.read_csv(tmp_path / "out" / "raters.csv")) == 12
    assert pd.read_csv(tmp_path / "out" / "pairs.csv")["answers"].sum() == results["answers"]["counted"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "69.6 %" in page
    assert 'src="http' not in page
    assert page.count("data:image/jpeg") >= 2
    again = write_results(answered, tmp_path / "again")
    assert again == results  # answers.jsonl, written by the first, does not count twice


def test_answers_go_through_a_file_unchanged_and_fit_the_schema(answered: Path, tmp_path: Path) -> None:
    answers = collect(answered)
    write_answers(tmp_path / "a.jsonl", answers)
    assert list(read_answers(tmp_path / "a.jsonl")) == answers
    schema = json.loads((tmp_path / "a.schema.json").read_text())
    row = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert set(schema["required"]) <= set(row) <= set(schema["properties"])


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", "line 2: not valid JSON"),
        ('{"schema_version": 1}', "line 2: study"),
        ("[]", "line 2"),
    ],
)
def test_a_damaged_line_is_named(answered: Path, line: str, match: str) -> None:
    first = (answered / ANSWERS).read_text().splitlines()[0]
    (answered / ANSWERS).write_text(f"{first}\n{line}\n")
    with pytest.raises(DataError, match=match):
        collect(answered)


def test_answers_of_another_study_and_answers_twice_are_refused(answered: Path, study: Study) -> None:
    rows = list(read_answers(answered / ANSWERS))
    write_answers(answered / ANSWERS, [rows[0].model_copy(update={"study": "study-other"})])
    with pytest.raises(DataError, match="study-other"):
        collect(answered)
    write_answers(answered / ANSWERS, [rows[0], rows[0]])
    with pytest.raises(DataError, match="two answers"):
        collect(answered)


def test_no_answers_yet(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no answers yet"):
        write_results(folder, tmp_path / "out")


def test_a_run_without_a_study_offers_one(tmp_path: Path) -> None:
    offered = read_run_study(tmp_path)
    assert offered.results is None
    assert offered.metrics == {}
    assert "alberti study create study --run ." in offered.fragment()
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / ANSWERS).touch()
    assert read_run_study(tmp_path).results is None


def test_a_run_without_answers_needs_no_packages_beyond_the_pipeline_s(tmp_path: Path) -> None:
    code = (
        "import sys; from alberti.study.run import read_run_study; read_run_study(sys.argv[1]).fragment();"
        "print([name for name in ('scipy', 'fastapi', 'uvicorn', 'choix', 'torch') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout.strip() == "[]"


def test_what_is_not_installed_is_said(answered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.EXTRAS, "study", ("scipy", "no_such_package"))
    with pytest.raises(extras.MissingExtra, match="counting a study's answers needs no_such_package; "):
        read_run_study(answered.parent)


def test_a_run_s_study_with_answers_gives_metrics_and_a_fragment(answered: Path) -> None:
    found = read_run_study(answered.parent)
    assert set(found.metrics) == {"base", "constrained"}
    assert found.metrics["constrained"]["lines_over_base_share"] > 0.5
    fragment = found.fragment()
    assert "constrained over base" in fragment
    assert "<html" not in fragment
    assert "href" not in fragment
    write_results(answered, answered / "results")
    assert 'href="../study/results/index.html"' in found.fragment()


def test_answers_alone_are_enough_for_a_run(answered: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "study").mkdir(parents=True)
    (tmp_path / "run" / "study" / ANSWERS).write_bytes((answered / ANSWERS).read_bytes())
    alone, whole = read_run_study(tmp_path / "run"), read_run_study(answered.parent)
    assert alone.study is None
    assert alone.metrics == whole.metrics


def test_who_withdrew_does_not_come_back_through_an_older_file(folder: Path, study: Study) -> None:
    from alberti.study.schedule import Schedule
    from alberti.study.store import Store

    store = Store(folder, study)
    token, rater = store.begin()
    store.answer(token, Schedule(study).trials(rater.slot, rater.number)[0], "left", 1.0, {}, last=False)
    write_answers(folder / ANSWERS, collect(folder))
    store.withdraw(token)
    assert collect(folder) == []
