"""What is known of the files of a large data set without reading them again.

:func:`folder_fingerprint` sums up a folder's names, sizes and times in a digest, which a pipeline can depend on instead
of hashing 100 GB. :class:`FileIndex` remembers each file's SHA-256 and picture size under (path, size, time).
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

from PIL import Image, UnidentifiedImageError

from alberti.errors import DataError
from alberti.files import atomic_file, sha256_file
from alberti.progress import Progress

_CACHE_VERSION = 1


class FileEntry(NamedTuple):
    """One file below a root: POSIX path relative to it, bytes, modification time in nanoseconds."""

    path: str
    size: int
    mtime_ns: int


def scan(root: str | Path) -> Iterator[FileEntry]:
    """Every file below ``root``, sorted by path within each folder; hidden names are skipped, linked folders followed.

    Raises:
        DataError: ``root`` is not a folder, or links below it form a loop.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    yield from _scan(str(root), "", frozenset())


def _scan(folder: str, prefix: str, ancestors: frozenset[str]) -> Iterator[FileEntry]:
    real = os.path.realpath(folder)
    if real in ancestors:
        raise DataError(f"{folder}: a link back to a folder above it; remove it, or name a folder without loops")
    with os.scandir(folder) as entries:
        listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in listed:
        if entry.is_dir():
            yield from _scan(entry.path, f"{prefix}{entry.name}/", ancestors | {real})
        else:
            try:
                status = entry.stat()
            except FileNotFoundError:
                raise DataError(f"{entry.path}: a broken link") from None
            yield FileEntry(f"{prefix}{entry.name}", status.st_size, status.st_mtime_ns)


def folder_fingerprint(root: str | Path) -> dict[str, str | int]:
    """``{"files": ..., "bytes": ..., "digest": ...}``: the digest is over the names, sizes and times of all files.

    Where the root lies is not part of it.
    """
    digest = hashlib.sha256()
    files = size = 0
    for entry in scan(root):
        digest.update(f"{entry.path}\0{entry.size}\0{entry.mtime_ns}\n".encode())
        files += 1
        size += entry.size
    return {"files": files, "bytes": size, "digest": digest.hexdigest()}


class FileIndex:
    """SHA-256 and picture size of files below ``root``, computed once and kept in the file ``cache``.

    A file is known again by its path, size and modification time. Without ``cache`` nothing is kept; with
    ``hashes=False`` digests are left out. Use as a context manager: leaving it, even by an error, saves what was
    learnt.
    """

    def __init__(self, root: str | Path, cache: str | Path | None = None, *, hashes: bool = True):
        self.root, self.hashes = Path(root), hashes
        self._cache = Path(cache) if cache is not None else None
        self._entries: dict[str, list] = {}
        self._changed = False
        if self._cache is not None and self._cache.is_file():
            self._entries = _read_cache(self._cache)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.save()

    @contextlib.contextmanager
    def without_hashes(self) -> Iterator[None]:
        """Leave digests out meanwhile."""
        before, self.hashes = self.hashes, False
        try:
            yield
        finally:
            self.hashes = before

    def save(self) -> None:
        """Write the cache file if anything new was learnt."""
        if self._cache is None or not self._changed:
            return
        with atomic_file(self._cache) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps({"version": _CACHE_VERSION}) + "\n")
            for path, entry in self._entries.items():
                file.write(json.dumps([path, *entry], separators=(",", ":")) + "\n")
        self._changed = False

    def sha256(self, path: str) -> str:
        """Hex SHA-256 of the file at ``path`` relative to the root."""
        entry = self._entry(path)
        if entry[2] is None:
            entry[2] = sha256_file(self.root / path)
            self._changed = True
        return entry[2]

    def image_size(self, path: str) -> tuple[int, int]:
        """(width, height) of a picture, from its header; EXIF rotation counted. DataError if it is not a picture."""
        entry = self._entry(path)
        if entry[3] is None:
            entry[3], entry[4] = read_image_size(self.root / path)
            self._changed = True
        return entry[3], entry[4]

    def digests(self, **paths: str | None) -> dict[str, str]:
        """``{"image": ..., "depth": ...}`` for the paths that are not None; empty with ``hashes=False``."""
        if not self.hashes:
            return {}
        return {field: self.sha256(path) for field, path in paths.items() if path is not None}

    def prefetch(self, paths: Iterable[str], *, workers: int = 4) -> None:
        """Hash many files at once, in threads, with progress; those already known cost one ``stat`` each."""
        if not self.hashes:
            return
        missing = [path for path in paths if self._entry(path)[2] is None]
        if not missing:
            return
        with ThreadPoolExecutor(workers) as pool, Progress("hashing", len(missing), unit="files") as progress:
            for _ in pool.map(self.sha256, missing, chunksize=64):
                progress.advance()

    def _entry(self, path: str) -> list:
        try:
            status = os.stat(self.root / path)
        except FileNotFoundError:
            raise DataError(f"{self.root / path}: no such file") from None
        entry = self._entries.get(path)
        if entry is None or entry[0] != status.st_size or entry[1] != status.st_mtime_ns:
            entry = self._entries[path] = [status.st_size, status.st_mtime_ns, None, None, None]
        return entry


def _read_cache(path: Path) -> dict[str, list]:
    """The cache is only a saving: one that is damaged or of another version counts as empty."""
    try:
        with open(path, encoding="utf-8") as file:
            if json.loads(next(file, "null")) != {"version": _CACHE_VERSION}:
                return {}
            return {row[0]: row[1:] for row in map(json.loads, file) if len(row) == 6}
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError):
        return {}


def read_image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) from a picture's header, EXIF rotation counted; the pixels are not decoded."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"{path}: not an image that Pillow can read ({error})") from None
    return (height, width) if turned else (width, height)
