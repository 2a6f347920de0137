"""Reading files that somebody else made: every reader of the package goes through here.

A library raises what it likes about a damaged file (Pillow alone: OSError, SyntaxError, ValueError, TypeError, KeyError,
struct.error, EOFError, ...). :func:`reading` turns whatever comes into a DataError that names the file, so that no list of
exceptions can be incomplete.
"""

import codecs
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alberti.errors import AlbertiError, DataError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@contextlib.contextmanager
def reading(path: str | Path, what: str, kind: type[AlbertiError] = DataError, hint: str = "") -> Iterator[None]:
    """Whatever the block raises becomes ``kind``, an error that names ``path`` and says that it is no good as ``what``.

    Args:
        what: with its article left out, such as "depth map".
        hint: what to do about it, put behind the message.
    """
    try:
        yield
    except AlbertiError:
        raise
    except FileNotFoundError:
        raise kind(f"{path}: no such {what}{hint}") from None
    except IsADirectoryError:
        raise kind(f"{path}: a folder, where a {what} was expected") from None
    except MemoryError:
        raise kind(f"{path}: cannot read the {what}: it asks for more memory than there is; damaged?") from None
    except Exception as error:
        raise kind(f"{path}: cannot read the {what} ({first_line(error)}){hint}") from error


def first_line(error: BaseException, limit: int = 300) -> str:
    """What an error says, in one line: libraries add links, traces and advice."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:limit]


def read_text(path: str | Path, what: str = "text file") -> str:
    """A text file's content, with line ends as ``\\n``: UTF-8, or UTF-16 and UTF-32 that say so by a byte-order mark.

    Raises:
        DataError: missing, or another encoding.
    """
    with reading(path, what):
        return decode(Path(path).read_bytes(), path, what)


def decode(data: bytes, path: str | Path, what: str = "text file") -> str:
    """The text of a file's bytes; see :func:`read_text`."""
    encoding, start = encoding_of(data[:4])
    try:
        text = data[start:].decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: cannot read the {what}: no text in UTF-8, nor in UTF-16 with a byte-order mark ({first_line(error)}); "
            "save it as UTF-8"
        ) from None
    if "\0" in text:
        raise DataError(
            f"{path}: cannot read the {what}: null characters, so no text, or UTF-16 without its mark; save it as UTF-8"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def encoding_of(head: bytes) -> tuple[str, int]:
    """The encoding of a text that begins with ``head`` (four bytes), and the length of its byte-order mark."""
    return next(((encoding, len(mark)) for mark, encoding in _MARKS if head.startswith(mark)), ("utf-8", 0))


def read_lines(path: str | Path, what: str = "text file") -> list[tuple[int, str]]:
    """(number from 1, text) of every line that is not blank; encodings and line ends as :func:`read_text`."""
    # not splitlines: it also splits at characters that may stand inside a caption
    lines = read_text(path, what).split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def parse_json(text: str | bytes, where: str, what: str = "JSON") -> Any:
    """The value of a JSON text; DataError that begins with ``where`` if it is malformed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid {what} ({first_line(error)})") from None


def read_json(path: str | Path, what: str = "file") -> Any:
    """A JSON file's value; DataError if it is missing or malformed."""
    return parse_json(read_text(path, what), str(path))


def read_json_lines(path: str | Path, what: str = "file") -> Iterator[tuple[int, Any]]:
    """(number from 1, value) of every line that is not blank of a JSON-lines file."""
    for number, line in read_lines(path, what):
        yield number, parse_json(line, f"{path}, line {number}")


class Lines:
    """The lines of a text file that are not blank, each with its place, so that one can be had again: none is kept in memory.

    Encodings and line ends as :func:`read_text`; a file that is not UTF-8 with ``\\n`` is kept in memory after all.
    """

    def __init__(self, path: str | Path, what: str = "text file"):
        self.path, self.what = Path(path), what
        with reading(path, what), open(path, "rb") as file:
            encoding, self._start = encoding_of(file.read(4))
            file.seek(self._start)
            plain = encoding == "utf-8" and b"\r" not in file.readline().rstrip(b"\r\n")
        self._kept = None if plain else dict(read_lines(path, what))

    def __iter__(self) -> Iterator[tuple[int, str]]:
        if self._kept is not None:
            yield from self._kept.items()
            return
        with open(self.path, "rb") as file:
            file.seek(self._start)
            while line := file.readline():
                if line.strip():
                    yield file.tell() - len(line), self._text(line)

    def at(self, place: int) -> str:
        """The line at a place that iteration gave."""
        if self._kept is not None:
            return self._kept[place]
        with open(self.path, "rb") as file:
            file.seek(place)
            return self._text(file.readline())

    def _text(self, line: bytes) -> str:
        return decode(line, self.path, self.what).strip("\n")


def read_array(path: str | Path, key: str | None = None, what: str = "NumPy file") -> np.ndarray:
    """The array of a ``.npy`` file, or the array ``key`` of an ``.npz``. Nothing is unpickled.

    Raises:
        DataError: missing, damaged, no array of that key, or one of objects or of several fields.
    """
    with reading(path, what):
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            values = loaded
        else:
            with loaded:
                if key is None or key not in loaded.files:
                    wanted = "an .npz archive, where a single array (.npy)" if key is None else f"no array {key!r}, which"
                    holds = ", ".join(loaded.files) or "nothing"
                    raise DataError(f"{path}: {wanted} was expected; it holds {holds}")
                values = loaded[key]
        if values.dtype.kind not in "fiub":
            raise DataError(f"{path}: expected an array of numbers, got {values.dtype}")
        return values
