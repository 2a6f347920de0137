"""``alberti score`` as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_lines import rotation, street_picture, true_points

from alberti.geometry.camera import Camera
from alberti.images import write_image

Command = Callable[..., int]
CAMERA = Camera(300.0, 300.0, 159.5, 119.5, 320, 240)
WORLD = rotation(12, 3, 0)


def test_given_points(tmp_path: Path, alberti: Command, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "photos" / "1.png", street_picture(CAMERA, WORLD))
    row = {"image": "1.png", "vanishing_points": true_points(CAMERA, WORLD).tolist()}
    (tmp_path / "points.jsonl").write_text(json.dumps(row) + "\n")
    options = ("--vanishing-points", tmp_path / "points.jsonl", "--out", tmp_path / "score.json", "--workers", 1)
    assert alberti("score", tmp_path / "photos", *options) == 0
    assert json.loads((tmp_path / "score.json").read_text())["consistency_2"]["mean"] > 0.85
    assert "consistency_2" in capsys.readouterr().out
    (tmp_path / "photos" / "2.png").write_text("no")
    assert alberti("score", tmp_path / "photos", *options) == 1
    assert "1 could not be scored" in capsys.readouterr().out
