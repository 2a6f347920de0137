"""KITTI frames and the lists that name them (Eigen splits in monodepth2's and BTS's forms)."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from alberti.errors import DataError

DATE = re.compile(r"\d{4}_\d{2}_\d{2}")
_DRIVE = re.compile(r"\d{4}_\d{2}_\d{2}_drive_\w+")
_IMAGE = re.compile(r"/?(?P<date>[^/]+)/(?P<drive>[^/]+)/image_0(?P<camera>[23])/data/(?P<frame>\d+)\.\w+")
_SIDES = {"l": "l", "2": "l", "r": "r", "3": "r"}

KNOWN_SPLITS = {
    "4d6c89ff9cbd213b51ea8afe016f9b872550e36ee1d127f74daf9daebee9d041": "eigen_697",
    "404810a9337f932075ecb9c8d4e7a2ee541ee36a5d92748758c8babe9c728f93": "eigen_652",
}
"""Names of published lists by :func:`split_hash`."""


@dataclass(frozen=True, order=True)
class Frame:
    """One picture of KITTI raw: the left (image_02) or right (image_03) colour image of a drive's frame."""

    date: str
    drive: str
    """The drive's folder, say 2011_09_26_drive_0002_sync."""
    index: int
    side: str = "l"
    annotated: bool | None = field(default=None, compare=False)
    """Whether its list says that there is annotated depth; None where the list says nothing."""

    @property
    def id(self) -> str:
        """``<drive>_<frame>``, the name of its prediction file; frames of the right camera end in ``_r``."""
        return f"{self.drive}_{self.index:010d}" + ("_r" if self.side == "r" else "")

    @property
    def camera(self) -> int:
        """KITTI's number of the camera: 2 (left) or 3 (right)."""
        return 2 if self.side == "l" else 3

    def line(self) -> str:
        """The frame as a line of a monodepth2 list."""
        return f"{self.date}/{self.drive} {self.index:010d} {self.side}"


def read_split(path: str | Path) -> list[Frame]:
    """Read a list of frames, one a line, in the list's order; blank lines are skipped.

    Three forms are read: ``<date>/<drive> <frame> [l|r]`` (monodepth2, zero-padded or not), BTS's three columns
    ``<image path> <annotated depth path or None> <focal>``, and plain image paths.

    Raises:
        DataError: no such file, a line of another form, a frame listed twice, no frame at all.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: no such split file") from None
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot read the split file ({error})") from error
    frames: dict[Frame, int] = {}
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        frame = _parse_line(text, f"{path}, line {number}")
        if frame in frames:
            raise DataError(f"{path}, line {number}: {frame.line()!r} already stands in line {frames[frame]}")
        frames[frame] = number
    if not frames:
        raise DataError(f"{path}: the split file lists no frame")
    return list(frames)


def split_hash(ids: Iterable[str]) -> str:
    """SHA-256 that names a set of images, whatever the list's form and order: over the sorted ids, one a line."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(ids)).encode()).hexdigest()


def _parse_line(text: str, where: str) -> Frame:
    columns = text.split()
    image = _IMAGE.fullmatch(columns[0])
    if image:
        annotated = None
        if len(columns) > 1 and (columns[1] == "None" or "proj_depth" in columns[1]):
            annotated = columns[1] != "None"
        date, drive, number = image["date"], image["drive"], image["frame"]
        side = _SIDES[image["camera"]]
    else:
        date, _, drive = columns[0].strip("/").partition("/")
        number = columns[1] if len(columns) > 1 else ""
        side = _SIDES.get(columns[2].lower() if len(columns) > 2 else "l", "")
        annotated = None
    if not (DATE.fullmatch(date) and _DRIVE.fullmatch(drive) and re.fullmatch(r"\d{1,10}", number) and side):
        raise DataError(
            f"{where}: expected `<date>/<drive> <frame> l` (monodepth2) or `<date>/<drive>/image_02/data/<frame>.png "
            f"<depth path or None> <focal>` (BTS), got {text.strip()!r:.160}"
        )
    return Frame(date, drive, int(number), side, annotated)
