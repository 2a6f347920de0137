"""The summary, from evaluations made with known differences: over several seeds, one seed, and scenes that share frames."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from alberti.errors import DataError
from alberti.metrics.labels import DEPTH
from alberti.report.inputs import Arm, ReportInputs, Result, Seeds
from alberti.report.markdown import markdown
from alberti.report.summary import aligned, headlines, plot_rows, summarise
from alberti.report.tables import depth_table, picture_table
from alberti.report.verdict import caveats, verdict
from alberti.study.analysis import Design, analyse, answer_table
from alberti.study.answers import Answer
from alberti.study.design import Rules

SEEDS, COUNT = (0, 1, 2), 200
HARD = np.random.default_rng(0).normal(0, 0.12, COUNT)
"""Some depth maps are harder than others, for every arm."""
IDS = [f"{index:06d}" for index in range(COUNT)]
TRUE = {"base": 0.30, "unconstrained": 0.32, "constrained": 0.44}
CEILING = 0.72
ARMS = {
    "base": Arm("base"),
    "unconstrained": Arm("plain", "", "base"),
    "constrained": Arm("constraint", "", "unconstrained"),
    "original": Arm("reference"),
}


def pictures(mean: float, noise: int | None, distance: float = 10.0) -> Result:
    rng = np.random.default_rng(noise)
    shares = mean + HARD + (rng.normal(0, 0.05, COUNT) + rng.normal(0, 0.004) if noise is not None else 0)
    rows = pd.DataFrame({"id": IDS, "consistency_2": shares, "line_length": 1000 + 100 * HARD})
    shuffled = rows.sample(frac=1, random_state=noise or 0)  # the order of rows says nothing
    return Result(
        {"frechet_distance": distance, "kernel_distance": 0.1, "extractor": "some_network", "n_reference": COUNT}, shuffled
    )


def depth(error: float, noise: int | None, ids: Sequence[str] = IDS, **labels: str) -> Result:
    scatter = np.random.default_rng(noise).normal(1, 0.05, len(ids)) if noise is not None else 1
    rows = pd.DataFrame({metric.key: error * (1 + HARD[: len(ids)]) * scatter for metric in DEPTH})
    known = {"protocol": "eigen_benchmark", "ground_truth": "annotated", "alignment": "median", "split_hash": "0" * 64}
    return Result({**known, **labels, "n": len(ids)}, rows.assign(id=list(ids)))


def over_seeds(results: Sequence[Result]) -> Seeds:
    return dict(zip(SEEDS, results, strict=True))


def images(shift: float = 0.0) -> dict[str, Seeds]:
    means = TRUE | {"constrained": TRUE["constrained"] + shift}
    return {
        arm: over_seeds([pictures(mean, 10 * place + seed, 10.0 + seed - 3 * place) for seed in SEEDS])
        for place, (arm, mean) in enumerate(means.items())
    }


def depth_models(better: float = 0.9, ids: Sequence[str] = IDS) -> Mapping[str, Mapping[str, Seeds]]:
    models: dict[str, Seeds] = {
        "original": {None: depth(0.3, None, ids)},
        "unconstrained": over_seeds([depth(0.3, 40 + seed, ids) for seed in SEEDS]),
        "constrained": over_seeds([depth(0.3 * better, 70 + seed, ids) for seed in SEEDS]),
    }
    return {"dpt": models}


def inputs(**changes: Any) -> ReportInputs:
    values: dict[str, Any] = {
        "seeds": SEEDS,
        "images": images(),
        "depth": {"test": depth_models()},
        "arms": ARMS,
        "references": {"renders": pictures(0.85, None), "reconstructions": pictures(CEILING, None)},
        "resamples": 1000,
    }
    return ReportInputs(**values | changes)


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    return summarise(inputs())


def inside(entry: Mapping[str, float], value: float) -> bool:
    return entry["low"] <= value <= entry["high"]


def test_means_and_differences_cover_the_truth(summary: dict) -> None:
    measured = summary["images"]
    for arm, mean in TRUE.items():
        entry = measured["arms"][arm]["consistency_2"]
        assert inside(entry, mean + HARD.mean())
        assert (entry["n"], len(entry["seeds"])) == (COUNT, 3)
        assert np.mean(entry["seeds"]) == pytest.approx(entry["mean"], abs=1e-5)
    gain = measured["differences"]["constrained - unconstrained"]["consistency_2"]
    assert inside(gain, 0.12)
    assert gain["low"] > 0.09
    assert inside(measured["differences"]["unconstrained - base"]["consistency_2"], 0.02)
    pairs = ["base - unconstrained", "unconstrained - base", "constrained - unconstrained", "constrained - base"]
    assert list(measured["differences"]) == pairs


def test_pairing_makes_the_difference_s_interval_narrow(summary: dict) -> None:
    gain = summary["images"]["differences"]["constrained - unconstrained"]["consistency_2"]
    arm = summary["images"]["arms"]["constrained"]["consistency_2"]
    assert gain["high"] - gain["low"] < 0.75 * (arm["high"] - arm["low"])


def test_share_of_the_way_that_is_closed(summary: dict) -> None:
    share = summary["images"]["gap_closed"]["constrained"]["consistency_2"]
    assert inside(share, (0.44 - 0.32) / (CEILING - 0.32))
    low = {"reconstructions": pictures(0.2, None)}
    assert summarise(inputs(references=low))["images"]["gap_closed"] == {}, "there is no way to go"


def test_distances_have_intervals_over_seeds_alone(summary: dict) -> None:
    distances = summary["distances"]
    assert distances["arms"]["base"]["frechet_distance"] == {"mean": 11.0, "sd": 1.0, "seeds": [10.0, 11.0, 12.0]}
    assert distances["arms"]["renders"]["frechet_distance"]["sd"] is None
    change = distances["differences"]["constrained - unconstrained"]["frechet_distance"]
    assert (change["mean"], change["low"], change["high"]) == (-3.0, -3.0, -3.0), "the seeds differ by the same"


def test_student_s_t_of_two_seeds() -> None:
    two = {arm: {seed: results[seed] for seed in (0, 1)} for arm, results in images().items()}
    two["constrained"] = {0: pictures(0.4, 1, 4.0), 1: pictures(0.4, 2, 6.0)}
    change = summarise(inputs(seeds=(0, 1), images=two, depth={}))["distances"]["differences"]["constrained - unconstrained"]
    entry = change["frechet_distance"]  # differences -3 and -2
    assert entry["mean"] == pytest.approx(-2.5)
    assert entry["high"] - entry["mean"] == pytest.approx(12.706 * 0.5, rel=1e-3)


def test_depth_is_relative_and_what_no_seed_changes_stands_for_all(summary: dict) -> None:
    section = summary["depth"]["test"]["models"]["dpt"]
    change = section["relative"]["constrained / original"]["rmse"]
    assert inside(change, -0.1)
    assert change["high"] < -0.08
    assert (section["setting"]["protocol"], section["setting"]["scenes"]) == ("eigen_benchmark", COUNT)
    assert section["arms"]["original"]["abs_rel"]["seeds"][0] == section["arms"]["original"]["abs_rel"]["seeds"][2]


def test_frames_of_a_scene_are_resampled_together() -> None:
    ids = [f"2011_09_26_drive_{index // 20:04d}_sync_{index:010d}" for index in range(COUNT)]
    alike = np.repeat(np.random.default_rng(3).normal(0, 0.1, 10), 20)
    rows = {metric.key: 0.3 + alike for metric in DEPTH}
    one = Result({**depth(0.3, None).summary}, pd.DataFrame(rows).assign(id=ids))
    found = {}
    for name, real in (("real", True), ("rendered", False)):
        made = summarise(
            inputs(seeds=(0,), images={}, depth={name: {"dpt": {"original": {None: one}}}}, real_test_sets=(name,) * real)
        )
        section = made["depth"][name]["models"]["dpt"]
        entry = section["arms"]["original"]["abs_rel"]
        found[name] = (section["setting"]["scenes"], entry["high"] - entry["low"])
    assert found["real"][0] == 10
    assert found["rendered"][0] == COUNT, "rendered frames are scenes of their own, whatever their folders are called"
    assert found["real"][1] > 3 * found["rendered"][1]
    named = Result(one.summary, one.rows.assign(scene=["a", "b"] * (COUNT // 2)))
    made = summarise(inputs(seeds=(0,), images={}, depth={"x": {"dpt": {"original": {None: named}}}}))
    assert made["depth"]["x"]["models"]["dpt"]["setting"]["scenes"] == 2, "the table's own column comes first"


def test_one_frame_has_no_interval_and_no_verdict() -> None:
    models: dict[str, Seeds] = {
        arm: {0: depth(error, None, IDS[:1])} for arm, error in (("unconstrained", 0.3), ("constrained", 0.2))
    }
    made = summarise(inputs(seeds=(0,), images={}, depth={"one": {"dpt": models}}))
    entry = made["depth"]["one"]["models"]["dpt"]["relative"]["constrained / unconstrained"]["abs_rel"]
    assert (entry["low"], entry["high"]) == (None, None)
    assert "Not known" in made["verdict"][2]["answer"]


def test_depth_against_other_ground_truth_is_refused() -> None:
    mixed = {
        "original": {None: depth(0.3, None)},
        "constrained": over_seeds([depth(0.27, seed, ground_truth="lidar_forward") for seed in SEEDS]),
    }
    with pytest.raises(DataError, match=r"dpt-original and dpt-constrained .* ground_truth"):
        summarise(inputs(depth={"test": {"dpt": mixed}}))


def test_a_missing_seed_is_refused() -> None:
    fewer = images()
    fewer["constrained"] = {0: pictures(0.4, 1)}
    with pytest.raises(DataError, match="pictures of constrained is not evaluated for seed 1"):
        summarise(inputs(images=fewer))


def test_pictures_without_a_number_are_left_out_for_all_arms() -> None:
    runs = {arm: [found[seed] for seed in SEEDS] for arm, found in images().items()}
    table = runs["base"][1].rows.copy()
    table.loc[table["id"] == "000003", "consistency_2"] = np.nan
    runs["base"][1] = Result(runs["base"][1].summary, table)
    values, ids = aligned(runs, list(runs), "consistency_2")
    assert values.shape == (3, 3, COUNT - 1)
    assert "000003" not in ids
    place = list(ids).index("000004")
    assert values[2, 0, place] == runs["constrained"][0].rows.set_index("id")["consistency_2"]["000004"]


def test_other_images_are_refused() -> None:
    found = images()
    fewer = Result(found["base"][0].summary, found["base"][0].rows.iloc[1:])
    with pytest.raises(DataError, match="not those of"):
        summarise(inputs(images={**found, "base": {**found["base"], 0: fewer}}))


def test_one_seed_is_the_same_code_with_n_1() -> None:
    one: dict[str, Seeds] = {arm: {0: found[0]} for arm, found in images().items()}
    made = summarise(inputs(seeds=(0,), images=one, depth={}, references={}))
    assert made["images"]["gap_closed"] == {}
    assert made["distances"]["arms"]["base"]["frechet_distance"]["sd"] is None
    gain = made["images"]["differences"]["constrained - unconstrained"]["consistency_2"]
    paired = (
        one["constrained"][0].rows.set_index("id")["consistency_2"]
        - one["unconstrained"][0].rows.set_index("id")["consistency_2"]
    )
    assert gain["mean"] == pytest.approx(paired.mean(), abs=1e-6)
    half = 1.96 * paired.std() / np.sqrt(COUNT)
    assert gain["high"] - gain["low"] == pytest.approx(2 * half, rel=0.1)
    assert "one seed gives the Fréchet distance no interval" in made["verdict"][1]["answer"]
    assert any(line.startswith("One seed") for line in caveats(made))


@pytest.mark.parametrize(
    ("shift", "short", "words", "tone"),
    [
        (0.0, "Yes", "is straighter", "better"),
        (-0.12, "Not shown", "no clear change in “constrained”", "unclear"),
        (-0.3, "No, worse", "is less straight", "worse"),
    ],
)
def test_the_verdict_on_straightness_follows_the_numbers(shift: float, short: str, words: str, tone: str) -> None:
    line = verdict(summarise(inputs(images=images(shift), depth={})))[0]
    assert (line.short, line.tone) == (short, tone)
    assert line.answer.startswith(short)
    assert words in line.answer
    assert "“unconstrained”" in line.answer


@pytest.mark.parametrize(("better", "short"), [(0.9, "Yes"), (1.0, "Not shown"), (1.1, "No, worse")])
def test_the_verdict_on_depth_names_the_real_test_set_first(better: float, short: str) -> None:
    sets = {"renders": depth_models(1.5), "frames": depth_models(better, IDS[:60])}
    made = summarise(inputs(depth=sets, real_test_sets=("frames",)))
    line = made["verdict"][2]
    assert list(made["depth"]) == ["frames", "renders"]
    assert line["short"] == short
    assert "on real frames (frames: 60 frames)" in line["answer"]
    rendered = summarise(inputs(depth={"renders": depth_models(better)}))
    assert "on rendered frames (renders: 200 frames)" in rendered["verdict"][2]["answer"]
    assert any("No real test set" in text for text in caveats(rendered))
    assert not any("No real test set" in text for text in caveats(made))


def test_models_that_disagree_are_said_to() -> None:
    models = {"dpt": depth_models(1.1)["dpt"], "pixelformer": depth_models(0.9)["dpt"]}
    line = summarise(inputs(depth={"test": models}))["verdict"][2]
    assert (line["short"], line["tone"]) == ("Both ways", "mixed")
    assert "AbsRel falls for pixelformer" in line["answer"]
    assert "AbsRel rises for dpt" in line["answer"]


def test_a_run_without_a_constraint_says_so() -> None:
    plain = {name: arm for name, arm in ARMS.items() if name != "constrained"}
    assert [line["short"] for line in summarise(inputs(arms=plain))["verdict"]] == ["Not asked"] * 3


def test_more_line_is_a_caveat() -> None:
    found = images()
    longer = {
        seed: Result(result.summary, result.rows.assign(line_length=result.rows["line_length"] * 1.5))
        for seed, result in found["constrained"].items()
    }
    told = " ".join(caveats(summarise(inputs(images={**found, "constrained": longer}))))
    assert "“constrained” has 50 % more detected line than “unconstrained”" in told
    assert "more detected line" not in " ".join(caveats(summarise(inputs())))


def test_tables_name_one_control_and_mark_the_best_arm(summary: dict) -> None:
    table = picture_table(summary)
    rows = {row.arm: row for row in table.rows}
    assert table.control == "unconstrained"
    assert rows["unconstrained"].is_control
    assert rows["constrained"].cells[0].effect == "better"
    assert [arm for arm, row in rows.items() if row.cells[0].best] == ["constrained"], "references are not arms"
    errors = depth_table(summary, "test", "dpt", ("abs_rel",))
    cells = {row.arm: row.cells[0] for row in errors.rows}
    assert cells["unconstrained"].change == ""
    assert cells["constrained"].effect == "better"
    assert cells["constrained"].change.startswith("\N{MINUS SIGN}1")
    assert cells["original"].effect == "unclear", "every row is compared with the named control"


def test_headlines_fit_a_terminal(summary: dict) -> None:
    found = headlines(summary)
    assert set(found["constrained"]) == {"within2", "gain", "lines", "frechet", "dpt"}
    assert found["original"] == {"dpt": {"abs_rel": found["original"]["dpt"]["abs_rel"]}}
    gain = summary["images"]["differences"]["constrained - unconstrained"]["consistency_2"]["mean"]
    assert found["constrained"]["gain"] == pytest.approx(gain, rel=1e-3)
    keys = dict.fromkeys(
        key if not isinstance(value, dict) else f"{key}.abs_rel" for row in found.values() for key, value in row.items()
    )
    path = max(len(f"metrics/headlines/{arm}.json") for arm in found)
    assert path + sum(max(len(key), 8) + 2 for key in keys) <= 120 - len("pixelformer.abs_rel") - 2


def test_plot_rows_have_a_name_a_bar(summary: dict) -> None:
    rows = plot_rows(summary)
    names = [row["trained"] for row in rows["depth"]]
    assert len(set(names)) == len(names)
    assert {row["arm"] for row in rows["images"]} == {*TRUE, "renders", "reconstructions"}
    assert plot_rows(summarise(inputs(depth={}))).keys() == {"images"}, "no plot is empty"


def test_markdown_has_every_arm_and_difference(summary: dict) -> None:
    text = markdown(summary)
    gain = summary["images"]["differences"]["constrained - unconstrained"]["consistency_2"]
    assert f"| constrained - unconstrained | +{100 * gain['mean']:.1f} points (+{100 * gain['low']:.1f} to" in text
    assert "| constrained / original | \N{MINUS SIGN}1" in text
    assert "11 ± 1" in text
    assert "dpt on test: 200 rendered frames, protocol eigen_benchmark" in text
    assert text.index("**Straighter?**") < text.index("| pictures |")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert all(len({line.count("|") for line in lines}) == 1 for lines in tables)


def people(share: float) -> dict[str, Any]:
    """Results of a human trial in which ``constrained``, on either side, was preferred in about this share of the answers."""
    rng = np.random.default_rng(6)
    fields: dict[str, Any] = {"study": "s", "design": "d", "source": "server", "block": "realism", "ms": 1500.0, "kind": "main"}
    answers = []
    for rater in range(12):
        for trial in range(20):
            left, right = rng.permutation(["constrained", "unconstrained"])
            wanted = "constrained" if rng.random() < share else "unconstrained"
            chosen = "left" if left == wanted else "right"
            picture = f"p{trial}"
            pair = {"left": str(left), "right": str(right), "chosen": chosen, "picture": picture, "scene": picture}
            answers.append(Answer(rater=f"r{rater}", trial=trial, **pair, **fields))
    pairs = (("unconstrained", "constrained"),)
    design = Design("s", "t", ("unconstrained", "constrained"), pairs, {"realism": "Which is more real?"}, Rules(), None)
    return analyse(answer_table(answers), design)


@pytest.mark.parametrize(("share", "short"), [(0.8, "Yes"), (0.2, "No, worse"), (0.5, "Not shown")])
def test_what_people_say_comes_before_distances(share: float, short: str) -> None:
    line = summarise(inputs(study=people(share), depth={}))["verdict"][1]
    assert line["short"] == short
    assert "of answers" in line["answer"]
    assert line["answer"].index("people") < line["answer"].index("Fréchet"), "both are said, people first"
    assert line["answer"].count(".") > 1
