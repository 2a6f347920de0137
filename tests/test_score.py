"""Scoring folders: numbers, tables, the page, and that crooked pictures do not win."""

import csv
import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from synthetic_lines import rotation, sharpened, street_picture, true_points, warped

from alberti.annotate import annotate_folder
from alberti.errors import ConfigError, DataError
from alberti.geometry.camera import Camera
from alberti.images import write_image
from alberti.score import score_folder, score_image

CAMERA = Camera(300.0, 300.0, 159.5, 119.5, 320, 240)
VIEWS = [rotation(12, 3, 0), rotation(-15, 5, 0)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for index, view in enumerate(VIEWS):
        picture = street_picture(CAMERA, view)
        write_image(root / "straight" / f"{index}.png", picture)
        write_image(root / "bent" / f"{index}.png", sharpened(warped(picture, 2.0)))
    write_image(root / "blank.png", np.full((240, 320, 3), 128, np.uint8))
    return root


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def test_summary_table_and_page(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "score.json"
    summary = score_folder(photos, out, workers=1)
    assert summary == json.loads(out.read_text())
    assert (summary["images"], summary["failed"], summary["without_lines"]) == (5, 0, 1)
    assert summary["vanishing_points"] == "estimated"
    figure = summary["consistency_2"]
    assert figure["n"] == 4
    assert 0 <= figure["low"] <= figure["mean"] <= figure["high"] <= 1
    rows = rows_of(out.with_suffix(".csv"))
    assert list(rows) == ["bent/0.png", "bent/1.png", "blank.png", "straight/0.png", "straight/1.png"]
    assert rows["blank.png"]["consistency_2"] == ""
    page = out.with_suffix(".html").read_text()
    assert page.count('<figure class="tile') == 4
    assert page.index("bent/0.png") < page.index("straight/0.png")
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


def test_sharp_but_crooked_pictures_score_below_straight_ones_with_given_and_estimated_points(
    photos: Path, tmp_path: Path
) -> None:
    rows = [{"image": f"{kind}/{index}.png", "vanishing_points": true_points(CAMERA, view).tolist()}
            for kind in ("bent", "straight") for index, view in enumerate(VIEWS)]  # fmt: skip
    rows.append({"image": "blank.png", "vanishing_points": []})
    (tmp_path / "points.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, given in (("given", tmp_path / "points.jsonl"), ("estimated", None)):
        score_folder(photos, tmp_path / f"{name}.json", vanishing_points=given, workers=1)
        table = rows_of(tmp_path / f"{name}.csv")
        for index in range(2):
            for column in ("consistency_2", "consistency_5"):
                assert float(table[f"bent/{index}.png"][column]) < float(table[f"straight/{index}.png"][column]) - 0.1


def test_lines_without_any_vanishing_point_score_zero_and_no_lines_score_nothing() -> None:
    generator = np.random.default_rng(0)
    leaves = np.full((240, 320, 3), 120, np.uint8)
    for _ in range(250):
        corners = generator.uniform([0, 0], [320, 240]) + generator.normal(0, 20, (3, 2))
        cv2.fillPoly(leaves, [corners.astype(np.int32)], generator.integers(0, 255, 3).tolist(), cv2.LINE_AA)
    row = score_image(leaves, None)
    assert row["points"] == 0
    assert row["consistency_2"] == row["consistency_5"] == 0
    assert row["line_length"] > 1000
    assert score_image(np.full((50, 50, 3), 9, np.uint8), None)["consistency_2"] is None


def test_annotations_of_the_same_folder_are_its_points(photos: Path, tmp_path: Path) -> None:
    annotate_folder(photos, tmp_path / "rows.jsonl", workers=1)
    summary = score_folder(photos, tmp_path / "score.json", vanishing_points=tmp_path / "rows.jsonl", workers=1)
    assert summary["vanishing_points"] == "given"
    assert summary["images"] == 5


def test_bad_files_and_missing_rows_are_counted(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "broken.png").write_text("no")
    points = true_points(CAMERA, VIEWS[0]).tolist()
    rows = [{"image": "straight/0.png", "vanishing_points": points},
            {"image": "straight/1.png", "vanishing_points": points, "width": 99, "height": 240},
            {"image": "broken.png", "vanishing_points": points}]  # fmt: skip
    (tmp_path / "points.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = score_folder(photos, tmp_path / "score.json", vanishing_points=tmp_path / "points.jsonl", workers=1)
    assert (summary["images"], summary["failed"]) == (1, 5)
    messages = capsys.readouterr().err
    assert "no row with image 'blank.png'" in messages
    assert "its row in" in messages
    assert "99 x 240" in messages


def test_what_cannot_be_scored_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        score_folder(tmp_path / "empty", tmp_path / "score.json")
    (tmp_path / "empty" / "a.png").write_text("no")
    with pytest.raises(DataError, match="not one picture"):
        score_folder(tmp_path / "empty", tmp_path / "score.json", workers=1)
    with pytest.raises(DataError, match="beside it"):
        score_folder(tmp_path / "empty", tmp_path / "score.html")
    with pytest.raises(DataError, match="no such file"):
        score_folder(tmp_path / "empty", tmp_path / "score.json", vanishing_points=tmp_path / "none.jsonl", workers=1)
    assert not list(tmp_path.glob("score*"))


def test_names_in_another_encoding_are_scored(photos: Path, tmp_path: Path) -> None:
    os.rename(os.fsencode(photos / "blank.png"), os.fsencode(photos) + b"/Stra\xdfe.png")
    out = tmp_path / "score.json"
    score_folder(photos, out, workers=1)
    assert "Stra\\udcdfe.png" in out.with_suffix(".csv").read_text(encoding="utf-8")


def test_results_replace_nothing_that_they_did_not_write(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    score_folder(photos, out, workers=1)
    score_folder(photos, out, workers=1)
    for suffix in (".csv", ".html"):
        out.with_suffix(suffix).write_text("mine\n")
        with pytest.raises(ConfigError, match=rf"results\{suffix} would be written as well"):
            score_folder(photos, out, workers=1)
        assert out.with_suffix(suffix).read_text() == "mine\n"
        out.with_suffix(suffix).unlink()
    with pytest.raises(ConfigError, match="names an input"):
        annotate_folder(photos, tmp_path / "points.json", workers=1)
        score_folder(photos, tmp_path / "points.json", vanishing_points=tmp_path / "points.json", workers=1)
    with pytest.raises(ConfigError, match="inside the input"):
        score_folder(photos, photos / "score.json", workers=1)


def test_given_points_in_utf_16_with_backslashes_and_rows_of_no_picture_are_counted(photos: Path, tmp_path: Path) -> None:
    names = [f"{kind}\\{index}.png" for kind in ("straight", "bent") for index in (0, 1)]
    rows = [{"image": name, "vanishing_points": [[1, 0, 0]]} for name in names]
    rows += [{"image": name, "vanishing_points": []} for name in ("blank.png", "gone.png")]
    (tmp_path / "points.jsonl").write_bytes("\r\n".join(map(json.dumps, rows)).encode("utf-16"))
    summary = score_folder(photos, tmp_path / "out.json", vanishing_points=tmp_path / "points.jsonl", workers=1)
    assert summary["failed"] == 0
    assert any("1 of the 6 rows" in note for note in summary["notes"])
