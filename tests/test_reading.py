"""Reading: encodings, line ends, and that no exception gets by without the file's name."""

import struct
from pathlib import Path

import numpy as np
import pytest

from alberti.errors import CheckpointError, ConfigError, DataError
from alberti.reading import Lines, read_array, read_json, read_json_lines, read_lines, read_text, reading

TEXT = "Straße\nzwei\u2028halbe\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_mark_and_any_line_end(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.replace("\n", end).encode(encoding))
    assert read_text(path) == TEXT
    assert read_lines(path) == [(1, "Straße"), (2, "zwei\u2028halbe")]
    lines = Lines(path)
    places = dict(lines)
    assert list(places.values()) == ["Straße", "zwei\u2028halbe"]
    assert [lines.at(place) for place in places] == list(places.values())


@pytest.mark.parametrize("data", [b"Stra\xdfe", "Straße".encode("utf-16-le"), b"\xff\xfe\x00\xd8"])
def test_other_encodings_are_refused_with_the_remedy(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.txt: cannot read the list.*save it as UTF-8"):
        read_text(tmp_path / "a.txt", "list")


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "broken"),
        ValueError("x\ny"),
        struct.error("x"),
        RecursionError(),
        MemoryError(),
        AssertionError(),
        KeyError(1),
    ],
)
def test_whatever_is_raised_names_the_file_in_one_line(error: Exception) -> None:
    with (
        pytest.raises(CheckpointError, match=r"^some/file: cannot read the thing[ :][^\n]*$"),
        reading("some/file", "thing", CheckpointError),
    ):
        raise error


def test_our_own_errors_pass_and_interruptions_do() -> None:
    for error in (ConfigError("mine"), KeyboardInterrupt()):
        with pytest.raises(type(error)), reading("a", "b"):
            raise error


def test_json_that_python_cannot_hold(tmp_path: Path) -> None:
    for text in ("[" * 100_000, "9" * 5000, "{"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError, match=r"a\.json: not valid JSON"):
            read_json(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{')
    with pytest.raises(DataError, match="line 3"):
        list(read_json_lines(tmp_path / "a.jsonl"))


def test_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3.0))
    assert read_array(tmp_path / "a.npy").tolist() == [0, 1, 2]
    np.savez(tmp_path / "a.npz", depth=np.ones(2), other=np.zeros(1))
    assert read_array(tmp_path / "a.npz", "depth").tolist() == [1, 1]
    with pytest.raises(DataError, match=r"no array .deep.*depth, other"):
        read_array(tmp_path / "a.npz", "deep")
    with pytest.raises(DataError, match="archive"):
        read_array(tmp_path / "a.npz")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"objects\.npy"):
        read_array(tmp_path / "objects.npy")
    with pytest.raises(DataError, match=r"none\.npy: no such"):
        read_array(tmp_path / "none.npy")
