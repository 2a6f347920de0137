"""Reading and writing files: whole or not at all, and with errors that name the file."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from alberti.errors import AlbertiError, DataError
from alberti.reading import read_json

__all__ = [
    "atomic_file",
    "atomic_folder",
    "changed_since",
    "read_json",
    "sha256_file",
    "sha256_json",
    "write_json",
    "write_text",
]


def _temporary_sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


@contextlib.contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """Errors about the temporary sibling name ``path`` instead: what a person knows, and what is still there afterwards."""
    try:
        yield
    except AlbertiError as error:
        if str(temporary) not in str(error):
            raise
        raise type(error)(str(error).replace(str(temporary), str(path))) from error
    except OSError as error:
        for name in ("filename", "filename2"):
            value = getattr(error, name)
            if isinstance(value, str | os.PathLike) and os.fspath(value).startswith(str(temporary)):
                setattr(error, name, os.fspath(value).replace(str(temporary), str(path)))
        raise


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` to write; rename it to ``path`` if the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_sibling(path)
    try:
        with _named(path, temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new temporary sibling folder; swap it in for ``path`` if the block ends without an error.

    An older ``path`` stays untouched until the new one is complete.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_sibling(path)
    temporary.mkdir()
    try:
        with _named(path, temporary):
            yield temporary
            if path.exists():
                old = _temporary_sibling(path)
                os.replace(path, old)
                os.replace(temporary, path)
                shutil.rmtree(old)
            else:
                os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, UTF-8; what UTF-8 has no place for (file names in another encoding) is escaped."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused: JSON has no such numbers."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except ValueError as error:
        raise DataError(f"{path}: cannot write as JSON: {error}") from error
    write_text(path, text + "\n")


def changed_since(path: Path, moment: float) -> bool:
    """Whether the file at ``path`` may be another one than at ``moment`` (seconds since the epoch).

    Its content or name changed later, or its link did: a file that is put in another's place keeps its modification time
    where it is moved or copied with its times, but not its change time. A file that is gone counts as changed.
    """
    try:
        stats = (path.stat(), path.lstat())
    except OSError:
        return True
    return max(max(status.st_mtime, status.st_ctime) for status in stats) > moment


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(folder: str | Path, *, without: Iterable[str] = ()) -> str:
    """Hex SHA-256 over the relative paths and bytes of a folder's files, but for those named ``without``."""
    folder = Path(folder)
    left_out = set(without)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in left_out)
    return sha256_json([[path.relative_to(folder).as_posix(), sha256_file(path)] for path in files])


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a JSON-able value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
