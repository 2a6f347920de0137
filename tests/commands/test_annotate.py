"""``alberti annotate`` as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_lines import rotation, street_picture

from alberti.geometry.camera import Camera
from alberti.images import write_image

Command = Callable[..., int]
CAMERA = Camera(300.0, 300.0, 159.5, 119.5, 320, 240)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_image(tmp_path / "photos" / "sub" / "1.png", street_picture(CAMERA, rotation(12, 3, 0)))
    return tmp_path / "photos"


def test_known_intrinsics_and_overlays(photos: Path, tmp_path: Path, alberti: Command) -> None:
    out, overlays = tmp_path / "rows.jsonl", tmp_path / "overlays"
    options = ("--focal", 300, "--principal-point", "159.5,119.5", "--overlays", overlays, "--workers", 1)
    assert alberti("annotate", photos, "--out", out, *options) == 0
    row = json.loads(out.read_text())
    assert row["image"] == "sub/1.png"
    assert row["focal"] == pytest.approx(300)
    assert len(row["vanishing_points"]) >= 2
    assert (overlays / "sub" / "1.png.png").is_file()


def test_a_bad_file_gives_exit_code_1_and_the_rest(
    photos: Path, tmp_path: Path, alberti: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "bad.jpg").write_text("no")
    out = tmp_path / "rows.jsonl"
    assert alberti("annotate", photos, "--out", out, "--workers", 1) == 1
    assert len(out.read_text().splitlines()) == 1
    output = capsys.readouterr()
    assert "bad.jpg" in output.err
    assert "1 could not be read" in output.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--principal-point", "12"), "--principal-point: expected CX,CY"),
        (("--focal", "0"), "focal: expected pixels above 0"),
        (("--focal", "300", "--principal-point", "999,9"), "outside the picture"),
    ],
)
def test_bad_options_end_in_a_paragraph(
    photos: Path, tmp_path: Path, alberti: Command, capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    assert alberti("annotate", photos, "--out", tmp_path / "rows.jsonl", "--workers", 1, *options) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_missing_folder_is_named(tmp_path: Path, alberti: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert alberti("annotate", tmp_path / "none", "--out", tmp_path / "rows.jsonl") == 1
    assert "no such folder" in capsys.readouterr().err
