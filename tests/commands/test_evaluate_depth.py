"""``alberti evaluate-depth`` on a small data set in KITTI's layout, from the files to the printed table."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from native_layouts import kitti_noise
from PIL import Image

from alberti.commands.evaluate_depth import evaluate_depth
from alberti.data.kitti import KittiReader
from alberti.errors import ConfigError, DataError
from alberti.metrics import METRICS, PROTOCOLS, depth_metrics


@pytest.fixture(scope="module")
def kitti(tmp_path_factory):
    """Six frames of 64 x 40: KITTI's root, split list, predictions with 10 to 20 % of noise."""
    folder = tmp_path_factory.mktemp("kitti")
    random = np.random.default_rng(0)
    frames = kitti_noise(folder, 6, random)
    reader = KittiReader(folder)
    predictions = folder / "predictions"
    predictions.mkdir()
    for k, frame in enumerate(frames):
        depth = reader.depth(frame, "annotated") * np.exp(random.normal(0, 0.1 + 0.02 * k, (40, 64)))
        np.save(predictions / f"{frame.id}.npy", depth.astype(np.float32))
    return folder, frames, reader


@pytest.fixture
def run(kitti, tmp_path):
    """Run the command with defaults that the keywords override; returns the summary and the rows."""
    folder, _, _ = kitti

    def call(**changes):
        options = {
            "predictions": folder / "predictions",
            "kitti": folder,
            "split": folder / "splits" / "test.txt",
            "protocol": "eigen_benchmark",
            "out": tmp_path / "out" / "depth.json",
        }
        options |= changes
        evaluate_depth(**options)
        return json.loads(options["out"].read_text()), pd.read_csv(options["out"].with_suffix(".csv"))

    return call


def changed(kitti, tmp_path, change, save=np.save, suffix=".npy"):
    """A folder of predictions that ``change`` made of the good ones."""
    folder, frames, _ = kitti
    target = tmp_path / "changed"
    target.mkdir()
    for frame in frames:
        prediction = np.load(folder / "predictions" / f"{frame.id}.npy")
        save(target / f"{frame.id}{suffix}", change(prediction))
    return target


@pytest.mark.parametrize("protocol", ["eigen_garg", "eigen_benchmark", "eigen_benchmark_monodepth2"])
def test_summary_and_rows_are_those_of_the_definitions(kitti, run, protocol, capsys):
    folder, frames, reader = kitti
    summary, rows = run(protocol=protocol)
    assert rows["id"].tolist() == [frame.id for frame in frames]
    for frame, (_, row) in zip(frames, rows.iterrows(), strict=True):
        target = reader.depth(frame, PROTOCOLS[protocol].ground_truth)
        pred = np.clip(np.load(folder / "predictions" / f"{frame.id}.npy"), 1e-3, 80)
        expected = depth_metrics(pred, target, PROTOCOLS[protocol].valid(target))
        assert {name: row[name] for name in METRICS} == pytest.approx(expected, rel=1e-9)
    for name in METRICS:
        assert summary[name] == pytest.approx(rows[name].mean())
    assert (summary["n"], summary["protocol"], summary["alignment"]) == (6, protocol, "none")
    assert len(summary["split_hash"]) == 64
    printed = capsys.readouterr().out
    assert f"{protocol}, alignment none, n = 6" in printed
    assert f"{summary['abs_rel']:.4f}" in printed
    assert summary["split_hash"][:12] in printed


def test_the_installed_command_does_the_same(kitti, run, tmp_path):
    folder, _, _ = kitti
    expected, _ = run()
    out = tmp_path / "cli.json"
    options = f"--predictions {folder}/predictions --kitti {folder}/raw --split {folder}/splits/test.txt --workers 2"
    command = [sys.executable, "-m", "alberti.cli", "evaluate-depth", *options.split(), "--out", str(out)]
    done = subprocess.run([*command, "--protocol", "eigen_benchmark"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text()) == expected
    failed = subprocess.run([*command, "--protocol", "eigen"], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "unknown 'eigen'" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_sixteen_bit_png_predictions(kitti, run, tmp_path):
    def save(path, values):
        Image.fromarray(np.rint(values * 256).clip(0, 65535).astype(np.uint16)).save(path)

    from_npy, _ = run()
    from_png, _ = run(predictions=changed(kitti, tmp_path, lambda p: p, save, ".png"))
    assert [from_png[name] for name in METRICS] == pytest.approx([from_npy[name] for name in METRICS], rel=1e-2)
    assert from_png["abs_rel"] != from_npy["abs_rel"]


def test_predictions_may_lie_as_the_images_of_kitti_do(kitti, run, tmp_path):
    folder, frames, _ = kitti
    for frame in frames:
        target = tmp_path / "tree" / frame.date / frame.drive / "image_02" / "data"
        target.mkdir(parents=True, exist_ok=True)
        array = np.load(folder / "predictions" / f"{frame.id}.npy")
        np.save(target / f"{frame.index:010d}.npy", array[None])
    assert run(predictions=tmp_path / "tree")[0] == run()[0]


def test_inverse_relative_predictions(kitti, run, tmp_path):
    predictions = changed(kitti, tmp_path, lambda p: 7 / p - 0.02)
    aligned, rows = run(predictions=predictions, align="affine_disparity")
    assert aligned["alignment"] == "affine_disparity"
    assert aligned["d1"] > 0.8
    assert (rows["scale"] > 0).all()


def test_bts_list_leaves_out_what_has_no_annotated_depth(kitti, run, tmp_path):
    _, frames, _ = kitti
    lines = [f"{f.date}/{f.drive}/image_02/data/{f.index:010d}.png {{}} 40.0" for f in frames]
    paths = [f"{f.drive}/proj_depth/groundtruth/image_02/{f.index:010d}.png" for f in frames]
    paths[1] = "None"
    split = tmp_path / "bts.txt"
    split.write_text("\n".join(line.format(path) for line, path in zip(lines, paths, strict=True)))
    assert run(split=split)[0]["n"] == 5
    assert run(split=split, protocol="eigen_garg")[0]["n"] == 6


def test_frames_without_annotated_depth_are_left_out_when_asked(kitti, run, tmp_path, capsys):
    """As Eigen's list of 697: a plain list does not say which frames have no annotated depth."""
    folder, frames, _ = kitti
    shutil.copytree(folder, tmp_path / "kitti")
    root = tmp_path / "kitti"
    KittiReader(root).annotated_path(frames[2]).unlink()
    with pytest.raises(DataError, match=r"1 of the frames have no annotated depth.*652.*--annotated-only"):
        run(kitti=root)
    summary, rows = run(kitti=root, annotated_only=True)
    assert summary["n"] == len(rows) == 5
    assert frames[2].id not in set(rows["id"])
    assert "1 of 6 listed frames have no annotated depth: left out" in summary["notes"]
    assert "left out" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--annotated-only: protocol eigen_garg scores lidar_forward"):
        run(kitti=root, annotated_only=True, protocol="eigen_garg")
    shutil.rmtree(root / "depth")
    with pytest.raises(DataError, match="none of the 6 listed frames has annotated depth"):
        run(kitti=root, annotated_only=True)


def test_resizing_is_asked_for(kitti, run, tmp_path):
    predictions = changed(kitti, tmp_path, lambda p: p[::2, ::2])
    with pytest.raises(DataError, match=r"\.npy: the prediction is 32 x 20 pixels, the ground truth 64 x 40.*bilinear"):
        run(predictions=predictions)
    nearest, _ = run(predictions=predictions, resize_predictions="nearest")
    bilinear, _ = run(predictions=predictions, resize_predictions="bilinear")
    assert nearest["abs_rel"] != bilinear["abs_rel"]
    with pytest.raises(ConfigError, match="expected one of bilinear, nearest, got 'area'"):
        run(predictions=predictions, resize_predictions="area")


def test_paired_comparison(kitti, run, tmp_path, capsys):
    run(out=tmp_path / "good.json")
    worse = changed(kitti, tmp_path, lambda p: p * 1.5)
    summary, _ = run(predictions=worse, compare=tmp_path / "good.csv")
    change = summary["comparison"]["difference"]["abs_rel"]
    assert 0 < change["low"] <= change["mean"] <= change["high"]
    assert "difference" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"good.csv: cannot compare: protocol"):
        run(protocol="eigen_garg", compare=tmp_path / "good.csv")
    with pytest.raises(DataError, match="no such file"):
        run(compare=tmp_path / "nowhere.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column"):
        run(compare=tmp_path / "other.csv")


def test_pictures(kitti, run, tmp_path):
    _, frames, _ = kitti
    run(pictures=tmp_path / "pictures", workers=1)
    found = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert found == sorted(f"{frame.id}.png" for frame in frames)
    with Image.open(tmp_path / "pictures" / found[0]) as picture:
        assert picture.width > 800


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p - 30, "predicted depths are negative"),
        (lambda p: np.where(p > 60, np.inf, p).astype(np.float32), "NaN or infinite"),
        (lambda p: np.where(p > 60, np.nan, p).astype(np.float32), "NaN or infinite"),
        (lambda p: p * 1000, "look like millimetres"),
        (lambda p: p * 100, "look like centimetres"),
        (lambda p: (p * 256).astype(np.uint16), "expected floats"),
        (lambda p: np.stack([p, p]), r"one \(H, W\) map"),
    ],
)
def test_bad_predictions_are_named(kitti, run, tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        run(predictions=changed(kitti, tmp_path, change))
    assert not (tmp_path / "out").exists()


def test_missing_and_damaged_predictions(kitti, run, tmp_path):
    _, frames, _ = kitti
    predictions = changed(kitti, tmp_path, lambda p: p)
    victim = predictions / f"{frames[3].id}.npy"
    victim.write_bytes(victim.read_bytes()[:500])
    with pytest.raises(DataError, match=f"{frames[3].id}.npy: cannot read"):
        run(predictions=predictions)
    np.save(victim, np.array({"a": 1}), allow_pickle=True)
    with pytest.raises(DataError, match=f"{frames[3].id}.npy: cannot read"):
        run(predictions=predictions)
    victim.unlink()
    with pytest.raises(DataError, match=f"1 of 6 predictions are missing.*{frames[3].id}"):
        run(predictions=predictions)
    with pytest.raises(DataError, match="no such folder of predictions"):
        run(predictions=tmp_path / "nowhere")
    Image.new("L", (64, 40)).save(victim.with_suffix(".png"))
    with pytest.raises(DataError, match="16-bit gray PNG"):
        run(predictions=predictions)


def test_frames_that_are_not_there_are_named(kitti, run, tmp_path):
    folder, frames, _ = kitti
    split = tmp_path / "list.txt"
    split.write_text(f"{frames[0].line()}\n{frames[0].date}/{frames[0].drive} 777 l\n")
    predictions = changed(kitti, tmp_path, lambda p: p)
    np.save(predictions / f"{frames[0].drive}_0000000777.npy", np.ones((40, 64), dtype=np.float32))
    with pytest.raises(DataError, match=r"0000000777\.bin"):
        run(split=split, predictions=predictions, protocol="eigen_garg")
    with pytest.raises(DataError, match=r"groundtruth/image_02/0000000777\.png"):
        run(split=split, predictions=predictions)
    with pytest.raises(DataError, match="not KITTI raw"):
        run(kitti=folder / "predictions")


def test_contradictions_are_refused(kitti, run, tmp_path):
    for changes, message in [
        ({"kitti": None}, "name one data set"),
        ({"diode": tmp_path}, "name one data set"),
        ({"split": None}, "--split"),
        ({"protocol": "diode_outdoor"}, "goes with --diode"),
        ({"kitti": None, "diode": tmp_path, "protocol": "eigen_garg"}, "goes with --kitti"),
        ({"align": "scale"}, "none, median, affine_disparity"),
        ({"out": tmp_path / "table.csv"}, "ends in .json"),
    ]:
        with pytest.raises(ConfigError, match=message):
            run(**changes)


def test_diode(tmp_path):
    folder = tmp_path / "val" / "outdoor" / "scene_00022" / "scan_00193"
    folder.mkdir(parents=True)
    depth = np.random.default_rng(0).uniform(1, 70, (24, 32)).astype(np.float32)
    name = "00022_00193_outdoor_010_000"
    np.save(folder / f"{name}_depth.npy", depth[..., None])
    np.save(folder / f"{name}_depth_mask.npy", np.ones((24, 32)))
    (tmp_path / "made").mkdir()
    np.save(tmp_path / "made" / f"{name}.npy", depth * 1.2)
    evaluate_depth(predictions=tmp_path / "made", diode=tmp_path / "val", out=tmp_path / "out.json")
    summary = json.loads((tmp_path / "out.json").read_text())
    assert (summary["protocol"], summary["ground_truth"], summary["n"]) == ("diode_outdoor", "diode", 1)
    assert summary["abs_rel"] == pytest.approx(0.2, abs=0.02)


def test_what_lies_there_is_said_where_predictions_are_missing(kitti, run, tmp_path):
    _, frames, _ = kitti
    wrong = tmp_path / "wrong"
    (wrong / "deep").mkdir(parents=True)
    np.save(wrong / "deep" / f"{frames[0].index:010d}_pred.npy", np.ones((40, 64)))
    with pytest.raises(DataError, match=r"6 of 6 predictions are missing.*found deep/0000000000_pred\.npy; one file for all"):
        run(predictions=wrong)
    with pytest.raises(DataError, match="a file; --predictions is the folder"):
        run(predictions=wrong / "deep" / f"{frames[0].index:010d}_pred.npy")


@pytest.mark.parametrize("below", [".", "DATE", "DATE/DRIVE", "DATE/DRIVE/image_02", "DATE/DRIVE/image_02/data"])
def test_predictions_in_kitti_s_tree_are_found_from_any_folder_of_it(kitti, run, tmp_path, below):
    folder, frames, _ = kitti
    assert len({frame.drive for frame in frames}) == 1
    for frame in frames:
        place = tmp_path / "tree" / frame.date / frame.drive / "image_02" / "data"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "predictions" / f"{frame.id}.npy", place / f"{frame.index:010d}.npy")
    named = below.replace("DATE", frames[0].date).replace("DRIVE", frames[0].drive)
    assert run(predictions=tmp_path / "tree" / named)[0]["n"] == 6


def test_results_do_not_go_among_the_inputs(kitti, run, tmp_path):
    folder, _, _ = kitti
    inside = folder / "predictions" / "result.json"
    for changes, message in [
        ({"out": inside}, "inside the input"),
        ({"pictures": folder / "predictions" / "drawn"}, "--pictures.*inside the input"),
        ({"pictures": folder}, "--pictures.*"),
    ]:
        with pytest.raises(ConfigError, match=message):
            run(**changes)
    run(out=tmp_path / "a" / "one.json")
    with pytest.raises(ConfigError, match="names an input"):
        run(out=tmp_path / "a" / "one.json", compare=tmp_path / "a" / "one.csv")
    (tmp_path / "two.csv").write_text("mine\n")
    with pytest.raises(ConfigError, match=r"two\.csv would be written as well"):
        run(out=tmp_path / "two.json")
    assert (tmp_path / "two.csv").read_text() == "mine\n"


def test_diode_indoors_and_outdoors(tmp_path):
    random = np.random.default_rng(0)
    names = {"outdoor": "00022_00193_outdoor_010_000", "indoors": "00019_00183_indoors_000_010"}
    (tmp_path / "made").mkdir()
    for scenes, name in names.items():
        folder = tmp_path / "val" / scenes
        folder.mkdir(parents=True)
        depth = random.uniform(1, 9, (24, 32)).astype(np.float32)
        np.save(folder / f"{name}_depth.npy", depth[..., None])
        np.save(folder / f"{name}_depth_mask.npy", np.ones((24, 32)))
        Image.new("RGB", (32, 24)).save(folder / f"{name}.JPG")
        np.save(tmp_path / "made" / f"{name}.npy", depth * 1.2)
    listed = tmp_path / "list.csv"
    lines = "".join(f"/data/my diode/{scenes}/{name}.png,x_depth.npy,m\r\n" for scenes, name in names.items())
    listed.write_text(lines, encoding="utf-8-sig")

    def run(**options):
        evaluate_depth(predictions=tmp_path / "made", out=tmp_path / "o.json", **options)
        return json.loads((tmp_path / "o.json").read_text())

    assert run(diode=tmp_path / "val")["protocol"] == "diode_outdoor"
    found = run(diode=tmp_path / "val", split=listed, protocol="diode_indoor", pictures=tmp_path / "drawn")
    assert (found["protocol"], found["n"]) == ("diode_indoor", 1)
    assert any("1 of 2 listed frames are of scenes that the protocol does not score" in note for note in found["notes"])
    assert run(diode=tmp_path / "val/indoors")["protocol"] == "diode_indoor"
    assert run(diode=tmp_path / "val", protocol="diode_all")["n"] == 2
    with pytest.raises(DataError, match="--protocol diode_indoor scores the others"):
        run(diode=tmp_path / "val/indoors", protocol="diode_outdoor")
