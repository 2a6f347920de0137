"""Reads DIODE in its native layout: png, ``_depth.npy``, ``_depth_mask.npy``, outdoors and indoors.

The release unpacks to ``val/outdoor/scene_00022/scan_00193/00022_00193_outdoor_010_000.png`` (indoors: ``val/indoors/...``) and
beside it ``..._depth.npy``, (768, 1024, 1) float32 metres, and ``..._depth_mask.npy``, (768, 1024), 1 where depth is measured.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alberti.errors import DataError
from alberti.images import read_image
from alberti.reading import read_array, read_lines

_DEPTH = re.compile(r"(?P<id>.+_(?P<scenes>outdoor|indoors)_.+)_depth\.npy")
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")


@dataclass(frozen=True, order=True)
class DiodeFrame:
    """One image."""

    id: str
    """The image's name without its suffix, unique in DIODE: the name of its prediction file."""
    folder: Path
    """Where its three files lie."""
    scenes: str = "outdoor"
    """"outdoor" or "indoors"."""


class DiodeReader:
    """DIODE below ``root``: the release's folder, ``val``, or any folder that holds scenes.

    Raises:
        DataError: no image with depth below ``root``; the message says what stands there.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; expected DIODE's val/outdoor/scene_*/scan_*/ below it")
        self._frames: dict[str, DiodeFrame] = {}
        for path in sorted(self.root.rglob("*_depth.npy")):
            match = _DEPTH.fullmatch(path.name)
            if match is None:
                continue
            frame = DiodeFrame(match["id"], path.parent, match["scenes"])
            other = self._frames.setdefault(frame.id, frame)
            if other != frame:
                raise DataError(f"{self.root}: {frame.id} lies in two folders; name the one with the split to score, say val")
        if not self._frames:
            found = ", ".join(sorted(path.name for path in self.root.iterdir())[:8]) or "nothing"
            raise DataError(
                f"{self.root}: no DIODE depth: expected [val/]outdoor/scene_*/scan_*/*_outdoor_*_depth.npy, or indoors, "
                f"found {found}"
            )

    def frames(self, split: str | Path | None = None) -> list[DiodeFrame]:
        """All frames, sorted, or those that a file lists: ids or image paths, the first column of each line.

        Columns are parted by blanks or commas, as in DIODE's own lists and Marigold's.
        """
        if split is None:
            return sorted(self._frames.values())
        lines = [line for _, line in read_lines(split, "split file") if not line.lstrip().startswith("#")]
        names = [self._listed(line) for line in lines]
        unknown = [name for name in names if name not in self._frames]
        if unknown or len(set(names)) != len(names) or not names:
            problem = f"not in {self.root}: {', '.join(unknown[:5])}" if unknown else "empty, or a name stands twice"
            raise DataError(f"{split}: {problem}")
        return [self._frames[name] for name in names]

    def _listed(self, line: str) -> str:
        """The id that a line of a list names: a path may hold blanks, so the whole line is tried first."""
        for text in (line, line.split(",")[0], (line.replace(",", " ").split() or [""])[0]):
            name = text.strip().replace("\\", "/").rpartition("/")[2].strip("\"'")
            for suffix in (*_IMAGE_SUFFIXES, "_depth_mask.npy", "_depth.npy"):
                name = name.removesuffix(suffix)
            if name in self._frames:
                return name
        return name

    def image_path(self, frame: DiodeFrame) -> Path:
        """Where the image lies, or belongs."""
        paths = [frame.folder / f"{frame.id}{suffix}" for suffix in _IMAGE_SUFFIXES]
        return next((path for path in paths if path.is_file()), paths[0])

    def read_image(self, frame: DiodeFrame) -> np.ndarray:
        """The image, (H, W, 3) uint8 RGB."""
        return read_image(self.image_path(frame))

    def depth(self, frame: DiodeFrame, kind: str = "diode") -> np.ndarray:
        """Depth where the mask says it is measured: (H, W) float32 metres, 0 = no measurement."""
        if kind != "diode":
            raise DataError(f"DIODE has ground truth of kind diode, not {kind}")
        path = frame.folder / f"{frame.id}_depth.npy"
        depth, mask = _load(path), _load(frame.folder / f"{frame.id}_depth_mask.npy")
        if depth.shape != mask.shape:
            raise DataError(f"{path}: depth of shape {depth.shape}, but its mask is of shape {mask.shape}")
        with np.errstate(invalid="ignore"):
            measured = (mask > 0) & np.isfinite(depth) & (depth > 0)
        return np.where(measured, depth, 0).astype(np.float32)

    def check(self, frames: Sequence[DiodeFrame], *, image: bool = False, kind: str | None = None) -> None:
        """Raise DataError that lists which of ``frames`` lack the image, or depth and mask."""
        paths = [self.image_path(frame) for frame in frames] if image else []
        suffixes = ("_depth.npy", "_depth_mask.npy") if kind is not None else ()
        paths += [frame.folder / (frame.id + suffix) for frame in frames for suffix in suffixes]
        missing = [path for path in paths if not os.path.isfile(path)]
        if missing:
            shown = "; ".join(str(path) for path in missing[:5])
            raise DataError(f"{self.root}: {len(missing)} files are missing: {shown}")


def _load(path: Path) -> np.ndarray:
    array = read_array(path)
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if array.ndim != 2:
        raise DataError(f"{path}: expected (H, W) or (H, W, 1) numbers, got {array.shape} {array.dtype}")
    return array
