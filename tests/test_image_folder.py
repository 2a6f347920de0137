"""Pictures below a folder: order, what counts as one, and folders that cannot be read."""

import os
from pathlib import Path

import pytest

from alberti import image_folder
from alberti.errors import DataError
from alberti.image_folder import LeftOut, find_images, image_path


def listing(root: Path) -> list[str]:
    def fail(folder: str, error: OSError) -> None:
        raise AssertionError(f"{folder}: {error}")

    return list(find_images(root, on_error=fail))


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_sorted_by_folder_and_name_with_subfolders(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b.png",
        "a/2.JPG",
        "a/1.webp",
        "c/a/1.webp",
        "notes.txt",
        ".hidden.png",
        ".git/x.png",
        "a.jpeg",
        "d.tiff",
    )
    assert listing(tmp_path) == ["a/1.webp", "a/2.JPG", "a.jpeg", "b.png", "c/a/1.webp", "d.tiff"]


def test_one_picture(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.txt")
    assert listing(tmp_path / "a.png") == ["a.png"]
    assert image_path(tmp_path / "a.png", "a.png") == tmp_path / "a.png"
    with pytest.raises(DataError, match="not a picture"):
        listing(tmp_path / "a.txt")


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    assert listing(tmp_path) == []
    with pytest.raises(DataError, match="no such folder"):
        listing(tmp_path / "none")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "real/1.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    assert listing(tmp_path) == ["link/1.png", "real/1.png"]


def test_an_unreadable_folder_is_reported_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.png", "b/1.png", "c.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(image_folder.os, "scandir", refuse)
    seen: list[str] = []
    assert list(find_images(tmp_path, on_error=lambda folder, _: seen.append(folder))) == ["b/1.png", "c.png"]
    assert seen == ["a"]


def test_a_link_to_itself_costs_itself_alone(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "z.png").touch()
    assert listing(tmp_path) == ["gone.png", "loop.png", "z.png"]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.cr2", "c.txt", "proj_depth/groundtruth/d.png", ".hidden.heic"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    left_out = LeftOut()
    assert list(find_images(tmp_path, on_error=lambda *_: None, left_out=left_out)) == ["a.JPG"]
    assert left_out.note() == "left out, in formats that are not read here: 1 .cr2"
    assert left_out.found() == "1 folders of depth maps, 1 .cr2, 1 .txt"
