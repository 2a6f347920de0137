"""Depth predictions as files: where they lie, how they are read, and the rules by which they may be resized."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alberti.errors import ConfigError, DataError
from alberti.files import read_json
from alberti.images import read_depth
from alberti.metrics.depth import KB_SIZE, Protocol

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
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of predictions")
    files = _by_stem(folder)
    paths, missing = [], []
    for frame in frames:
        found = files.get(frame.id) or _in_kitti_s_place(folder, frame)
        if len({path.parent for path in found}) > 1:
            raise DataError(f"{folder}: two predictions of {frame.id}: {' and '.join(map(str, found[:2]))}; keep one")
        if found:
            paths.append(min(found, key=lambda path: _SUFFIXES.index(path.suffix)))
        else:
            missing.append(frame.id)
    return paths, missing


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix in _SUFFIXES:
                files.setdefault(stem, []).append(Path(parent, name))
    return files


def _in_kitti_s_place(folder: Path, frame: Any) -> list[Path]:
    if not hasattr(frame, "drive"):
        return []
    place = folder / frame.date / frame.drive / f"image_0{frame.camera}" / "data"
    candidates = (place / f"{frame.index:010d}{suffix}" for suffix in _SUFFIXES)
    return [path for path in candidates if path.is_file()]


def check_kind(folder: str | Path, alignment: str) -> None:
    """ConfigError if ``predict-depth`` wrote the predictions in ``folder`` and says that they need another alignment."""
    path = Path(folder) / SIDECAR
    if not path.is_file():
        return
    values = read_json(path)
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind == "inverse_relative" and alignment != "affine_disparity":
        raise ConfigError(f"{path}: the predictions are inverse relative depth: score them with --align affine_disparity")
    if kind == "metric" and alignment == "affine_disparity":
        raise ConfigError(f"{path}: the predictions are metres: score them with --align none or median")


def read_prediction(path: str | Path) -> np.ndarray:
    """Read a prediction as (H, W) floats: ``.npy`` as it is, a 16-bit PNG divided by 256.

    Raises:
        DataError: the file is damaged, holds Python objects or whole numbers, or is not one (H, W) map.
    """
    path = Path(path)
    if path.suffix == ".png":
        return read_depth(path)
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot read as a .npy array ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        kind = getattr(array, "dtype", type(array).__name__)
        raise DataError(
            f"{path}: expected floats (metres, or inverse relative depth), got {kind}; whole numbers belong in a 16-bit PNG"
        )
    squeezed = array.reshape([length for length in array.shape if length != 1] or [1])
    if squeezed.ndim != 2:
        raise DataError(f"{path}: expected one (H, W) map, got an array of shape {array.shape}")
    return squeezed.astype(np.float32, copy=False) if squeezed.dtype.itemsize < 4 else squeezed


def check_resize(resize: str | None) -> None:
    """ConfigError unless ``resize`` is None or one of :data:`RESIZES`."""
    if resize is not None and resize not in RESIZES:
        raise ConfigError(f"resize: expected one of {', '.join(RESIZES)}, got {resize!r}")


def resize_prediction(prediction: np.ndarray, shape: tuple[int, int], resize: str | None, protocol: Protocol) -> np.ndarray:
    """Resize a prediction to the ground truth's (H, W) by the named rule, where one is given and the sizes differ.

    Values are interpolated as they are (depth as depth, inverse depth as inverse depth), with pixel centres at
    x' = (x + 0.5) s - 0.5. Where the protocol has a KB window, a prediction of that window is left as it is.
    """
    if resize is None or prediction.shape == shape or (protocol.kb_window and prediction.shape == KB_SIZE):
        return prediction
    if prediction.ndim != 2:
        return prediction  # refused when it is scored, with its shape
    import cv2

    how = cv2.INTER_LINEAR if resize == "bilinear" else cv2.INTER_NEAREST_EXACT
    resized: np.ndarray = cv2.resize(np.ascontiguousarray(prediction), (shape[1], shape[0]), interpolation=how)
    return resized
