"""A plain folder of pictures, with optional depth maps and captions.

Layout: pictures anywhere below the root, or below ``images/`` where there is such a folder; a depth map has the
picture's path below ``depth/`` with the suffix of its format. Captions: ``captions.json`` ({path: text}),
``captions.jsonl`` or ``metadata.jsonl`` (rows with ``file_name`` and ``text``), else ``<picture>.txt`` beside a
picture.
"""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from alberti.data.depth_formats import check_depth_format
from alberti.data.fingerprint import FileIndex, scan
from alberti.data.manifest import Sample
from alberti.data.source import Source
from alberti.data.sources import layout_error
from alberti.errors import ConfigError, DataError
from alberti.files import read_json
from alberti.geometry.camera import Camera
from alberti.images import IMAGE_SUFFIXES

_CAPTION_FILES = ("captions.json", "captions.jsonl", "metadata.jsonl")


def open_folder(
    root: Path,
    index: FileIndex,
    *,
    depth: bool | None = None,
    depth_format: str = "png16",
    depth_scale: float = 256.0,
    depth_kind: str = "z",
    fov: float | None = None,
) -> Source:
    """Open a folder of pictures.

    Args:
        depth: True: every picture must have a depth map; False: depth is left alone; None: as the folder ``depth/`` is
        there. depth_format, depth_scale: see :mod:`alberti.data.depth_formats`; stored units a metre.
        depth_kind: "z", "inverse" or "relative".
        fov: horizontal field of view in degrees, the same for all; None: intrinsics unknown.

    Raises:
        DataError: no pictures, a picture without its depth map, malformed captions.
    """
    check_depth_format(depth_format)
    if depth_kind not in ("z", "inverse", "relative"):
        raise ConfigError(f"folder: depth_kind: expected z, inverse or relative, got {depth_kind!r}")
    base = "images/" if (root / "images").is_dir() else ""
    files = {entry.path for entry in scan(root)}
    images = sorted(
        path
        for path in files
        if path.startswith(base) and PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES and not path.startswith("depth/")
    )
    if not images:
        raise layout_error(root, f"pictures ({', '.join(IMAGE_SUFFIXES)}) below {base or 'it'}")
    has_depth = (root / "depth").is_dir() if depth is None else depth
    if has_depth and not (root / "depth").is_dir():
        raise layout_error(root, "a folder depth/ with a map for each picture")
    suffix = {"npy": ".npy"}.get(depth_format, ".npz" if depth_format.startswith("npz:") else ".png")
    depth_of = {path: _depth_path(path, base, suffix) for path in images} if has_depth else {}
    missing = [value for value in depth_of.values() if value not in files]
    if missing:
        raise DataError(f"{root / missing[0]}: no such depth map ({len(missing)} of {len(images)} are missing)")
    captions = _Captions(root, base, files)

    def samples() -> Iterator[Sample]:
        index.prefetch([*images, *depth_of.values()])
        for path in images:
            width, height = index.image_size(path)
            camera = None if fov is None else Camera.from_fov(fov, width, height)
            yield Sample(
                id=_id(path.removeprefix(base)),
                image=path,
                depth=depth_of.get(path),
                width=width,
                height=height,
                intrinsics=None if camera is None else camera.intrinsics,
                caption=captions.of(path),
                sha256=index.digests(image=path, depth=depth_of.get(path)),
            )

    return Source(
        "folder",
        root,
        samples(),
        depth_kind=depth_kind if has_depth else None,
        depth_format=depth_format,
        depth_scale=depth_scale,
        notes="plain folder",
    )


def _depth_path(path: str, base: str, suffix: str) -> str:
    return str(PurePosixPath("depth") / PurePosixPath(path.removeprefix(base)).with_suffix(suffix))


def _id(path: str) -> str:
    """The path as one name. The suffix stays: a.jpg and a.png are two pictures."""
    return path.replace("/", "_").lstrip(".")


class _Captions:
    """Captions by picture, from the folder's one caption file or from text files beside the pictures."""

    def __init__(self, root: Path, base: str, files: set[str]):
        self._root, self._base, self._files = root, base, files
        found = [name for prefix in dict.fromkeys(("", base)) for name in (prefix + file for file in _CAPTION_FILES)]
        found = [name for name in found if name in files]
        if len(found) > 1:
            raise DataError(f"{root}: captions stand in {' and in '.join(found)}; keep one of them")
        self._table = _read_captions(root / found[0]) if found else None

    def of(self, path: str) -> str | None:
        if self._table is not None:
            return self._table.get(path, self._table.get(path.removeprefix(self._base)))
        text = str(PurePosixPath(path).with_suffix(".txt"))
        if text not in self._files:
            return None
        try:
            return (self._root / text).read_text(encoding="utf-8").strip() or None
        except UnicodeDecodeError as error:
            raise DataError(f"{self._root / text}: a caption must be UTF-8 text ({error})") from None


def _read_captions(path: Path) -> dict[str, str]:
    if path.suffix == ".json":
        values = read_json(path)
        if not isinstance(values, dict) or not all(isinstance(text, str) for text in values.values()):
            raise DataError(f"{path}: expected an object of image path: caption")
        return values
    captions = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            captions[str(row["file_name"])] = str(row["text"])
        except (json.JSONDecodeError, KeyError, TypeError):
            raise DataError(f"{path}, line {number}: expected an object with file_name and text") from None
    return captions
