"""HoliCity (Zhou et al. 2020, arXiv 2008.03286): perspective views of London with depth, camera and vanishing points.

Layout: anywhere below the root, ``*_imag.jpg`` or ``.png`` (512 x 512), ``*_dpth.npz`` (key ``depth``, metres, 0 =
sky), ``*_camr.npz`` (``fov`` in degrees) and ``*_vpts.npz``. The kinds may stand in one folder a month or in one tree a
kind (``image/2008-07/...``, ``depth-v1/2008-07/...``): a view's name is the same in each.

``vpts`` are unit directions in OpenGL camera axes (x right, y up, z towards the viewer), the ground's normal first,
with a ``confidence`` each: the number of cells of a 64 x 64 normal map that support it (1000 for the ground's normal).
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from alberti.data.fingerprint import FileIndex, scan
from alberti.data.manifest import Sample, new_sample
from alberti.data.source import Source
from alberti.data.sources import layout_error
from alberti.errors import ConfigError, DataError
from alberti.geometry.camera import Camera, directions_to_vanishing_points
from alberti.reading import read_array, read_json, read_text

_FOV = 90.0
"""Degrees from edge to edge of every rendering, says the data set; the camera file is believed where there is one."""
_SIDE = 512
"""Pixels of every rendering, which the paper's points are counted in."""
_IMAGES = ("_imag.jpg", "_imag.png", "_imag.jpeg")
_KINDS = ("dpth.npz", "camr.npz", "vpts.npz")
CAPTIONS_FILE, POINTS_FILE = "captions_depth.json", "vpts_depth.json"


def open_holicity(
    root: Path,
    index: FileIndex,
    *,
    split: str | None = None,
    captions: str | None = None,
    vanishing_points: str | None = None,
    min_confidence: float = 125.0,
) -> Source:
    """Open HoliCity at ``root``.

    Args:
        split: "train", "valid" or "test" of ``*-middlesplit.txt`` (searched below the root); None: all views.
        captions: the paper's ``captions_depth.json``, keyed by the image's path; None: the one below the root, if any.
        vanishing_points: the paper's ``vpts_depth.json`` (pixels) instead of the data set's ``*_vpts.npz``;
            "paper": the one below the root.
        min_confidence: vanishing points of less support are left out, as in the data set's own demonstration.

    Raises:
        DataError: no ``*_imag`` file, no such split, a malformed file.
    """
    files = {entry.path for entry in scan(root)}
    images = sorted(path for path in files if path.lower().endswith(_IMAGES))
    if not images:
        raise layout_error(root, "HoliCity's *_imag.jpg or *_imag.png somewhere below it")
    splits = _Splits(root, files)
    if split is not None:
        splits.require(split)
        images = [path for path in images if splits.of(path) == split]
        if not images:
            raise DataError(f"{root}: no image of the split {split!r}: none of its names matches a *_imag file")
    splits.note_unmatched()
    beside = _by_name(files)
    words = _paper_file(root, files, captions, CAPTIONS_FILE)
    points = None
    if vanishing_points is not None:
        points = _paper_file(root, files, None if vanishing_points == "paper" else vanishing_points, POINTS_FILE)
        if points is None:
            raise DataError(f"{root}: no {POINTS_FILE} below it; name the file, or leave vanishing_points out")
    _check_match(root, images, words, captions or CAPTIONS_FILE)
    _check_match(root, images, points, POINTS_FILE)

    def samples() -> Iterator[Sample]:
        index.prefetch([*images, *filter(None, (beside.get(_name(path) + "dpth.npz") for path in images))])
        for path in images:
            yield _sample(root, path, index, beside, splits.of(path), words, points, min_confidence)

    return Source("holicity", root, samples(), depth_format="npz:depth", depth_scale=1.0, notes="HoliCity, native layout")


def _sample(
    root: Path,
    path: str,
    index: FileIndex,
    beside: Mapping[str, str],
    split: str | None,
    captions: Mapping[str, Any] | None,
    paper_points: Mapping[str, Any] | None,
    min_confidence: float,
) -> Sample:
    name = _name(path)
    width, height = index.image_size(path)
    if width != height:
        raise DataError(
            f"{root / path}: {width} x {height} pixels; HoliCity's views are square, and so are their camera and points: use "
            "the release's pictures (fit crops them, with the camera)"
        )
    depth, camr, vpts = (beside.get(name + kind) for kind in _KINDS)
    camera = Camera.from_fov(_fov(root / camr) if camr else _FOV, width, height)
    points: list[tuple[float, float, float]] | None = None
    if paper_points is not None:
        points = _pixel_points(paper_points.get(name), (width / _SIDE, height / _SIDE), f"{POINTS_FILE}, {path}")
    elif vpts is not None:
        points = _direction_points(root / vpts, camera, min_confidence)
    return new_sample(
        root / path,
        id=f"{PurePosixPath(path).parent.name or 'view'}_{name.rstrip('_')}",
        image=path,
        depth=depth,
        width=width,
        height=height,
        intrinsics=camera.intrinsics,
        vanishing_points=points,
        vanishing_points_source=None if points is None else "dataset",
        caption=None if captions is None else _caption(captions.get(name), f"{CAPTIONS_FILE}, {path}"),
        split=split,
        sha256=index.digests(image=path, depth=depth),
    )


def _name(path: str) -> str:
    """The view's own name with its last underscore: what the files of one view have in common."""
    return PurePosixPath(path).name.rpartition("_")[0] + "_"


def _by_name(files: set[str]) -> dict[str, str]:
    """File name -> path of the depth, camera and vanishing-point files."""
    found: dict[str, str] = {}
    for path in sorted(files):
        if path.endswith(_KINDS):
            name = PurePosixPath(path).name
            if name in found:
                raise DataError(f"{path}: the same view stands in {found[name]}; keep one copy below the root")
            found[name] = path
    return found


def _check_match(root: Path, images: list[str], table: Mapping[str, Any] | None, file: str) -> None:
    """A table of captions or points that names no view is an error, one that names some is counted."""
    if table is None:
        return
    known = sum(_name(path) in table for path in images)
    if known == 0:
        found = next(iter(table), "nothing")
        raise DataError(f"{root}: {file} names none of the {len(images)} views: {found!r} stands there, not {images[0]!r}")
    if known < len(images):
        print(f"note: {root}: {file} has entries of {known} of the {len(images)} views", file=sys.stderr)


def _caption(value: Any, where: str) -> str | None:
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, str | None):
        raise DataError(f"{where}: a caption is a text, got {value!r:.80}")
    return (value or "").strip() or None


def _fov(path: Path) -> float:
    fov = read_array(path, "fov", "camera file")
    if fov.size != 1 or not 0 < float(fov.reshape(())) < 180:
        raise DataError(f"{path}: fov: expected one number of degrees between 0 and 180, got {fov.tolist()!r:.80}")
    return float(fov.reshape(()))


def opengl_to_camera(directions: np.ndarray) -> np.ndarray:
    """(..., 3) directions in OpenGL camera axes (y up, z towards the viewer) in ours (y down, z forward)."""
    return np.asarray(directions, np.float64) * (1.0, -1.0, -1.0)


def _direction_points(path: Path, camera: Camera, min_confidence: float) -> list[tuple[float, float, float]]:
    directions, confidence = (read_array(path, key, "file of vanishing points") for key in ("vpts", "confidence"))
    if directions.ndim != 2 or directions.shape[1:] != (3,) or confidence.shape != (len(directions),):
        raise DataError(f"{path}: expected vpts (n, 3) and confidence (n,), got {directions.shape}, {confidence.shape}")
    directions = directions[np.isfinite(directions).all(axis=1) & directions.any(axis=1) & (confidence >= min_confidence)]
    points = directions_to_vanishing_points(opengl_to_camera(directions), camera)
    return [(float(x), float(y), float(w)) for x, y, w in points]


def _pixel_points(value: Any, scale: tuple[float, float], where: str) -> list[tuple[float, float, float]] | None:
    """Unit homogeneous points from the paper's pixel pairs, in which [0, 0] means "absent"; None for no entry.

    ``scale``: of pictures of another size than the paper's, across and down.
    """
    if value is None:
        return None
    try:
        pairs = np.asarray(value, np.float64)
    except (ValueError, TypeError, OverflowError):
        pairs = np.full(1, np.nan)
    if pairs.size == 0:
        return []
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.isfinite(pairs).all():
        raise DataError(f"{where}: expected a list of pixel pairs [x, y], got {value!r:.80}")
    moved = pairs if scale == (1.0, 1.0) else (pairs + 0.5) * scale - 0.5
    homogeneous = np.column_stack([moved, np.ones(len(pairs))])[(pairs != 0).any(axis=1)]
    homogeneous /= np.linalg.norm(homogeneous, axis=1, keepdims=True)
    return [(float(x), float(y), float(w)) for x, y, w in homogeneous]


def _paper_file(root: Path, files: set[str], named: str | None, default: str) -> dict[str, Any] | None:
    """One of the paper's JSON files, keyed by views' names; None if none was named and none lies below the root."""
    if named is None:
        found = sorted(path for path in files if PurePosixPath(path).name == default)
        if not found:
            return None
        if len(found) > 1:
            raise DataError(f"{root}: {default} stands there {len(found)} times ({', '.join(found[:3])}); name one")
        path = root / found[0]
    else:
        path = Path(named)
    values = read_json(path)
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected an object keyed by image paths, got {type(values).__name__}")
    # Keys are sub-paths of the image, with or without suffix; the view's name in them is unique.
    return {_name(key): value for key, value in values.items()}


class _Splits:
    """``<split>-middlesplit.txt``: each line is the beginning of the sub-paths ``<month>/<view>`` that belong to it."""

    def __init__(self, root: Path, files: set[str]):
        self.root = root
        self._prefixes: dict[str, str] = {}
        for path in sorted(path for path in files if path.endswith("-middlesplit.txt")):
            split = PurePosixPath(path).name.removesuffix("-middlesplit.txt")
            for line in read_text(root / path, "list of the split").replace("\\", "/").split():
                if self._prefixes.setdefault(line, split) != split:
                    raise DataError(f"{root / path}: {line} belongs to {self._prefixes[line]} as well")
        self._lengths = sorted({len(prefix) for prefix in self._prefixes})
        self._used: set[str] = set()

    def note_unmatched(self) -> None:
        """Count, on stderr, the places of the splits asked for so far that no view belongs to."""
        wanted = {self._prefixes[prefix] for prefix in self._used}
        listed = [prefix for prefix, split in self._prefixes.items() if split in wanted]
        if unmatched := [prefix for prefix in listed if prefix not in self._used]:
            print(
                f"note: {self.root}: {len(unmatched)} of the {len(listed)} places in the lists of {', '.join(sorted(wanted))} "
                f"have no view here: {unmatched[0]} ...",
                file=sys.stderr,
            )

    def require(self, split: str) -> None:
        known = sorted(set(self._prefixes.values()))
        if not known:
            raise DataError(f"{self.root}: the split {split!r} was asked for, but no *-middlesplit.txt lies below it")
        if split not in known:
            raise ConfigError(f"HoliCity split {split!r}: unknown; {self.root} has {', '.join(known)}")

    def of(self, path: str) -> str | None:
        subpath = "/".join(PurePosixPath(path).parts[-2:])
        for length in self._lengths:
            if (split := self._prefixes.get(subpath[:length])) is not None:
                self._used.add(subpath[:length])
                return split
        return None
