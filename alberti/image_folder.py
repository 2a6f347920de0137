"""Pictures below a folder, in a fixed order, without holding them all in memory."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from alberti.errors import DataError
from alberti.images import IMAGE_SUFFIXES


def find_images(root: Path, *, on_error: Callable[[str, OSError], None]) -> Iterator[str]:
    """Yield the paths of all pictures below ``root``, relative to it with forward slashes, sorted folder by folder.

    A picture is known by its suffix. Hidden files and folders are left out. Links to folders are followed, except
    back to a folder that they lie in. A folder that cannot be read goes to ``on_error`` (its relative path).

    Raises:
        DataError: ``root`` does not exist, or is a file that is not a picture.
    """
    if root.is_file():
        if root.suffix.lower() not in IMAGE_SUFFIXES:
            raise DataError(f"{root}: not a folder, and not a picture ({', '.join(IMAGE_SUFFIXES)})")
        yield root.name
        return
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    yield from _walk(root, "", (os.path.realpath(root),), on_error)


def image_path(root: Path, relative: str) -> Path:
    """The file behind a path of :func:`find_images`."""
    return root if root.is_file() else root / relative


def _walk(root: Path, prefix: str, above: tuple[str, ...], on_error: Callable[[str, OSError], None]) -> Iterator[str]:
    try:
        with os.scandir(root / prefix) as entries:
            names = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        on_error(prefix or ".", error)
        return
    for name, is_folder in names:
        relative = f"{prefix}/{name}" if prefix else name
        if is_folder:
            real = os.path.realpath(root / relative)
            if real not in above:
                yield from _walk(root, relative, (*above, real), on_error)
        elif name.lower().endswith(IMAGE_SUFFIXES):
            yield relative
