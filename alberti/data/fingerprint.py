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
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from alberti.errors import DataError
from alberti.files import atomic_file, sha256_file
from alberti.image_folder import is_folder
from alberti.images import PictureHeader, read_picture_header
from alberti.progress import Progress
from alberti.reading import reading

_CACHE_VERSION = 2


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
    with reading(folder, "folder"), os.scandir(folder) as entries:
        listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in listed:
        if is_folder(entry):
            yield from _scan(entry.path, f"{prefix}{entry.name}/", ancestors | {real})
        else:
            try:
                status = entry.stat()
            except FileNotFoundError:
                raise DataError(f"{entry.path}: a broken link") from None
            except OSError as error:
                raise DataError(f"{entry.path}: cannot be looked at ({error.strerror})") from None
            yield FileEntry(f"{prefix}{entry.name}", status.st_size, status.st_mtime_ns)


def folder_fingerprint(root: str | Path) -> dict[str, str | int]:
    """``{"files": ..., "bytes": ..., "digest": ...}``: the digest is over the names, sizes and times of all files.

    Where the root lies is not part of it.
    """
    digest = hashlib.sha256()
    files = size = 0
    for entry in scan(root):
        digest.update(os.fsencode(entry.path) + f"\0{entry.size}\0{entry.mtime_ns}\n".encode())
        files += 1
        size += entry.size
    return {"files": files, "bytes": size, "digest": digest.hexdigest()}


@dataclass
class _Known:
    """What is known of a file while its size and times stay."""

    size: int
    mtime_ns: int
    ctime_ns: int
    """Changes as well where another file is put in its place with the old one's times."""
    sha256: str | None = None
    header: PictureHeader | None = None


class FileIndex:
    """SHA-256 and picture header of files below ``root``, computed once and kept in the file ``cache``.

    A file is known again by its path, size, modification and change time. Without ``cache`` nothing is kept; with
    ``hashes=False`` digests are left out. Use as a context manager: leaving it, even by an error, saves what was
    learnt.
    """

    def __init__(self, root: str | Path, cache: str | Path | None = None, *, hashes: bool = True):
        self.root, self.hashes = Path(root), hashes
        self._cache = Path(cache) if cache is not None else None
        self._entries: dict[str, _Known] = {}
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
            for path, known in self._entries.items():
                header = None if known.header is None else list(known.header)
                row = [path, known.size, known.mtime_ns, known.ctime_ns, known.sha256, header]
                file.write(json.dumps(row, separators=(",", ":")) + "\n")
        self._changed = False

    def sha256(self, path: str) -> str:
        """Hex SHA-256 of the file at ``path`` relative to the root."""
        known = self._entry(path)
        if known.sha256 is None:
            with reading(self.root / path, "file"):
                known.sha256 = sha256_file(self.root / path)
            self._changed = True
        return known.sha256

    def image_size(self, path: str) -> tuple[int, int]:
        """(width, height) of a picture, from its header; EXIF rotation counted. DataError if it is not a picture."""
        header = self.picture(path)
        return header.width, header.height

    def picture(self, path: str) -> PictureHeader:
        """A picture's header; DataError if it is not a picture."""
        known = self._entry(path)
        if known.header is None:
            known.header = read_picture_header(self.root / path)
            self._changed = True
        return known.header

    def digests(self, **paths: str | None) -> dict[str, str]:
        """``{"image": ..., "depth": ...}`` for the paths that are not None; empty with ``hashes=False``."""
        if not self.hashes:
            return {}
        return {field: self.sha256(path) for field, path in paths.items() if path is not None}

    def prefetch(self, paths: Iterable[str], *, workers: int = 4) -> None:
        """Hash many files at once, in threads, with progress; those already known cost one ``stat`` each."""
        if not self.hashes:
            return
        missing = [path for path in paths if self._entry(path).sha256 is None]
        if not missing:
            return
        with ThreadPoolExecutor(workers) as pool, Progress("hashing", len(missing), unit="files") as progress:
            for _ in pool.map(self.sha256, missing, chunksize=64):
                progress.advance()

    def _entry(self, path: str) -> _Known:
        with reading(self.root / path, "file"):
            status = os.stat(self.root / path)
        now = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._entries.get(path)
        if known is None or (known.size, known.mtime_ns, known.ctime_ns) != now:
            known = self._entries[path] = _Known(*now)
        return known


def _read_cache(path: Path) -> dict[str, _Known]:
    """The cache is only a saving: one that is damaged or of another version counts as empty."""
    try:
        with open(path, encoding="utf-8") as file:
            if json.loads(next(file, "null")) != {"version": _CACHE_VERSION}:
                return {}
            return dict(_known(json.loads(line)) for line in file)
    except Exception:
        return {}


def _known(row: list) -> tuple[str, _Known]:
    path, size, mtime_ns, ctime_ns, sha256, header = row
    numbers = (size, mtime_ns, ctime_ns, *(header or ()))
    if not (isinstance(path, str) and isinstance(sha256, str | None) and all(isinstance(value, int) for value in numbers)):
        raise ValueError("not a row of the cache")
    return path, _Known(size, mtime_ns, ctime_ns, sha256, None if header is None else PictureHeader(*header))


def read_image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) from a picture's header, EXIF rotation counted; the pixels are not decoded."""
    header = read_picture_header(path)
    return header.width, header.height
