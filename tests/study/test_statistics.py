"""Intervals and strengths against closed forms, textbook figures and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from alberti.study.design import Block
from alberti.study.plan import imagined_study, plan, planned_study
from alberti.study.schedule import Schedule
from alberti.study.simulate import CARELESS, Raters, mean_log_odds, simulate
from alberti.study.statistics import agreement, bradley_terry, clustered_share, two_way_variance


def test_without_clusters_the_interval_is_wilson_s() -> None:
    values = np.array([1] * 130 + [0] * 70)
    everyone = np.arange(200)
    found = clustered_share(values, everyone, everyone)
    assert found is not None
    variance = 0.65 * 0.35 / 199  # with the small-sample factor n / (n - 1)
    assert found.standard_error == pytest.approx(math.sqrt(variance))
    n, t = 199, stats.t.ppf(0.975, 199)
    centre = (0.65 + t**2 / 2 / n) / (1 + t**2 / n)
    half = t / (1 + t**2 / n) * math.sqrt(0.65 * 0.35 / n + t**2 / 4 / n**2)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))


def test_raters_who_always_say_the_same_count_as_one_answer_each() -> None:
    raters = np.repeat(np.arange(10), 20)
    values = np.repeat([1, 1, 1, 1, 1, 1, 0, 0, 0, 0], 20)
    found = clustered_share(values, raters, np.tile(np.arange(20), 10))
    assert found is not None
    assert found.standard_error == pytest.approx(math.sqrt(0.6 * 0.4 / 9))
    naive = clustered_share(values, np.arange(200), np.arange(200))
    assert naive is not None
    assert found.high - found.low > 3 * (naive.high - naive.low)


def test_two_way_variance_by_hand() -> None:
    """Four answers of two raters about two scenes, written out."""
    scores = np.array([[0.3], [0.1], [-0.2], [-0.2]])
    rater, scene = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    by_rater = 2 * (0.4**2 + 0.4**2)
    by_scene = 2 * (0.1**2 + 0.1**2)
    both = 4 / 3 * (0.09 + 0.01 + 0.04 + 0.04)
    assert two_way_variance(scores, rater, scene)[0] == pytest.approx(max(by_rater + by_scene - both, by_rater))


@pytest.mark.parametrize("value", [0, 1])
def test_an_unanimous_share_still_has_an_interval(value: int) -> None:
    found = clustered_share([value] * 60, np.repeat(np.arange(6), 10), np.tile(np.arange(10), 6))
    assert found is not None
    assert found.share == value
    assert 0 <= found.low <= found.high <= 1
    assert found.high - found.low > 0.3  # six raters do not show that nobody disagrees


def test_no_answers_no_share() -> None:
    assert clustered_share([], [], []) is None


def test_strengths_of_two_arms_are_the_log_odds_of_the_share() -> None:
    winners, losers = ["a"] * 70 + ["b"] * 30, ["b"] * 70 + ["a"] * 30
    everyone = np.arange(100)
    found = bradley_terry(winners, losers, everyone, everyone, ["a", "b"])
    assert found is not None
    assert found[0].strength == pytest.approx(math.log(0.7 / 0.3) / 2, abs=1e-4)
    assert found[1].strength == pytest.approx(-found[0].strength)
    half = stats.t.ppf(0.975, 99) * math.sqrt(100 / 99) * 0.5 / math.sqrt(100 * 0.7 * 0.3)
    assert found[0].high - found[0].strength == pytest.approx(half, rel=1e-3)


def test_strengths_put_in_are_found() -> None:
    rng, true = np.random.default_rng(0), np.array([-0.8, 0.1, 0.7])
    winners, losers = [], []
    for _ in range(2000):
        i, j = rng.choice(3, 2, replace=False)
        first = rng.random() < 1 / (1 + math.exp(true[j] - true[i]))
        winners.append("abc"[i if first else j])
        losers.append("abc"[j if first else i])
    everyone = np.arange(2000)
    found = bradley_terry(winners, losers, everyone, everyone, list("abc"))
    assert found is not None
    assert [strength.strength for strength in found] == pytest.approx(true, abs=0.15)
    assert all(strength.low < value < strength.high for strength, value in zip(found, true, strict=True))


def test_arms_that_were_never_compared_have_no_strengths() -> None:
    assert bradley_terry(["a", "b"], ["b", "a"], [1, 2], [1, 2], ["a", "b", "c"]) is None


def test_an_arm_that_always_won_stays_finite() -> None:
    found = bradley_terry(["a"] * 20, ["b"] * 20, np.arange(20), np.arange(20), ["a", "b"])
    assert found is not None
    assert math.isfinite(found[0].strength)
    assert found[0].strength > 3


def test_alpha_of_krippendorff_s_own_example() -> None:
    """Computing Krippendorff's Alpha-Reliability (2011), section A: binary data, two observers, no missing data."""
    meg, owen = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    found = agreement([0] * 10 + [1] * 10, [*range(10), *range(10)], meg + owen)
    assert found["alpha"] == pytest.approx(0.095, abs=5e-4)
    assert found["agreeing_pairs"] == pytest.approx(0.6)


def test_agreement_of_those_who_agree_and_of_coins() -> None:
    raters, items = np.repeat(np.arange(8), 30), np.tile(np.arange(30), 8)
    same = agreement(raters, items, items % 2)
    assert same == {"items": 30, "alpha": pytest.approx(1.0), "agreeing_pairs": 1.0}
    coins = agreement(raters, items, np.random.default_rng(0).integers(0, 2, 240))
    assert coins["alpha"] == pytest.approx(0, abs=0.1)
    assert agreement([1, 2], [1, 2], [0, 1])["alpha"] is None


@pytest.mark.parametrize("preference", [0.5, 0.6, 0.7])
def test_log_odds_of_simulated_raters_average_to_the_preference(preference: float) -> None:
    spread = 0.7
    odds = np.random.default_rng(0).normal(mean_log_odds(preference, spread), spread, 400_000)
    assert (1 / (1 + np.exp(-odds))).mean() == pytest.approx(preference, abs=0.002)


def test_intervals_cover_and_exclusions_undo_what_careless_raters_do() -> None:
    """The figure of docs/study.md in small: benchmarks/study_coverage.py has the 1,000 studies."""
    from alberti.study.analysis import rater_table

    blocks = tuple(Block(key=key, question="?", per_comparison=16) for key in ("realism", "lines"))
    base, raters = imagined_study(["base", "constrained"], blocks=blocks), Raters(0.7, careless=0.2)
    covered, before, after, caught = [], [], [], []
    for seed in range(40):
        study = planned_study(base, 30, seed)
        table = simulate(study, Schedule(study), raters, 15, seed)
        excluded = rater_table(table, study.rules)["excluded"] != ""
        main = table[table["kind"] == "main"]
        kept = main[~main["rater"].map(excluded)]
        share = clustered_share(kept["winner"] == "constrained", kept["rater"], kept["scene"])
        assert share is not None
        covered.append(share.low <= 0.7 <= share.high)
        before.append((main["winner"] == "constrained").mean())
        after.append(share.share)
        caught.append(excluded[excluded.index.str.startswith(CARELESS)].mean())
    assert np.mean(covered) > 0.85
    assert np.mean(before) == pytest.approx(0.66, abs=0.02)  # 0.8 x 0.7 + 0.2 x 0.5
    assert np.mean(after) == pytest.approx(0.7, abs=0.02)
    assert np.mean(caught) > 0.85


def test_more_raters_narrow_the_planned_interval() -> None:
    blocks = (Block(key="realism", question="?", per_comparison=8, catch=2, repeats=2, practice=0),)
    rows = plan(
        imagined_study(["a", "b"], blocks=blocks),
        raters=[6, 24],
        pictures=12,
        per_comparison=[8, 50],
        simulated=Raters(0.6),
        studies=12,
    )
    assert [(row["raters"], row["pairs"]) for row in rows] == [(6, 8), (24, 8)]  # 50 pairs of 12 pictures cannot be
    assert rows[1]["half_width"] < 0.8 * rows[0]["half_width"]
    assert rows[0]["pairs_in_all"] == 12
