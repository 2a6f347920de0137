"""Results over seeds, from evaluations made with known differences."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from alberti.report.seed_tables import markdown
from alberti.report.seeds import DEPTH_COLUMNS, SeedResults, aligned, summarise_seeds

from alberti.errors import DataError
from alberti.report.inputs import Result

SEEDS, COUNT = (0, 1, 2), 200
HARD = np.random.default_rng(0).normal(0, 0.12, COUNT)
"""Some depth maps are harder than others, for every arm."""
IDS = [f"{index:06d}" for index in range(COUNT)]
TRUE = {"base": 0.30, "unconstrained": 0.32, "constrained": 0.44}
CEILING = 0.72


def pictures(mean: float, noise: int | None, distance: float = 10.0) -> Result:
    rng = np.random.default_rng(noise)
    shares = mean + HARD + (rng.normal(0, 0.05, COUNT) + rng.normal(0, 0.004) if noise is not None else 0)
    rows = pd.DataFrame({"id": IDS, "consistency_2": shares, "line_length": 1000 + 100 * HARD})
    shuffled = rows.sample(frac=1, random_state=noise or 0)  # the order of rows says nothing
    return Result({"frechet_distance": distance, "kernel_distance": 0.1, "extractor": "some_network"}, shuffled)


def depth(error: float, noise: int | None, ground_truth: str = "annotated") -> Result:
    scatter = np.random.default_rng(noise).normal(1, 0.05, COUNT) if noise is not None else 1
    rows = pd.DataFrame(dict.fromkeys(DEPTH_COLUMNS, error * (1 + HARD) * scatter))
    labels = {"protocol": "eigen_benchmark", "ground_truth": ground_truth, "alignment": "median", "split_hash": "0" * 64}
    return Result({**labels, "n": COUNT}, rows.assign(id=IDS))


def results(**changes: Any) -> SeedResults:
    images: dict[str, Sequence[Result]] = {
        arm: [pictures(mean, 10 * place + seed, 10.0 + seed) for seed in SEEDS]
        for place, (arm, mean) in enumerate(TRUE.items())
    }
    models = {"original": [depth(0.3, None)] * 3, "constrained": [depth(0.27, 70 + seed) for seed in SEEDS]}
    references = {"renders": pictures(0.85, None), "reconstructions": pictures(CEILING, None)}
    values: dict[str, Any] = {"seeds": SEEDS, "images": images, "depth": {"dpt": models}, "references": references}
    return SeedResults(**values | changes)


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    return summarise_seeds(results())


def inside(entry: dict[str, float], value: float) -> bool:
    return entry["low"] <= value <= entry["high"]


def test_means_and_differences_cover_the_truth(summary: dict) -> None:
    images = summary["images"]
    for arm, mean in TRUE.items():
        entry = images["arms"][arm]["consistency_2"]
        assert inside(entry, mean + HARD.mean())
        assert (entry["n"], len(entry["seeds"])) == (COUNT, 3)
        assert np.mean(entry["seeds"]) == pytest.approx(entry["mean"], abs=1e-5)
    gain = images["differences"]["constrained - unconstrained"]["consistency_2"]
    assert inside(gain, 0.12)
    assert gain["low"] > 0.09
    assert inside(images["differences"]["unconstrained - base"]["consistency_2"], 0.02)
    assert list(images["differences"]) == ["unconstrained - base", "constrained - unconstrained", "constrained - base"]


def test_pairing_makes_the_difference_s_interval_narrow(summary: dict) -> None:
    images = summary["images"]
    gain, arm = (
        images["differences"]["constrained - unconstrained"]["consistency_2"],
        images["arms"]["constrained"]["consistency_2"],
    )
    assert gain["high"] - gain["low"] < 0.75 * (arm["high"] - arm["low"])


def test_sign_follows_the_order(summary: dict) -> None:
    turned = summarise_seeds(results(control_arm="constrained"))
    loss = turned["images"]["differences"]["unconstrained - constrained"]["consistency_2"]
    gain = summary["images"]["differences"]["constrained - unconstrained"]["consistency_2"]
    assert loss["mean"] == pytest.approx(-gain["mean"])
    assert loss["high"] < 0


def test_share_of_the_gap_that_is_closed(summary: dict) -> None:
    share = summary["images"]["gap_closed"]["constrained"]["consistency_2"]
    assert inside(share, (0.44 - 0.32) / (CEILING - 0.32))
    assert summary["images"]["gap_closed"]["base"]["consistency_2"]["high"] < 0.05
    assert "unconstrained" not in summary["images"]["gap_closed"]


def test_an_arm_s_own_control_is_compared_as_well() -> None:
    changed = summarise_seeds(results(controls={"constrained": "base", "unconstrained": "nothing"}))
    assert list(changed["images"]["differences"]) == [
        "unconstrained - base",
        "constrained - base",
        "constrained - unconstrained",
    ]


def test_distances_show_the_seeds(summary: dict) -> None:
    assert summary["distances"]["base"]["frechet_distance"] == {"mean": 11.0, "sd": 1.0, "seeds": [10.0, 11.0, 12.0]}
    assert summary["distances"]["renders"]["frechet_distance"]["sd"] is None


def test_depth_is_relative_to_the_original(summary: dict) -> None:
    change = summary["depth"]["dpt"]["relative"]["constrained / original"]["rmse"]
    assert inside(change, -0.1)
    assert change["high"] < -0.08
    assert summary["depth"]["dpt"]["setting"]["protocol"] == "eigen_benchmark"


def test_depth_against_other_ground_truth_is_refused() -> None:
    mixed = {"original": [depth(0.3, None)] * 3, "constrained": [depth(0.27, seed, "lidar_forward") for seed in SEEDS]}
    with pytest.raises(DataError, match=r"dpt-original and dpt-constrained .* ground_truth"):
        summarise_seeds(results(depth={"dpt": mixed}))


def test_pictures_without_a_number_are_left_out_for_all_arms() -> None:
    images = results().images
    table = images["base"][1].rows.copy()
    table.loc[table["id"] == "000003", "consistency_2"] = np.nan
    changed = {**images, "base": [images["base"][0], Result(images["base"][1].summary, table), images["base"][2]]}
    values, ids = aligned(changed, list(changed), "consistency_2")
    assert values.shape == (3, 3, COUNT - 1)
    assert "000003" not in ids
    assert values[2, 0, ids.index("000004")] == changed["constrained"][0].rows.set_index("id")["consistency_2"]["000004"]


def test_other_images_are_refused() -> None:
    images = results().images
    fewer = Result(images["base"][0].summary, images["base"][0].rows.iloc[1:])
    with pytest.raises(DataError, match="not those of"):
        summarise_seeds(results(images={**images, "base": [fewer, *images["base"][1:]]}))


def test_one_seed_without_references_is_a_summary_as_well() -> None:
    one = {arm: found[:1] for arm, found in results().images.items()}
    summary = summarise_seeds(results(seeds=(0,), images=one, depth={}, references={}))
    assert summary["images"]["gap_closed"] == {}
    assert summary["distances"]["base"]["frechet_distance"]["sd"] is None


def test_markdown_has_every_arm_and_difference(summary: dict) -> None:
    facts = {"seeds": [0, 1, 2], "pictures": COUNT, "profile": "gpu", "resamples": 4000, "extractor": "some_network"}
    minutes = {"total": 3.5, "by_stage": {"finetune": 3.5}, "devices": ["cpu"]}
    text = markdown({**facts, "control_arm": "unconstrained", "minutes": minutes, **summary})
    gain = summary["images"]["differences"]["constrained - unconstrained"]["consistency_2"]
    assert f"| constrained - unconstrained | {100 * gain['mean']:+.1f} ({100 * gain['low']:+.1f} to" in text
    assert "| constrained / original | -1" in text
    assert "11.0 ± 1.0" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines if "pictures" in line or "renders" in line}) == 1
