"""Depth predictions as files: where they lie, how they are read, and the rules by which they may be resized."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alberti.data.kitti.frames import frame_at
from alberti.errors import ConfigError, DataError
from alberti.images import read_depth
from alberti.metrics.depth import DISPARITY, KB_SIZE, Protocol, check_shape, is_kb_crop
from alberti.reading import read_array, read_json

RESIZES = ("bilinear", "nearest")
SIDECAR = "predictions.json"
"""What ``predict-depth`` says of the predictions beside it."""
_SUFFIXES = (".npy", ".png")


def find_predictions(folder: str | Path, frames: Sequence[Any]) -> tuple[list[Path], list[str]]:
    """The prediction file of every frame, and the ids of frames that have none.

    A frame's file is called ``<id>.npy`` or ``<id>.png`` (``.npy`` first) and lies in ``folder`` or anywhere below it, as
    ``predict-depth`` leaves it for a tree of pictures. KITTI frames, whose pictures have no names of their own, may also
    lie as in KITTI itself, at ``<date>/<drive>/image_02/data/<frame>.npy``.

    Raises:
        DataError: no such folder, or a frame with files of its name in two places.
    """
    folder = Path(folder)
    _check_folder(folder)
    files = _by_name(folder)
    paths, missing = [], []
    for frame in frames:
        found = files.get(frame.id) or files.get(frame) or []
        if len({path.parent for path in found}) > 1:
            raise DataError(f"{folder}: two predictions of {frame.id}: {' and '.join(map(str, found[:2]))}; keep one")
        if found:
            paths.append(min(found, key=lambda path: _SUFFIXES.index(path.suffix.lower())))
        else:
            missing.append(frame.id)
    return paths, missing


def missing_text(folder: str | Path, missing: Sequence[str], frames: Sequence[Any]) -> str:
    """What a person needs to know of predictions that are not there: their names, and what lies there instead."""
    folder = Path(folder)
    ids = {frame.id for frame in frames}
    there = sorted(path for path in _files(folder) if path.stem not in ids and path.name != SIDECAR)
    shown = ", ".join(path.relative_to(folder).as_posix() for path in there[:5]) or "no other file"
    more = f" and {len(there) - 5} more" if len(there) > 5 else ""
    stack = "; one file for all frames is not read: save one per frame" if len(there) == 1 < len(frames) else ""
    return f"{names_missing(missing, len(frames), str(folder))}; found {shown}{more}{stack}"


def names_missing(missing: Sequence[str], count: int, where: str) -> str:
    """How many predictions are missing, and the first ones' names."""
    shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
    return f"{where}: {len(missing)} of {count} predictions are missing (expected <id>.npy or <id>.png): {shown}"


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise DataError(f"{folder}: a file; --predictions is the folder that holds one file per frame, <id>.npy or <id>.png")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of predictions")


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _by_name(folder: Path) -> dict[Any, list[Path]]:
    """Prediction files by the stem of their name, and by the frame of KITTI whose place they have."""
    files: dict[Any, list[Path]] = {}
    for path in _files(folder):
        if path.suffix.lower() in _SUFFIXES:
            files.setdefault(path.stem, []).append(path)
            # a folder may be the drive's own: what it is called counts as well
            if (path.stem.isdigit()) and (frame := frame_at(os.path.abspath(path))) is not None:
                files.setdefault(frame, []).append(path)
    return files


def check_kind(folder: str | Path, alignment: str) -> None:
    """ConfigError if ``predict-depth`` wrote the predictions in ``folder`` and says that they need another alignment."""
    path = Path(folder) / SIDECAR
    if path.is_file():
        values = read_json(path)
        check_kind_fits(values.get("kind") if isinstance(values, dict) else None, alignment, str(path))


def check_kind_fits(kind: str | None, alignment: str, where: str) -> None:
    """ConfigError if predictions of this kind, "metric" or "inverse_relative", cannot be aligned so."""
    if kind == "inverse_relative" and alignment not in DISPARITY:
        raise ConfigError(f"{where}: the predictions are inverse relative depth: score them with --align affine_disparity")
    if kind == "metric" and alignment in DISPARITY:
        raise ConfigError(f"{where}: the predictions are metres: score them with --align none, median or affine_depth")


def read_prediction(path: str | Path) -> np.ndarray:
    """Read a prediction as (H, W) floats: ``.npy`` as it is, a 16-bit PNG divided by 256.

    Raises:
        DataError: the file is damaged, holds Python objects or whole numbers, or is not one (H, W) map.
    """
    path = Path(path)
    if path.suffix.lower() == ".png":
        return read_depth(path)
    array = read_array(path, what="prediction")
    if array.dtype.kind != "f":
        raise DataError(
            f"{path}: expected floats (metres, or inverse relative depth), got {array.dtype}; whole numbers belong in a 16-bit "
            "PNG"
        )
    squeezed = array.reshape([length for length in array.shape if length != 1] or [1])
    if squeezed.ndim != 2:
        raise DataError(f"{path}: expected one (H, W) map, got an array of shape {array.shape}")
    return squeezed.astype(np.float32, copy=False) if squeezed.dtype.itemsize < 4 else squeezed


def check_resize(resize: str | None) -> None:
    """ConfigError unless ``resize`` is None or one of :data:`RESIZES`."""
    if resize is not None and resize not in RESIZES:
        raise ConfigError(f"resize (--resize-predictions): expected one of {', '.join(RESIZES)}, got {resize!r}")


def resize_prediction(prediction: np.ndarray, shape: tuple[int, int], resize: str | None, protocol: Protocol) -> np.ndarray:
    """Resize a prediction to the ground truth's (H, W) by the named rule, where one is given and the sizes differ.

    Values are interpolated as they are (depth as depth, inverse depth as inverse depth), with pixel centres at
    x' = (x + 0.5) s - 0.5. Where the protocol has a KB window, a prediction of that crop is brought to its size, no other.

    Raises:
        DataError: it is no copy of the whole picture; see :func:`alberti.metrics.depth.check_shape`.
    """
    if resize is None or prediction.shape == shape or (protocol.kb_window and prediction.shape == KB_SIZE):
        return prediction
    check_shape(prediction.shape, shape, protocol)
    if protocol.kb_window and is_kb_crop(prediction.shape, shape):
        shape = KB_SIZE
    import cv2

    how = cv2.INTER_LINEAR if resize == "bilinear" else cv2.INTER_NEAREST_EXACT
    if prediction.dtype.itemsize > 8:
        prediction = prediction.astype(np.float64)  # long doubles are not OpenCV's
    resized: np.ndarray = cv2.resize(np.ascontiguousarray(prediction), (shape[1], shape[0]), interpolation=how)
    return resized
