"""What raters see: balanced, reproducible, and blind."""

from collections import Counter

import pytest

from alberti.study.design import BENT, STRAIGHT, Block, Study
from alberti.study.plan import imagined_study, planned_study
from alberti.study.schedule import Schedule


def study_of(arms: list[str], pictures: int, **block: int) -> Study:
    values = {"per_comparison": 3, "catch": 2, "repeats": 2, "practice": 1} | block
    blocks = (Block(key="realism", question="?", **values), Block(key="lines", question="?", practice_feedback=True, **values))
    return planned_study(imagined_study(arms, blocks=blocks), pictures, seed=3)


@pytest.mark.parametrize(("pictures", "take"), [(7, 3), (5, 5), (6, 4), (9, 1)])
def test_pictures_are_asked_about_equally_often_after_any_number_of_raters(pictures: int, take: int) -> None:
    study = study_of(["a", "b", "c"], pictures, per_comparison=take)
    schedule, seen = Schedule(study), Counter()
    for rater in range(20):
        mains = [trial for trial in schedule.trials(rater, rater) if trial.kind == "main" and trial.block.key == "realism"]
        items = [(*sorted((trial.left.arm, trial.right.arm)), trial.left.name) for trial in mains]
        assert len(set(items)) == len(items) == 3 * take  # nobody sees a pair twice but in a repeat
        assert Counter(item[:2] for item in items) == dict.fromkeys([("a", "b"), ("a", "c"), ("b", "c")], take)
        seen.update(items)
        counts = [seen[(*pair, name)] for pair in (("a", "b"), ("a", "c"), ("b", "c")) for name in study.names]
        assert max(counts) - min(counts) <= 1


def test_sides_are_balanced_within_a_rater_and_over_raters() -> None:
    study = study_of(["a", "b"], 12, per_comparison=5, catch=4)
    schedule, lefts, catches = Schedule(study), [], []
    for rater in range(60):
        trials = [trial for trial in schedule.trials(rater, rater) if trial.block.key == "realism"]
        left = sum(trial.left.arm == "a" for trial in trials if trial.kind == "main")
        assert left in (2, 3)
        lefts.append(left)
        catches.append(sum(trial.left.arm == STRAIGHT for trial in trials if trial.kind == "catch"))
    assert set(lefts) == {2, 3}
    assert set(catches) == {2}


def test_the_same_numbers_give_the_same_series_and_other_numbers_others() -> None:
    study = study_of(["a", "b"], 12)
    first, again = Schedule(study).trials(4, 9), Schedule(study).trials(4, 9)
    assert first == again
    other = Schedule(study).trials(4, 10)  # the same pictures, by lot anew
    assert other != first
    for key in ("realism", "lines"):
        names = [
            sorted(trial.left.name for trial in trials if trial.kind == "main" and trial.block.key == key)
            for trials in (first, other)
        ]
        assert names[0] == names[1]
    moved = planned_study(study, 12, seed=4)
    assert [trial.left.name for trial in Schedule(moved).trials(4, 9)] != [trial.left.name for trial in first]


def test_asking_for_a_late_rater_first_changes_nothing() -> None:
    study = study_of(["a", "b"], 7)
    late = Schedule(study)
    late.trials(50, 50)
    assert late.trials(3, 3) == Schedule(study).trials(3, 3)


def test_repeats_come_later_with_their_sides_swapped() -> None:
    study = study_of(["a", "b", "c"], 10, per_comparison=4, repeats=4)
    for rater in range(10):
        trials = Schedule(study).trials(rater, rater)
        repeats = [trial for trial in trials if trial.kind == "repeat"]
        assert len(repeats) == 2 * 4
        for trial in repeats:
            first = trials[trial.repeat_of]
            assert first.kind == "main"
            assert (trial.left, trial.right) == (first.right, first.left)
            assert trial.index - first.index >= 2


def test_catch_pairs_are_one_picture_straight_and_bent_and_spread_over_the_block() -> None:
    study = study_of(["a", "b"], 30, per_comparison=24, catch=4)
    for rater in range(10):
        trials = [trial for trial in Schedule(study).trials(rater, rater) if trial.block.key == "realism"]
        catches = [trial for trial in trials if trial.kind == "catch"]
        assert all({trial.left.arm, trial.right.arm} == {STRAIGHT, BENT} for trial in catches)
        assert all(trial.left.name == trial.right.name for trial in catches)
        assert len({trial.left.name for trial in catches}) == 4
        assert all(trial.correct == ("left" if trial.left.arm == STRAIGHT else "right") for trial in catches)
        quarters = Counter((trial.index - 1) * 4 // (len(trials) - 1) for trial in catches)
        assert max(quarters.values()) <= 2
        assert trials[1].kind != "catch"


def test_practice_comes_first_and_indexes_count_through() -> None:
    study = study_of(["a", "b"], 8)
    trials = Schedule(study).trials(0, 0)
    assert [trial.index for trial in trials] == list(range(study.trials)) == list(range(len(trials)))
    kinds = [[trial.kind for trial in trials if trial.block.key == key] for key in ("realism", "lines")]
    assert all(kind[0] == "practice" and "practice" not in kind[1:] for kind in kinds)
    realism, lines = (next(trial for trial in trials if trial.block.key == key) for key in ("realism", "lines"))
    assert realism.correct is None
    assert lines.correct is not None
