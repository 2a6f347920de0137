"""Outputs against inputs, by whatever name, and that nothing is left behind by looking."""

import os
from pathlib import Path

import pytest

from alberti.errors import ConfigError
from alberti.outputs import check_beside, check_output_file, check_output_folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "photos/deep").mkdir(parents=True)
    (tmp_path / "photos/a.png").write_bytes(b"picture")
    (tmp_path / "points.jsonl").write_text("{}\n")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    os.link(tmp_path / "points.jsonl", tmp_path / "hard.jsonl")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("photos", "a folder"),
        ("photos/a.png", "named like a picture"),
        ("photos/x.HEIC", "named like a picture"),
        ("photos/a.jsonl", "inside the input"),
        ("photos/new/a.jsonl", "inside the input"),
        ("photos/deep/../a.jsonl", "inside the input"),
        ("link/a.jsonl", "inside the input"),
        ("points.jsonl", "names an input"),
        ("hard.jsonl", "names an input"),
        ("points.jsonl/a.jsonl", "cannot be written"),
    ],
)
def test_files_that_are_no_place_for_a_result(pictures: Path, out: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"--out .*{message}"):
        check_output_file(pictures.parent / out, [pictures, pictures.parent / "points.jsonl", None])


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("points.jsonl", "a file"),
        ("photos", "names an input"),
        ("photos/new", "inside the input"),
        ("link/new", "inside the input"),
        (".", "lies in it"),
    ],
)
def test_folders_that_are_no_place_for_pictures(pictures: Path, out: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"--overlays .*{message}"):
        check_output_folder(pictures.parent / out, [pictures], option="--overlays", around=False)


def test_good_places_pass_and_nothing_is_made(pictures: Path) -> None:
    before = sorted(pictures.parent.rglob("*"))
    check_output_file(pictures.parent / "new/deep/rows.jsonl", [pictures])
    check_output_file(pictures.parent / "photos.jsonl", [pictures / "a.png"])
    check_output_folder(pictures.parent / "overlays", [pictures], around=False)
    check_output_folder(pictures.parent, [pictures])
    assert sorted(pictures.parent.rglob("*")) == before


def test_a_place_that_cannot_be_written_is_told_of_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written to"):
        check_output_file(tmp_path / ("x" * 250), [])
    with pytest.raises(ConfigError, match="cannot be written to"):
        check_output_file(Path("/proc/none/rows.jsonl"), [])


def test_foreign_files_beside_are_kept(tmp_path: Path) -> None:
    check_beside(tmp_path / "a.csv", "image,width")
    (tmp_path / "a.csv").write_text("image,width,height\n")
    check_beside(tmp_path / "a.csv", "image,width")
    (tmp_path / "a.csv").write_text("mine\n")
    with pytest.raises(ConfigError, match=r"a\.csv would be written as well"):
        check_beside(tmp_path / "a.csv", "image,width")
