"""From the workspaces of several seeds to one JSON, tables and figures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from report_workspace import ARMS, write_workspace
from stages.plan import STAMPS

from alberti.errors import DataError
from alberti.files import write_json
from pipeline.profiles import compose
from pipeline.results import collect, main, read_runs

GAIN = 0.1


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    """Two seeds, three arms and a variant, as `stages.run` leaves them; seed 1's `constrained` is straighter by GAIN."""
    runs = tmp_path_factory.mktemp("runs")
    write_workspace(runs / "seed0")
    shutil.move(runs / "seed0/data/condition", runs / "shared-condition")
    shutil.copytree(runs / "shared-condition", runs / "seed0/data/condition")
    shutil.copytree(runs / "shared-condition", runs / "seed0/data/references", dirs_exist_ok=True)
    for kind in ("json", "csv"):
        shutil.copy(runs / f"seed0/metrics/images/constrained.{kind}", runs / f"seed0/metrics/images/guided.{kind}")
    shutil.copytree(runs / "seed0/data/generated/constrained", runs / "seed0/data/generated/guided", dirs_exist_ok=True)
    references = runs / "seed0/metrics/references"
    for name in ("renders", "reconstructions"):
        for kind in ("json", "csv"):
            shutil.copy(runs / f"seed0/metrics/images/base.{kind}", references / f"{name}.{kind}")
    shutil.copytree(runs / "seed0", runs / "seed1")
    table = pd.read_csv(runs / "seed1/metrics/images/constrained.csv", dtype={"id": str})
    table["consistency_2"] += GAIN
    table.to_csv(runs / "seed1/metrics/images/constrained.csv", index=False)
    values = compose(project, "smoke")
    values["finetune_depth"]["arms"] = [*ARMS, "guided"]
    values["evaluate_depth"]["arms"] = ["original", "kitti", *ARMS, "guided"]
    values["variants"] = {"guided": {"arm": "constrained", "generate": {"steps": 5}}}
    for seed in (0, 1):
        folder = runs / f"seed{seed}"
        (folder / "params.yaml").write_text(yaml.safe_dump({**values, "seed": seed}, sort_keys=False))
        names = [f"evaluate_images@{arm}" for arm in ARMS] + ["evaluate_images_variant@guided"]
        names += [f"evaluate_depth@{path.stem}" for path in (folder / "metrics/depth").glob("*.json")]
        for name in names:
            stage = name.partition("@")[0].removesuffix("_variant")
            write_json(folder / STAMPS / f"{name}.json", {"stage": stage, "seconds": 30.0, "device": "cpu"})
    write_json(runs / "shared" / STAMPS / "references.json", {"stage": "references", "seconds": 60.0, "device": "cpu"})
    return runs


@pytest.fixture
def runs(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs"))


def test_one_file_has_everything(finished: Path) -> None:
    summary = collect(finished, "name")
    arms = summary["images"]["arms"]
    assert list(arms) == [*ARMS, "guided", "renders", "reconstructions"]
    table = pd.read_csv(finished / "seed0/metrics/images/constrained.csv")
    assert arms["constrained"]["consistency_2"]["seeds"] == pytest.approx(
        [table["consistency_2"].mean(), table["consistency_2"].mean() + GAIN], abs=1e-5
    )
    assert {"guided - constrained", "guided - unconstrained", "guided - base"} <= set(summary["images"]["differences"])
    assert summary["images"]["differences"]["guided - constrained"]["consistency_2"]["mean"] == pytest.approx(
        -GAIN / 2, abs=1e-5
    )
    assert list(summary["depth"]["dpt"]["arms"]) == ["original", "kitti", *ARMS, "guided"]
    assert summary["seeds"] == [0, 1]
    assert summary["variants"]["guided"]["arm"] == "constrained"
    assert summary["minutes"]["by_stage"] == {"evaluate_images": 4.0, "evaluate_depth": 12.0, "references": 1.0}
    json.dumps(summary, allow_nan=False)


def test_unfinished_arms_are_left_out_and_named(runs: Path) -> None:
    (runs / "seed1" / STAMPS / "evaluate_images@unconstrained.json").unlink()
    results, facts = read_runs(runs)
    assert list(results.images) == ["base", "constrained", "guided"]
    assert facts["not_in_every_seed"] == ["unconstrained"]


def test_seeds_with_other_params_are_refused(runs: Path) -> None:
    values = yaml.safe_load((runs / "seed1/params.yaml").read_text())
    values["finetune"]["weight"] = 0.9
    (runs / "seed1/params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(DataError, match=r"seed 1 ran with other params \(finetune\)"):
        read_runs(runs)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no seed"):
        read_runs(tmp_path)


def test_command_writes_json_tables_and_figures(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, text, figures = tmp_path / "r.json", tmp_path / "r.md", tmp_path / "figures"
    main([str(finished), "--out", str(out), "--markdown", str(text), "--figures", str(figures), "--scenes", "2"])
    assert capsys.readouterr().out.strip() == str(out)
    assert "| constrained - unconstrained |" in text.read_text()
    assert {path.name for path in figures.iterdir()} == {"arms.png", "pictures.jpg", "vanishing_lines.jpg", "profiles.png"}
    picture = Image.open(figures / "pictures.jpg")
    assert picture.width == 7 * 256 + 6 * 6
    spread = [np.asarray(Image.open(path).convert("L")).std() for path in figures.iterdir()]
    assert min(spread) > 5


def test_command_says_which_arm_is_not_there(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    with pytest.raises(SystemExit, match="error: constraint: not an arm that every seed has"):
        main([str(finished), "--out", str(out), "--figures", str(tmp_path), "--arms", "constraint"])
