"""Annotating folders and data sets: rows, bad files, interruption, any number of processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_lines import rotation, street_picture, true_points

from alberti import annotate
from alberti.annotate import annotate_dataset, annotate_folder
from alberti.annotations import read_annotations
from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.errors import ConfigError, DataError
from alberti.geometry.camera import Camera
from alberti.geometry.vanishing_points import angles_between_points
from alberti.images import write_image
from alberti.partial_file import PartialFile

CAMERA = Camera(300.0, 300.0, 159.5, 119.5, 320, 240)
VIEWS = [rotation(yaw, pitch, 0) for yaw, pitch in ((12, 3), (-15, 5), (20, -4))]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures, two of one name in two folders."""
    root = tmp_path / "photos"
    for name, view in zip(("a/1.png", "b/1.png", "c.jpg"), VIEWS, strict=True):
        write_image(root / name, street_picture(CAMERA, view))
    return root


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_row_a_picture_in_order_with_all_that_was_promised(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "rows.jsonl"
    counts = annotate_folder(photos, out, focal=300.0, overlays=tmp_path / "overlays", workers=1)
    assert (counts.images, counts.failures, counts.without_points) == (3, 0, 0)
    rows = rows_of(out)
    assert [row["image"] for row in rows] == ["a/1.png", "b/1.png", "c.jpg"]
    for row, view in zip(rows, VIEWS, strict=True):
        points = np.array(row["vanishing_points"])
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)
        assert angles_between_points(true_points(CAMERA, view), points, CAMERA).min(axis=1).max() < 0.7
        assert row["focal"] == pytest.approx(300)
        a, b, _ = row["horizon"]
        assert np.hypot(a, b) == pytest.approx(1)
        for segment in row["line_segments"]:
            assert len(segment) == 5
            assert segment[4] in range(-1, len(points))
        assert all(0 <= value <= 1 for value in row["confidence"])
    assert {path.relative_to(tmp_path / "overlays").as_posix() for path in (tmp_path / "overlays").rglob("*.png")} == {
        "a/1.png.png", "b/1.png.png", "c.jpg.png",
    }  # fmt: skip
    assert not list(out.parent.glob("*.partial"))


def test_any_number_of_processes_writes_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        annotate_folder(photos, tmp_path / f"{workers}.jsonl", workers=workers)
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def bad_files(root: Path) -> dict[str, bool]:
    """Write every kind of troublesome picture; say which can be annotated."""
    root.mkdir(parents=True, exist_ok=True)
    street = Image.fromarray(street_picture(CAMERA, VIEWS[0]))
    gray = np.asarray(street.convert("L"))
    street.save(root / "whole.png")
    (root / "truncated.png").write_bytes((root / "whole.png").read_bytes()[:2000])
    (root / "text.jpg").write_text("not a picture")
    (root / "empty.png").touch()
    Image.new("RGB", (1, 1)).save(root / "one_pixel.png")
    Image.new("RGB", (1, 700), "white").save(root / "thin.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(root / "sixteen_bit.png")
    street.convert("P").save(root / "palette.png")
    street.convert("CMYK").save(root / "cmyk.jpg")
    street.convert("RGBA").save(root / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    street.save(root / "turned.jpg", exif=exif)
    (root / "notes.txt").write_text("left alone")
    (root / "folder.png").mkdir()
    good = (
        "whole.png",
        "one_pixel.png",
        "thin.png",
        "sixteen_bit.png",
        "palette.png",
        "cmyk.jpg",
        "alpha.png",
        "turned.jpg",
    )
    return {**dict.fromkeys(good, True), **dict.fromkeys(("truncated.png", "text.jpg", "empty.png"), False)}


def test_one_bad_file_does_not_stop_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = bad_files(tmp_path / "photos")
    counts = annotate_folder(tmp_path / "photos", tmp_path / "rows.jsonl", workers=1)
    rows = {row["image"]: row for row in rows_of(tmp_path / "rows.jsonl")}
    assert set(rows) == {name for name, good in expected.items() if good}
    assert counts.failures == 3
    messages = capsys.readouterr().err
    for name, good in expected.items():
        assert (f"{name}:" in messages) == (not good)
    assert rows["one_pixel.png"]["vanishing_points"] == rows["thin.png"]["vanishing_points"] == []
    assert (rows["turned.jpg"]["width"], rows["turned.jpg"]["height"]) == (240, 320)
    for name in ("sixteen_bit.png", "palette.png", "cmyk.jpg", "alpha.png"):
        angles = angles_between_points(true_points(CAMERA, VIEWS[0]), np.array(rows[name]["vanishing_points"]), CAMERA)
        assert angles.min(axis=1).min() < 2, name


def test_a_large_picture_is_annotated_in_its_own_pixels(tmp_path: Path) -> None:
    camera = CAMERA.resize(3200, 2400)
    write_image(tmp_path / "photos" / "large.jpg", street_picture(camera, VIEWS[0]))
    annotate_folder(tmp_path / "photos", tmp_path / "rows.jsonl", focal=camera.fx, workers=1)
    points = np.array(rows_of(tmp_path / "rows.jsonl")[0]["vanishing_points"])
    assert angles_between_points(true_points(camera, VIEWS[0]), points, camera).min(axis=1).max() < 0.5


def test_nothing_readable_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        annotate_folder(tmp_path / "photos", tmp_path / "rows.jsonl", workers=1)
    (tmp_path / "photos" / "a.png").write_text("no")
    with pytest.raises(DataError, match=r"not one picture.*a\.png"):
        annotate_folder(tmp_path / "photos", tmp_path / "rows.jsonl", workers=1)
    assert not list(tmp_path.glob("rows*"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"focal": -3.0}, ConfigError, "focal"),
        ({"focal": float("nan")}, ConfigError, "focal"),
        ({"focal": 28.0}, DataError, "angle of view of 160 degrees .* millimetres"),
        ({"focal": 300.0, "principal_point": (5000.0, 10.0)}, DataError, r"principal point \(5000, 10\): outside"),
        ({"principal_point": (float("inf"), 10.0)}, ConfigError, "principal point"),
        ({"workers": 0}, ConfigError, "workers"),
    ],
)
def test_bad_options_are_named(photos: Path, tmp_path: Path, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        annotate_folder(photos, tmp_path / "rows.jsonl", **{"workers": 1, **options})
    assert not (tmp_path / "rows.jsonl").exists()


def test_an_interrupted_run_goes_on_where_it_stopped(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "b" / "0.png").write_text("bad")
    whole, out = tmp_path / "whole.jsonl", tmp_path / "rows.jsonl"
    annotate_folder(photos, whole, workers=1)
    seen: list[str] = []
    run = annotate.run_job

    def interrupted(job: annotate.AnnotationJob) -> dict:
        if job.name == "c.jpg":
            raise KeyboardInterrupt
        return run(job)

    monkeypatch.setattr(annotate, "run_job", interrupted)
    with pytest.raises(KeyboardInterrupt):
        annotate_folder(photos, out, workers=1)
    partial = tmp_path / "rows.jsonl.partial"
    assert not out.exists()
    with open(partial, "a") as file:
        file.write('{"image": "c.jpg", "vanish')  # what a killed process may leave
    monkeypatch.setattr(annotate, "run_job", lambda job: seen.append(job.name) or run(job))
    counts = annotate_folder(photos, out, workers=1)
    assert seen == ["c.jpg"]
    assert (counts.images, counts.resumed, counts.failures) == (3, 2, 1)
    assert out.read_bytes() == whole.read_bytes()
    assert not partial.exists()


def test_a_partial_file_of_other_options_or_older_than_its_pictures_is_not_continued(photos: Path, tmp_path: Path) -> None:
    out, partial = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.partial"
    annotate_folder(photos, out, focal=300.0, workers=1)
    expected = out.read_text()
    rows = expected.splitlines(keepends=True)
    partial.write_text(json.dumps({"run": "another"}) + "\n" + rows[0].replace("300", "999"))
    assert annotate_folder(photos, out, focal=300.0, workers=1).resumed == 0
    assert out.read_text() == expected

    jobs = iter([annotate.AnnotationJob("a/1.png", photos / "a/1.png"), annotate.AnnotationJob("c.jpg", photos / "c.jpg")])
    partial.write_text(json.dumps({"run": "this"}) + "\n" + rows[0] + rows[2])
    os.utime(photos / "c.jpg", (time.time() + 100, time.time() + 100))
    kept: list[dict] = []
    rest = PartialFile(out, "this").resume(jobs, kept.append)
    assert [row["image"] for row in kept] == ["a/1.png"]
    assert [job.name for job in rest] == ["c.jpg"]
    assert partial.read_text().endswith(rows[0])


def test_a_killed_process_loses_no_finished_row(tmp_path: Path) -> None:
    picture = street_picture(CAMERA, VIEWS[0])
    for index in range(40):
        write_image(tmp_path / "photos" / f"{index:03d}.png", picture)
    command = [sys.executable, "-m", "alberti.cli", "annotate", str(tmp_path / "photos"), "--workers", "1"]
    out, partial = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.partial"
    process = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while (not partial.exists() or partial.read_bytes().count(b"\n") < 4) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    counts = annotate_folder(tmp_path / "photos", out, workers=1)
    assert counts.images == 40
    assert counts.resumed >= 3
    assert len({json.dumps(row["vanishing_points"]) for row in rows_of(out)}) == 1


def make_dataset(folder: Path, *, with_points: bool = True) -> Dataset:
    samples = []
    for index, view in enumerate(VIEWS):
        write_image(folder / "images" / f"{index}.png", street_picture(CAMERA, view))
        points = [tuple(point) for point in true_points(CAMERA, view).tolist()]
        samples.append(
            Sample(
                id=f"s{index}",
                image=f"images/{index}.png",
                width=320,
                height=240,
                intrinsics=CAMERA.intrinsics,
                vanishing_points=points if with_points else None,
                vanishing_points_source="true" if with_points else None,
            )
        )
    return write_dataset(folder, samples, name="streets", role="train")


def test_a_data_set_with_true_points_is_annotated_and_judged(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data")
    summary = annotate_dataset(dataset, tmp_path / "annotations", workers=1)
    rows = list(read_annotations(tmp_path / "annotations" / "annotations.jsonl"))
    assert [row["id"] for row in rows] == ["s0", "s1", "s2"]
    assert (summary["images"], summary["failed"], summary["without_points"]) == (3, 0, 0)
    assert summary["true_points"] == 9
    assert summary["error_median"] < 0.3
    assert summary["auc_3"] <= summary["auc_5"] <= summary["auc_10"] <= 1
    assert summary["auc_10"] > 0.95
    blind = annotate_dataset(dataset, tmp_path / "blind.jsonl", use_intrinsics=False, workers=1)
    assert blind["images"] == 3
    assert (tmp_path / "blind.jsonl").is_file()


def test_a_data_set_without_true_points_has_no_errors(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", with_points=False)
    (tmp_path / "data" / "images" / "1.png").write_text("broken")
    summary = annotate_dataset(dataset, tmp_path / "annotations", workers=1)
    assert "error_median" not in summary
    assert (summary["images"], summary["failed"]) == (2, 1)
    assert "1.png" in summary["failures"][0]


@pytest.mark.parametrize(
    "line", ["{", '{"image": "a"}', '{"image": 3, "vanishing_points": []}', '{"image": "a", "vanishing_points": [[1]]}']
)
def test_rows_that_are_none_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"rows\.jsonl: expected rows"):
        list(read_annotations(tmp_path / "rows.jsonl"))
    with pytest.raises(DataError, match="no such file"):
        list(read_annotations(tmp_path / "none.jsonl"))


def test_places_among_the_pictures_are_refused_before_the_first(photos: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    rows = tmp_path / "rows.jsonl"
    for options in (
        {"out": photos / "c.jpg"},
        {"out": photos},
        {"out": photos / "rows.jsonl"},
        {"out": rows, "overlays": photos},
        {"out": rows, "overlays": photos / "overlays"},
        {"out": rows, "overlays": tmp_path},
        {"out": rows, "overlays": photos / "c.jpg"},
        {"out": tmp_path / "new", "overlays": tmp_path / "new"},
        {"out": tmp_path / "new", "overlays": tmp_path / "new/deep"},
    ):
        with pytest.raises(ConfigError, match=r"--(out|overlays)"):
            annotate_folder(photos, workers=1, **options)
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before
    assert not rows.exists()


def test_a_second_run_is_refused_while_one_works(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    with PartialFile(out, "another"), pytest.raises(DataError, match=r"rows\.jsonl: another run is writing it"):
        annotate_folder(photos, out, workers=1)
    annotate_folder(photos, out, workers=1)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["rows.jsonl"]


def test_a_picture_put_in_another_s_place_is_annotated_again_whatever_its_times(photos: Path, tmp_path: Path) -> None:
    out, partial = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.partial"
    annotate_folder(photos, out, workers=1)
    partial.write_text(json.dumps({"run": "this"}) + "\n" + out.read_text().splitlines(keepends=True)[0])
    time.sleep(0.02)
    old = photos / "old.png"
    old.write_bytes((photos / "a/1.png").read_bytes())
    os.utime(old, (1_000_000_000, 1_000_000_000))
    old.rename(photos / "a/1.png")
    job = annotate.AnnotationJob("a/1.png", photos / "a/1.png")
    assert list(PartialFile(out, "this").resume(iter([job]), lambda row: None)) == [job]


def test_pictures_of_other_formats_are_read_or_counted(photos: Path, tmp_path: Path) -> None:
    Image.open(photos / "c.jpg").save(photos / "d.jfif", "JPEG")
    Image.open(photos / "c.jpg").save(photos / "e.gif")
    (photos / "f.CR2").write_bytes(b"raw")
    (photos / "g.dng").write_bytes(b"raw")
    counts = annotate_folder(photos, tmp_path / "rows.jsonl", workers=1)
    assert {"d.jfif", "e.gif"} <= {row["image"] for row in rows_of(tmp_path / "rows.jsonl")}
    assert counts.left_out is not None
    assert "1 .cr2, 1 .dng" in counts.left_out


def test_an_odd_picture_costs_its_row_alone(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(image: np.ndarray, **_: object) -> dict:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(annotate, "annotate_image", odd)
    with pytest.raises(DataError, match=r"not one picture could be read.*odd"):
        annotate_folder(photos, tmp_path / "rows.jsonl", workers=1)


def test_annotations_with_a_mark_and_other_line_ends(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    annotate_folder(photos, out, workers=1)
    rows = rows_of(out)
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "other.jsonl").write_bytes(out.read_text().replace("\n", "\r\n").encode(encoding))
        assert list(read_annotations(tmp_path / "other.jsonl")) == rows
