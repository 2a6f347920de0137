import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alberti.data.fingerprint import FileIndex, folder_fingerprint, read_image_size, scan
from alberti.errors import DataError
from alberti.files import sha256_file
from alberti.images import write_image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "b").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "b" / "c.txt").write_text("two")
    (folder / ".hidden").write_text("no")
    return folder


def test_scan_lists_files_by_path_without_hidden_ones(root: Path) -> None:
    assert [(entry.path, entry.size) for entry in scan(root)] == [("a.txt", 3), ("b/c.txt", 3)]
    with pytest.raises(DataError, match="no such folder"):
        list(scan(root / "nowhere"))


def test_scan_refuses_loops_and_broken_links(root: Path) -> None:
    (root / "b" / "loop").symlink_to(root)
    with pytest.raises(DataError, match="link back"):
        list(scan(root))
    (root / "b" / "loop").unlink()
    (root / "gone").symlink_to(root / "nowhere")
    with pytest.raises(DataError, match="broken link"):
        list(scan(root))


def test_fingerprint_changes_with_names_sizes_and_times_only(root: Path, tmp_path: Path) -> None:
    first = folder_fingerprint(root)
    assert (first["files"], first["bytes"]) == (2, 6)
    assert folder_fingerprint(root) == first
    shutil.copytree(root, tmp_path / "elsewhere", copy_function=shutil.copy2)
    assert folder_fingerprint(tmp_path / "elsewhere") == first
    seen = {first["digest"]}
    changes = [
        lambda: (root / "a.txt").write_text("three"),
        lambda: os.utime(root / "a.txt", ns=(1, 1)),
        lambda: (root / "a.txt").rename(root / "z.txt"),
        lambda: (root / "b" / "d.txt").write_text(""),
    ]
    for change in changes:
        change()
        digest = folder_fingerprint(root)["digest"]
        assert digest not in seen
        seen.add(digest)


def test_index_hashes_once_until_a_file_changes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, hashed = tmp_path / "cache.jsonl", []

    def counting(path: Path) -> str:
        hashed.append(Path(path).name)
        return sha256_file(path)

    monkeypatch.setattr("alberti.data.fingerprint.sha256_file", counting)
    with FileIndex(root, cache) as index:
        index.prefetch(["a.txt", "b/c.txt"])
        first = index.digests(image="a.txt", depth="b/c.txt", other=None)
    assert first == {"image": sha256_file(root / "a.txt"), "depth": sha256_file(root / "b/c.txt")}
    with FileIndex(root, cache) as index:
        assert index.digests(image="a.txt", depth="b/c.txt") == first
    assert sorted(hashed) == ["a.txt", "c.txt"]
    (root / "a.txt").write_text("other")
    with FileIndex(root, cache) as index:
        assert index.sha256("a.txt") == sha256_file(root / "a.txt") != first["image"]
    assert hashed[2:] == ["a.txt"]


def _interrupted(index: FileIndex) -> None:
    index.sha256("a.txt")
    raise KeyboardInterrupt


def test_index_keeps_what_it_learnt_when_interrupted_and_ignores_a_damaged_cache(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.jsonl"
    index = FileIndex(root, cache)
    with pytest.raises(KeyboardInterrupt), index:
        _interrupted(index)
    assert "a.txt" in cache.read_text()
    for damage in ("", "{", '{"version": 0}\n', '{"version": 1}\n[1', '{"version": 1}\n["a.txt", 1]\n'):
        cache.write_text(damage)
        assert FileIndex(root, cache).sha256("a.txt") == sha256_file(root / "a.txt")


def test_index_without_hashes_and_missing_files(root: Path) -> None:
    index = FileIndex(root, hashes=False)
    assert index.digests(image="a.txt") == {}
    with pytest.raises(DataError, match="no such file"):
        index.sha256("nowhere.png")
    with pytest.raises(DataError, match="not an image"):
        index.image_size("a.txt")


def test_image_size_counts_exif_rotation(tmp_path: Path) -> None:
    write_image(tmp_path / "plain.png", np.zeros((20, 30, 3), np.uint8))
    assert read_image_size(tmp_path / "plain.png") == (30, 20)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image_size(tmp_path / "turned.jpg") == (20, 30)
