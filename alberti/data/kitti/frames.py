"""KITTI frames and the lists that name them (Eigen splits in monodepth2's and BTS's forms)."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from alberti.errors import DataError
from alberti.reading import read_lines

DATE = re.compile(r"\d{4}_\d{2}_\d{2}")
_PLACE = re.compile(
    r"(?:^|/)(?P<date>\d{4}_\d{2}_\d{2})/(?P<drive>\d{4}_\d{2}_\d{2}_drive_\w+)/image_0(?P<camera>[23])/data/"
    r"(?P<frame>\d{1,10})(?:\.\w+)?(?=$|[\s,;\"'])"
)
"""Where a picture lies in KITTI, at the end of a path."""
_DEPTH_PLACE = re.compile(
    r"(?:^|/)(?P<drive>(?P<date>\d{4}_\d{2}_\d{2})_drive_\w+)/proj_depth/\w+/image_0(?P<camera>[23])/"
    r"(?P<frame>\d{1,10})\.\w+(?=$|[\s,;\"'])"
)
"""The same of its depth map."""
_NUMBERED = re.compile(
    r"(?:^|/)(?P<date>\d{4}_\d{2}_\d{2})/(?P<drive>\d{4}_\d{2}_\d{2}_drive_\w+)/?[\s,;]+(?P<frame>\d{1,10})"
    r"(?:[\s,;]+(?P<side>[lrLR23]))?\s*$"
)
"""A line of monodepth2's lists."""
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
    """Read a list of frames, one per line, in the list's order; blank lines are skipped.

    Three forms are read: ``<date>/<drive> <frame> [l|r]`` (monodepth2, zero-padded or not), BTS's three columns
    ``<image path> <annotated depth path or None> <focal>``, and plain paths of images or of annotated depth. Paths may be
    absolute; columns are parted by blanks or commas.

    Raises:
        DataError: no such file, a line of another form, a frame listed twice, no frame at all.
    """
    path = Path(path)
    frames: dict[Frame, int] = {}
    for number, text in read_lines(path, "split file"):
        if text.lstrip().startswith("#"):
            continue
        frame = _parse_line(text, f"{path}, line {number}")
        if frame in frames:
            raise DataError(f"{path}, line {number}: {frame.line()!r} already stands in line {frames[frame]}")
        frames[frame] = number
    if not frames:
        raise DataError(f"{path}: the split file lists no frame")
    return list(frames)


def split_hash(ids: Iterable[str]) -> str:
    """SHA-256 that names a set of images, whatever the list's form and order: over the sorted ids, one per line."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(ids)).encode()).hexdigest()


def frame_at(path: str) -> Frame | None:
    """The frame whose picture lies at ``path``, which ends as KITTI has it; None of any other path."""
    match = _PLACE.search(path.replace("\\", "/"))
    if match is None or match.end() != len(path):
        return None
    return Frame(match["date"], match["drive"], int(match["frame"]), _SIDES[match["camera"]])


def _parse_line(text: str, where: str) -> Frame:
    line = text.strip().replace("\\", "/").replace('"', "")
    if match := _PLACE.search(line):
        rest = line[match.end() :].replace(",", " ").split()
        annotated = None
        if rest and (rest[0] == "None" or "proj_depth" in line[match.end() :]):
            annotated = rest[0] != "None"
        return Frame(match["date"], match["drive"], int(match["frame"]), _SIDES[match["camera"]], annotated)
    if match := _DEPTH_PLACE.search(line):
        return Frame(match["date"], match["drive"], int(match["frame"]), _SIDES[match["camera"]], True)
    if match := _NUMBERED.search(line):
        return Frame(match["date"], match["drive"], int(match["frame"]), _SIDES[(match["side"] or "l").lower()])
    raise DataError(
        f"{where}: expected `<date>/<drive> <frame> l` (monodepth2) or `<date>/<drive>/image_02/data/<frame>.png "
        f"<depth path or None> <focal>` (BTS), got {text.strip()!r:.160}"
    )
