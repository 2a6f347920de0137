"""Files are written whole or not at all; hashes and seeds are the same everywhere."""

import pytest

from alberti.errors import DataError
from alberti.files import atomic_file, atomic_folder, read_json, sha256_file, sha256_json, write_json, write_text
from alberti.seeding import derive_seed, numpy_generator, torch_generator


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_the_old_folder_and_no_litter(tmp_path):
    folder = tmp_path / "out"
    with atomic_folder(folder) as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(folder) as temporary:
        (temporary / "b").write_text("2")
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_finished_folder_replaces_the_old_one(tmp_path):
    folder = tmp_path / "out"
    for name in ("a", "b"):
        with atomic_folder(folder) as temporary:
            (temporary / name).touch()
    assert [path.name for path in folder.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [folder]


def test_json_refuses_what_json_cannot_hold(tmp_path):
    with pytest.raises(DataError, match=r"a\.json"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("content", [None, "{", b"\xff\xfe"])
def test_json_errors_name_the_file(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=r"a\.json"):
        read_json(path)


def test_hashes_are_the_known_ones(tmp_path):
    write_text(tmp_path / "abc", "abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_json({"b": 1, "a": [1.5]}) == sha256_json({"a": [1.5], "b": 1}) != sha256_json({"a": [1.5], "b": 2})


def test_seeds_depend_on_every_key_and_on_nothing_else():
    seeds = {
        derive_seed(0),
        derive_seed(1),
        derive_seed(0, "a"),
        derive_seed(0, "a", 1),
        derive_seed(0, "a1"),
        derive_seed(0, "a", "1"),
    }
    assert len(seeds) == 6
    assert derive_seed(7, "x", 3) == derive_seed(7, "x", 3)
    assert torch_generator(1, "a").initial_seed() == derive_seed(1, "a")
    assert numpy_generator(1, "a").integers(1 << 60) == numpy_generator(1, "a").integers(1 << 60)


def test_a_seed_is_the_same_on_every_machine_and_in_every_release():
    assert derive_seed(0, "street", 1) == 7072011846046030049


def test_errors_name_what_was_asked_for_not_the_temporary_file(tmp_path):
    with (
        pytest.raises(DataError, match=r"data/train/manifest\.jsonl: bad$") as told,
        atomic_folder(tmp_path / "data/train") as folder,
    ):
        raise DataError(f"{folder}/manifest.jsonl: bad")
    assert ".tmp" not in str(told.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError) as told, atomic_file(tmp_path / "folder") as path:
        path.write_text("x")
    assert str(told.value.filename) == str(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "folder"]
