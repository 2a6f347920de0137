"""Pictures below a folder, in a fixed order, without holding them all in memory: one finder for every command."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from alberti.errors import DataError
from alberti.images import picture_suffixes, unread_suffixes

_DEPTH_FOLDER = "proj_depth"
"""KITTI's folder of depth maps, which are PNG files and no pictures."""


@dataclass
class LeftOut:
    """What the finder came by and did not take."""

    suffixes: Counter[str] = field(default_factory=Counter)
    """All files that are no pictures to it, by suffix in lower case."""
    depth_folders: int = 0
    """Folders of KITTI's depth maps."""

    def note(self) -> str | None:
        """One line on the pictures and films that cannot be read here; None if there are none."""
        unread = {suffix: count for suffix, count in sorted(self.suffixes.items()) if suffix in unread_suffixes()}
        if not unread:
            return None
        hint = "; HEIC can be read after pip install 'alberti[heic]'" if {".heic", ".heif"} & unread.keys() else ""
        return f"left out, in formats that are not read here: {_counted(unread)}{hint}"

    def found(self) -> str:
        """What lies there instead of pictures."""
        depth = [f"{self.depth_folders} folders of depth maps"] if self.depth_folders else []
        return (
            ", ".join([*depth, _counted(dict(self.suffixes.most_common(6)))] if self.suffixes else depth) or "an empty folder"
        )


def _counted(suffixes: dict[str, int]) -> str:
    return ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in suffixes.items())


def find_images(root: Path, *, on_error: Callable[[str, OSError], None], left_out: LeftOut | None = None) -> Iterator[str]:
    """Yield the paths of all pictures below ``root``, relative to it with forward slashes, sorted folder by folder.

    A picture is known by its suffix (:func:`alberti.images.picture_suffixes`). Hidden files and folders are left out, and
    KITTI's folders of depth maps. Links to folders are followed, except back to a folder that they lie in. A folder that
    cannot be read goes to ``on_error`` (its relative path), what is no picture is counted in ``left_out``.

    Raises:
        DataError: ``root`` does not exist, or is a file that is not a picture.
    """
    if root.is_file():
        if root.suffix.lower() not in picture_suffixes():
            raise DataError(f"{root}: not a folder, and not a picture ({', '.join(picture_suffixes())})")
        yield root.name
        return
    if not root.is_dir():
        raise DataError(f"{root}: no such folder or picture")
    yield from _walk(root, "", (os.path.realpath(root),), on_error, left_out or LeftOut())


def no_pictures(root: Path, left_out: LeftOut) -> DataError:
    """The error of a folder in which nothing was found."""
    hint = f"; {note}" if (note := left_out.note()) else ""
    return DataError(
        f"{root}: no pictures in it or below; found {left_out.found()} (read are {', '.join(picture_suffixes())}){hint}"
    )


def is_picture(name: str) -> bool:
    """Whether a file of this name counts as a picture."""
    return PurePosixPath(name).suffix.lower() in picture_suffixes()


def image_path(root: Path, relative: str) -> Path:
    """The file behind a path of :func:`find_images`."""
    return root if root.is_file() else root / relative


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder, or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _walk(
    root: Path, prefix: str, above: tuple[str, ...], on_error: Callable[[str, OSError], None], left_out: LeftOut
) -> Iterator[str]:
    try:
        with os.scandir(root / prefix) as entries:
            names = sorted((entry.name, is_folder(entry)) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        on_error(prefix or ".", error)
        return
    for name, folder in names:
        relative = f"{prefix}/{name}" if prefix else name
        if folder and name == _DEPTH_FOLDER:
            left_out.depth_folders += 1
        elif folder:
            real = os.path.realpath(root / relative)
            if real not in above:
                yield from _walk(root, relative, (*above, real), on_error, left_out)
        elif is_picture(name):
            yield relative
        else:
            left_out.suffixes[os.path.splitext(name)[1].lower()] += 1
