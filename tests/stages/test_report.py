"""The stage `report` on a finished workspace: its outs, its few numbers, and what it refuses."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from report_workspace import ARMS as TRAINED
from report_workspace import GUIDED, write_workspace

from alberti.errors import DataError
from alberti.files import read_json
from pipeline.profiles import compose
from stages.report import arms, gather, report
from stages.shared.graph import Instance
from stages.shared.layout import Layout
from stages.shared.params import Params, check_params

PROJECT = Path(__file__).parents[2]
ARMS = (*TRAINED, GUIDED)
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def params() -> Params:
    values = compose(PROJECT, "smoke")
    values["seeds"] = list(SEEDS)
    values["variants"] = {"guided": {"arm": "unconstrained", "generate": {"vanishing_guidance": {}}}}
    values["finetune_depth"]["models"] = ["dpt", "pixelformer"]
    values["finetune_depth"]["arms"] = list(ARMS)
    values["evaluate_depth"]["arms"] = ["original", "kitti", *ARMS]
    return check_params(values)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    write_workspace(root, count=3, seeds=SEEDS)
    return root


@pytest.fixture
def layout(finished: Path, tmp_path: Path) -> Layout:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return Layout.of(tmp_path, PROJECT)


def test_report_stage_writes_its_outs(layout: Layout, params: Params) -> None:
    report(layout, params, Instance())
    text = (layout.report / "index.html").read_text(encoding="utf-8")
    assert [path.name for path in layout.report.iterdir()] == ["index.html"]
    for words in ("rendered by alberti itself", "smoke", "Fine-tuning the diffusion model", "2.14.1", "not fine-tuned"):
        assert words in text
    summary = read_json(layout.metrics("summary.json"))
    assert summary["seeds"] == list(SEEDS)
    assert len(summary["verdict"]) == 3
    images = pd.read_csv(layout.plots("images.csv"))
    assert list(images["arm"])[:4] == list(ARMS)
    depth = pd.read_csv(layout.plots("depth.csv"))
    assert depth["trained"].is_unique
    assert len(depth) == 2 * 6
    headlines = {path.stem: read_json(path) for path in layout.metrics("headlines").glob("*.json")}
    assert {*ARMS, "original", "kitti"} < set(headlines)
    assert headlines["guided"]["gain"] > 0
    first = {path: path.read_bytes() for path in (layout.report / "index.html", layout.metrics("summary.json"))}
    report(layout, params, Instance())
    assert all(path.read_bytes() == content for path, content in first.items())


def test_arms_are_told_apart_by_their_params(layout: Layout, params: Params) -> None:
    inputs = gather(layout, params)
    assert (inputs.base_arm, inputs.main_control, inputs.treated) == ("base", "unconstrained", ["constrained", "guided"])
    notes = {name: arm.note for name, arm in inputs.arms.items()}
    assert notes["base"] == "the base model, not fine-tuned"
    assert notes["unconstrained"].endswith("steps with the denoising loss alone")
    assert notes["constrained"].endswith("with the denoising loss and the published perspective loss, weight 0.01")
    assert notes["guided"] == "the weights of “unconstrained”, edges turned towards the vanishing points while sampling"
    assert inputs.real_test_sets == ()
    assert set(inputs.stand_ins) >= {"train", "condition", "kitti", "test"}
    assert yaml.safe_load(inputs.params)["arms"]["constrained"]["constraint"] == "perspective"
    assert set(inputs.curves["Fine-tuning dpt"]) >= {"constrained-0", "constrained-1"}


def test_a_control_of_one_s_own(params: Params) -> None:
    values = compose(PROJECT, "smoke")
    values["arms"] = values["arms"] | {
        "low": values["arms"]["constrained"] | {"schedule": "alpha_bar"},
        "low_control": values["arms"]["unconstrained"],
    }
    usual = values["generate"]
    values["variants"] = {
        "long": {"arm": "base", "generate": usual | {"steps": 9}},
        "again": {"arm": "base", "generate": usual},
    }
    known = arms(check_params(values))
    assert known["low"].control == "low_control"
    assert known["low"].note.endswith("the published perspective loss, weight 0.01, schedule alpha_bar")
    assert known["long"].note == "the weights of “base”, sampled with steps 9"
    assert (known["again"].kind, known["again"].note) == ("sampling", "the weights of “base”, sampled as the others")


def test_a_missing_evaluation_is_named_and_nothing_is_written(layout: Layout, params: Params) -> None:
    layout.metrics("depth", "dpt", "base", "0", "test.csv").unlink()
    with pytest.raises(DataError, match=r"test\.csv"):
        report(layout, params, Instance())
    assert not layout.report.exists()
    assert not layout.metrics("summary.json").exists()
