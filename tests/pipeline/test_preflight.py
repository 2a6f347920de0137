"""`alberti doctor`."""

from pathlib import Path

import pytest
import typer

from alberti.errors import ConfigError
from pipeline.preflight import Machine, doctor, lacking, look_at_profile
from pipeline.profiles import profiles

LAPTOP = Machine(cores=2, memory_gb=8, disk_gb=50, gpus=(), gpu_usable=False)
SERVER = Machine(cores=64, memory_gb=512, disk_gb=5000, gpus=(("H100", 80.0),), gpu_usable=True)


def test_smoke_runs_on_a_laptop(project: Path) -> None:
    assert lacking("smoke", project, LAPTOP) == []


def test_what_a_laptop_lacks_for_the_gpu_profile(project: Path) -> None:
    assert any("GPU: none found" in problem for problem in lacking("gpu", project, LAPTOP))
    assert not any("GPU" in problem for problem in lacking("gpu", project, SERVER))


def test_machine_limits_are_named(project: Path) -> None:
    poor = Machine(cores=1, memory_gb=2, disk_gb=0.1, gpus=(("K80", 11.0),), gpu_usable=True)
    problems = " ".join(lacking("gpu", project, poor))
    assert "memory: 2 GB" in problems
    assert "disk: 0.1 GB" in problems
    assert "GPU: 11 GB" in problems
    blind = Machine(cores=64, memory_gb=512, disk_gb=5000, gpus=(("H100", 80.0),), gpu_usable=False)
    assert any("cannot use it" in problem for problem in lacking("gpu", project, blind))


def test_paper_names_data_and_models_that_are_missing(project_copy: Path) -> None:
    problems = " ".join(lacking("paper", project_copy, SERVER))
    for text in ("datasets/holicity", "prepare.train.root", "datasets/vkitti2", "datasets/kitti", "pixelformer"):
        assert text in problems
    assert "eigen_test_files.txt" in problems
    assert "synthia_al expected at datasets/synthia_al; set prepare.condition.sources.1.root" in problems
    for name in ("holicity", "vkitti2", "synthia_al", "kitti"):
        (project_copy / "datasets" / name).mkdir(parents=True)
    (project_copy / "splits").mkdir()
    for split in ("train", "val", "test"):
        (project_copy / "splits" / f"eigen_{split}_files.txt").write_text("")
    assert "prepare." not in " ".join(lacking("paper", project_copy, SERVER))


def test_models_of_the_hub_are_fetched_and_lack_nothing(project_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    state = look_at_profile("paper", project_copy, SERVER)
    assert any(text.startswith("base: ") for text in state.fetches)
    assert not any("model hub" in text for text in state.lacks)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    state = look_at_profile("paper", project_copy, SERVER)
    assert state.fetches == ()
    assert any("HF_HUB_OFFLINE" in text for text in state.lacks)


def test_overrides_count_and_what_others_build_on_is_no_profile(
    project_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project_copy)
    assert profiles(project_copy) == ["default", "gpu", "paper", "photos", "smoke"]
    with pytest.raises(ConfigError, match="unknown"):
        doctor("shared")
    (project_copy / "pictures").mkdir()
    photos = ["prepare.train.source=folder", "prepare.train.root=pictures"]
    assert look_at_profile("smoke", project_copy, SERVER, photos).lacks == ()
    with pytest.raises(typer.Exit):
        doctor("smoke", [photos[0], "prepare.train.root=nowhere"])
    assert "set prepare.train.root" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ConfigError, match="expected an override"):
        doctor("smoke", ["prepare.train.root"])


def test_a_folder_that_is_no_git_clone_is_told_of(project_copy: Path) -> None:
    assert not any("Git" in text for text in lacking("default", project_copy, SERVER))
    (project_copy / ".git").rename(project_copy / "git")
    assert any("git clone" in text for text in lacking("default", project_copy, SERVER))


def test_broken_profile_is_a_finding(project_copy: Path) -> None:
    with open(project_copy / "conf/profile/smoke.yaml", "a") as file:
        file.write("\nfintune: {}\n")
    assert any("fintune" in problem for problem in lacking("smoke", project_copy, SERVER))


def test_command(project_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(project_copy)
    doctor()
    shown = capsys.readouterr().out
    for text in ("torch", "memory", "smoke", "paper", "datasets/holicity"):
        assert text in shown
    with pytest.raises(typer.Exit) as ended:
        doctor("paper")
    assert ended.value.exit_code == 1
    with pytest.raises(ConfigError, match="there are default"):
        doctor("papre")


def test_outside_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="not the project's folder"):
        doctor()


def test_photos_names_the_folder_and_the_depth_model_that_are_missing(project_copy: Path) -> None:
    (project_copy / "pictures").mkdir()
    roots = [f"prepare.{role}.root=pictures" for role in ("train", "condition")]
    assert "set prepare.condition.root" in " ".join(lacking("photos", project_copy, SERVER))
    assert lacking("photos", project_copy, SERVER, roots) == []
    model = "prepare.train.estimate_depth.model"
    assert any(model in text for text in lacking("photos", project_copy, SERVER, [*roots, f"{model}=models/none"]))
    state = look_at_profile("photos", project_copy, SERVER, [*roots, f"{model}=somebody/depth"])
    assert state.fetches == ("depth for train: somebody/depth from the model hub",)
