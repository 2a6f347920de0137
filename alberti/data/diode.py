"""Reads DIODE's outdoor scenes in their native layout: png, ``_depth.npy``, ``_depth_mask.npy``.

The release unpacks to ``val/outdoor/scene_00022/scan_00193/00022_00193_outdoor_010_000.png`` and beside it
``..._depth.npy``, (768, 1024, 1) float32 metres, and ``..._depth_mask.npy``, (768, 1024), 1 where the depth is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alberti.errors import DataError
from alberti.images import read_image


@dataclass(frozen=True, order=True)
class DiodeFrame:
    """One outdoor image."""

    id: str
    """The image's name without its suffix, unique in DIODE: the name of its prediction file."""
    folder: Path
    """Where its three files lie."""


class DiodeReader:
    """DIODE below ``root``: the release's folder, ``val``, or any folder that holds ``outdoor`` or outdoor scenes.

    Raises:
        DataError: no outdoor image with depth below ``root``; the message says what stands there.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; expected DIODE's val/outdoor/scene_*/scan_*/ below it")
        depths = sorted(self.root.rglob("*_outdoor_*_depth.npy"))
        names = [path.name.removesuffix("_depth.npy") for path in depths]
        self._frames = {name: DiodeFrame(name, path.parent) for name, path in zip(names, depths, strict=True)}
        if not depths:
            found = ", ".join(sorted(path.name for path in self.root.iterdir())[:8]) or "nothing"
            raise DataError(
                f"{self.root}: no DIODE outdoor depth: expected [val/]outdoor/scene_*/scan_*/*_outdoor_*_depth.npy, "
                f"found {found}"
            )
        if len(self._frames) != len(depths):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{self.root}: {twice} lies in two folders; name the one with the split to score, say val")

    def frames(self, split: str | Path | None = None) -> list[DiodeFrame]:
        """All outdoor frames, sorted, or those that a file lists: ids or image paths, one a line."""
        if split is None:
            return sorted(self._frames.values())
        try:
            lines = Path(split).read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            raise DataError(f"{split}: no such split file") from None
        names = [Path(line.strip()).name.removesuffix(".png") for line in lines if line.strip()]
        unknown = [name for name in names if name not in self._frames]
        if unknown or len(set(names)) != len(names) or not names:
            problem = f"not in {self.root}: {', '.join(unknown[:5])}" if unknown else "empty, or a name stands twice"
            raise DataError(f"{split}: {problem}")
        return [self._frames[name] for name in names]

    def read_image(self, frame: DiodeFrame) -> np.ndarray:
        """The image, (H, W, 3) uint8 RGB."""
        return read_image(frame.folder / f"{frame.id}.png")

    def depth(self, frame: DiodeFrame, kind: str = "diode") -> np.ndarray:
        """Depth where the mask says it is measured: (H, W) float32 metres, 0 = no measurement."""
        if kind != "diode":
            raise DataError(f"DIODE has ground truth of kind diode, not {kind}")
        path = frame.folder / f"{frame.id}_depth.npy"
        depth, mask = _load(path), _load(frame.folder / f"{frame.id}_depth_mask.npy")
        if depth.shape != mask.shape:
            raise DataError(f"{path}: depth of shape {depth.shape}, but its mask is of shape {mask.shape}")
        measured = (mask > 0) & np.isfinite(depth) & (depth > 0)
        return np.where(measured, depth, 0).astype(np.float32)

    def check(self, frames: Sequence[DiodeFrame], *, image: bool = False, kind: str | None = None) -> None:
        """Raise DataError that lists which of ``frames`` lack the image, or depth and mask."""
        suffixes = (".png",) * image + ("_depth.npy", "_depth_mask.npy") * (kind is not None)
        paths = (frame.folder / (frame.id + suffix) for frame in frames for suffix in suffixes)
        missing = [path for path in paths if not path.is_file()]
        if missing:
            shown = "; ".join(str(path) for path in missing[:5])
            raise DataError(f"{self.root}: {len(missing)} files are missing: {shown}")


def _load(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot read as a .npy array ({error})") from error
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if array.ndim != 2 or array.dtype.kind not in "fbiu":
        raise DataError(f"{path}: expected (H, W) or (H, W, 1) numbers, got {array.shape} {array.dtype}")
    return np.asarray(array)
