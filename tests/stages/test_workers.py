"""Several processes that share an experiment: every unit is done once, as one process does it; a failure stops all."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from alberti.errors import ConfigError
from stages.experiment import Experiment, Options, run_experiment, say
from stages.workers import WorkerError, _claim, run_workers, share_of_cores


@pytest.fixture
def values(prepared: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((prepared / "params.yaml").read_text()))


def command(values: dict, folder: Path, options: Options) -> list[str]:
    """What starts the program with these options."""
    params = folder / "values.yaml"
    params.write_text(yaml.safe_dump(values))
    seeds = [str(seed) for seed in options.seeds]
    arms = ["--arms", *options.arms] if options.arms else []
    program = [sys.executable, "-m", "stages.run", "--params", str(params), "--out", str(options.out)]
    return [*program, "--seeds", *seeds, "--only", *options.only, *arms]


def pictures(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("seed*/data/generated/*/images/*.png"))}


def test_two_workers_do_every_unit_once_and_as_one_does(
    values: dict, tmp_path: Path, project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(project)
    shared, alone = (Options(tmp_path / name, (0, 1), ("generate",), ("base",)) for name in ("shared", "alone"))
    assert run_workers(values, shared, command(values, tmp_path, shared), 2)
    done = re.findall(r"^\[\d+/\d+\] (\S+ \S+) [\d.]+ s$", capfd.readouterr().out, re.MULTILINE)
    seeded = [f"seed{seed} generate@base" for seed in (0, 1)]
    assert sorted(done) == sorted(
        ["shared prepare@condition", "shared base", "shared finetune@base", *seeded, *_needed(values)]
    )
    assert run_experiment(values, alone)
    assert pictures(alone.out) == pictures(shared.out) != {}
    assert (shared.out / "logs/worker1.log").is_file()


def _needed(values: dict) -> list[str]:
    """The base is trained on the training pictures unless it is said otherwise."""
    return ["shared prepare@train"] if values["base"]["source"] == "train" else []


def test_what_seeds_share_is_linked_though_no_worker_came_to_it(
    values: dict, tmp_path: Path, project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    options, idle = Options(tmp_path / "runs", (0,), ("prepare",)), [sys.executable, "-c", ""]
    assert not run_workers(values, options, idle, 1)
    assert run_experiment(values, options)
    link = options.out / "seed0/data/condition"
    target = link.readlink()
    link.unlink()
    capfd.readouterr()
    assert run_workers(values, options, idle, 1)
    assert link.readlink() == target
    assert re.fullmatch(r"4 units are done in \S+/runs, [\d.]+ s\n", capfd.readouterr().out)


def test_a_worker_that_fails_stops_all(values: dict, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    values["base"] = {"source": "path", "path": str(tmp_path / "nowhere")}
    options = Options(tmp_path / "runs", (0,), ("base",))
    with pytest.raises(WorkerError, match=r"worker \d stopped \(error: .*nowhere: expected a diffusers model folder.*\.log"):
        run_workers(values, options, command(values, tmp_path, options), 2)
    assert Experiment(values, options).left() == 1


def test_a_line_is_written_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is printed in two parts, the text and the end of the line, runs into what another worker prints meanwhile."""
    with (tmp_path / "printed").open("w") as stream:
        written: list[str] = []
        monkeypatch.setattr(stream, "write", written.append)
        monkeypatch.setattr(sys, "stdout", stream)
        say("one line")
    assert written == ["one line\n"]


def test_a_unit_has_one_worker_until_that_ends(values: dict, tmp_path: Path) -> None:
    experiment = Experiment(values, Options(tmp_path, (0,), ("prepare",)))
    (tmp_path / "claims").mkdir()
    job = next(experiment.plans[0].jobs(experiment.targets[0]))
    lock = _claim(tmp_path, job)
    assert lock is not None
    assert _claim(tmp_path, job) is None
    os.close(lock)
    again = _claim(tmp_path, job)
    assert again is not None
    os.close(again)


@pytest.mark.parametrize(("cores", "count"), [(1, 3), (2, 2), (32, 5)])
def test_every_core_is_somebody_s(cores: int, count: int) -> None:
    shares = [share_of_cores(range(cores), index, count) for index in range(count)]
    assert all(shares)
    assert {core for share in shares for core in share} == set(range(cores))
    if cores >= count:
        assert sum(map(len, shares)) == cores


def test_what_workers_cannot_do_is_refused(values: dict, tmp_path: Path) -> None:
    options = Options(tmp_path / "runs", (0,), ("prepare",))
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        run_workers(values, options, [], 0)
    values["watch"] = ["train"]
    values["prepare"]["train"] = {"source": "folder", "root": str(tmp_path), "scenes": None}
    with pytest.raises(ConfigError, match="watch@train runs every time"):
        run_workers(values, options, [], 2)
