"""The stage `report` on a finished workspace: its outs, its few numbers, and what it refuses."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from report_workspace import ARMS as TRAINED
from report_workspace import GUIDED, write_workspace

from alberti.errors import DataError
from alberti.files import read_json
from pipeline.profiles import compose
from stages.report import arm_note, gather, report
from stages.shared.params import Params, check_params

PROJECT = Path(__file__).parents[2]
ARMS = (*TRAINED, GUIDED)


@pytest.fixture(scope="module")
def params() -> Params:
    values = compose(PROJECT, "smoke")
    values["variants"] = {"guided": {"arm": "unconstrained", "generate": {"vanishing_guidance": {}}}}
    values["finetune_depth"]["models"] = ["dpt", "pixelformer"]
    values["finetune_depth"]["arms"] = list(ARMS)
    values["evaluate_depth"]["arms"] = ["original", "kitti", *ARMS]
    return check_params(values)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_workspace(tmp_path, count=3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_report_stage_writes_its_outs(here: Path, params: Params) -> None:
    report(params, "")
    text = (here / "report" / "index.html").read_text(encoding="utf-8")
    assert [path.name for path in (here / "report").iterdir()] == ["index.html"]
    for words in ("Rendered stand-ins", "smoke", "Fine-tuning the diffusion model", "2.14.1", "not fine-tuned", "way from"):
        assert words in text
    summary = read_json(here / "metrics" / "summary.json")
    assert set(summary) == {"images", "depth", "changes"}
    assert len(summary["changes"]) == 6
    assert list(summary["images"]) == list(ARMS)
    assert "consistency_2_gain" in summary["images"]["constrained"]
    images = pd.read_csv(here / "plots" / "images.csv")
    assert list(images["arm"]) == list(ARMS)
    assert images["consistency_2"].tolist() == pytest.approx([summary["images"][arm]["consistency_2"] for arm in ARMS])
    depth = pd.read_csv(here / "plots" / "depth.csv")
    assert len(depth) == 2 * 6
    headlines = {path.relative_to(here / "metrics/headlines").as_posix() for path in here.glob("metrics/headlines/*/*")}
    assert {"images/guided.json", "depth/dpt-guided.json", "depth/pixelformer-original.json"} < headlines
    first = {path: path.read_bytes() for path in (here / "report" / "index.html", here / "metrics" / "summary.json")}
    report(params, "")
    assert all(path.read_bytes() == content for path, content in first.items())


def test_arms_are_told_apart_by_their_params(here: Path, params: Params) -> None:
    inputs = gather(params)
    assert (inputs.base_arm, inputs.control_arm, inputs.constrained_arms) == ("base", "unconstrained", ("constrained",))
    assert (inputs.variants, inputs.guided_arms) == ({"guided": "unconstrained"}, ("guided",))
    assert inputs.arm_notes == {
        "base": "the base model, not fine-tuned",
        "unconstrained": "fine-tuned for 4 steps with the denoising loss alone",
        "constrained": "fine-tuned for 4 steps with the denoising loss and the published perspective loss, weight 0.01",
        "guided": "the weights of “unconstrained”, with edges turned towards the vanishing points while sampling",
    }
    assert inputs.stand_ins == ("train", "condition", "kitti", "test")
    assert yaml.safe_load(inputs.params)["arms"]["constrained"] == {"constraint": "perspective"}


def test_notes_name_what_was_changed(here: Path, params: Params) -> None:
    values = params.model_dump(mode="json", exclude_unset=True)
    values["arms"]["rolled"] = {"constraint": "orientation", "weight": 1, "rollout_steps": 10}
    values["arms"]["low"] = {"constraint": "perspective", "schedule": "alpha_bar"}
    values["variants"] = {
        "long": {"arm": "base", "generate": {"steps": 9}},
        "strong": {"arm": "low", "generate": {"vanishing_guidance": {"strength": 1.6}, "steps": 9}},
        "again": {"arm": "base"},
    }
    for section in ("finetune_depth", "evaluate_depth"):
        values[section]["arms"] = [arm for arm in values[section]["arms"] if arm != GUIDED]
    changed = check_params(values)
    notes = {arm: arm_note(changed, arm) for arm in changed.picture_arms}
    assert notes["rolled"].endswith("the constraint orientation, weight 1, on pictures sampled in 10 steps")
    assert notes["low"].endswith("the published perspective loss, weight 0.01, schedule alpha_bar")
    assert notes["long"] == "the weights of “base”, sampled with steps 9"
    assert notes["strong"].endswith("while sampling (steps 9, strength 1.6)")
    assert notes["again"] == "the weights of “base”, sampled alike"


def test_a_missing_evaluation_is_named_and_nothing_is_written(here: Path, params: Params) -> None:
    (here / "metrics" / "depth" / "dpt-base.csv").unlink()
    with pytest.raises(DataError, match=r"dpt-base\.csv"):
        report(params, "")
    assert not (here / "report").exists()
    assert not (here / "metrics" / "summary.json").exists()
