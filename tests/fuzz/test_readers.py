"""No reader lets anything but an AlbertiError out, whatever is done to its file: thousands of damaged files, seeded."""

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fuzz.mutations import damaged
from fuzz.readers import READERS, Reader, fresh

import alberti.images
import alberti.reading
from alberti.errors import AlbertiError, DataError


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files(reader: Reader, tmp_path: Path) -> None:
    path = reader.make(fresh(tmp_path / "files"))
    sound = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader.read(_target(reader, path))  # the file is sound, or the rest would show nothing
        escaped = [
            problem for problem in (_problem(reader, path, data, number) for number, data in _cases(reader, sound)) if problem
        ]
    assert not escaped, f"{len(escaped)} of {reader.count}: {escaped[:5]}"


def _cases(reader: Reader, sound: bytes) -> Iterator[tuple[int, bytes]]:
    start, end = reader.span or (0, len(sound))
    for number, part in enumerate(damaged(sound[start:end], reader.count, seed=zlib.crc32(reader.name.encode()))):
        yield number, reader.mend(sound[:start] + part + sound[end:])


def _target(reader: Reader, path: Path) -> Path:
    """What is named to the reader: a model's folder, or the file."""
    return path.parent if reader.name.startswith("depth model") else path


def _problem(reader: Reader, path: Path, data: bytes, number: int) -> str | None:
    path.write_bytes(data)
    try:
        reader.read(_target(reader, path))
    except AlbertiError as error:
        # it names the file, or the folder or picture that the file belongs to
        return None if str(path.parent) in str(error) or path.name in str(error) else f"case {number}: no file in {error}"
    except Exception as error:
        return f"case {number}: {type(error).__name__}: {error!s:.80}"
    return None


@pytest.mark.parametrize("name", ["read_image .avif", "read_image .jp2", "read_image .gif", "prediction npy", "KITTI split"])
@pytest.mark.filterwarnings("ignore")
def test_holes_in_the_net_are_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a list of exceptions in the place of all, as it was once, the same damage gets through."""

    @contextmanager
    def listed(path: object, what: str, kind: type[AlbertiError] = DataError, hint: str = "") -> Iterator[None]:
        try:
            yield
        except (OSError, SyntaxError, EOFError) as error:
            raise kind(f"{path}: {error}") from error

    monkeypatch.setattr(alberti.images, "reading", listed)
    monkeypatch.setattr(alberti.reading, "reading", listed)
    monkeypatch.setattr(alberti.reading, "decode", lambda data, *_: data.decode())
    reader = next(reader for reader in READERS if reader.name == name)
    path = reader.make(fresh(tmp_path / "files"))
    cases = _cases(reader, path.read_bytes())
    assert any(_problem(reader, path, data, number) for number, data in cases)
