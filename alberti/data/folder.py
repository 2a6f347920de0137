"""A plain folder of pictures, with optional depth maps and captions.

Layout: pictures anywhere below the root, or below ``images/`` where there is such a folder; a depth map has the
picture's path below ``depth/`` with the suffix of its format. Captions: see :mod:`alberti.data.caption_files`.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from alberti.data.caption_files import read_captions
from alberti.data.depth_formats import check_depth_format
from alberti.data.fingerprint import FileIndex, scan
from alberti.data.manifest import Sample, new_sample
from alberti.data.source import Source
from alberti.data.sources import layout_error
from alberti.errors import ConfigError, DataError
from alberti.files import sha256_json
from alberti.geometry.camera import Camera
from alberti.image_folder import LeftOut, find_images, no_pictures

_ARRAYS = (".npy", ".npz", ".exr", ".pfm")
_LONGEST_ID = 180
"""Letters of an id: it becomes a file's name, and those have 255 bytes."""
_DATA_NAMES = (
    "depth", "depths", "depth_map", "depth_maps", "depthmap", "depthmaps", "depth_vis", "disparity", "disparities", "disp",
    "mask", "masks", "normal", "normals", "seg", "segmentation", "semantic", "semantics", "label", "labels",
)  # fmt: skip
"""What folders and endings of names are called that hold data of a picture, not pictures."""


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
        there. depth_format, depth_scale: see :mod:`alberti.data.depth_formats`; stored units per metre.
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
    left_out = LeftOut()
    found = find_images(root / base, on_error=_unreadable(root / base), left_out=left_out)
    images = sorted(base + path for path in found)
    images = [path for path in images if not path.startswith("depth/")]
    if not images:
        raise no_pictures(root / base, left_out)
    if note := left_out.note():
        print(f"note: {root}: {note}", file=sys.stderr)
    _check_names(root, base, images)
    _check_photographs(root, images, index)
    has_depth = (root / "depth").is_dir() if depth is None else depth
    if has_depth and not (root / "depth").is_dir():
        raise layout_error(root, "a folder depth/ with a map for each picture")
    suffix = {"npy": ".npy"}.get(depth_format, ".npz" if depth_format.startswith("npz:") else ".png")
    depth_of = _depth_maps(root, base, images, suffix, files) if has_depth else {}
    _note_unread(root, files, depth_of)
    captions = read_captions(root, files, images)

    def samples() -> Iterator[Sample]:
        index.prefetch([*images, *depth_of.values()])
        for path in images:
            width, height = index.image_size(path)
            camera = None if fov is None else Camera.from_fov(fov, width, height)
            yield new_sample(
                root / path,
                id=_id(path.removeprefix(base)),
                image=path,
                depth=depth_of.get(path),
                width=width,
                height=height,
                intrinsics=None if camera is None else camera.intrinsics,
                caption=captions.get(path),
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


def _unreadable(root: Path) -> Callable[[str, OSError], None]:
    def refuse(folder: str, error: OSError) -> None:
        raise DataError(f"{root / folder}: cannot be listed ({error.strerror})")

    return refuse


def _depth_maps(root: Path, base: str, images: Sequence[str], suffix: str, files: set[str]) -> dict[str, str]:
    """The depth map of every picture; DataError, with what lies there instead, if one is missing."""
    spelled = {path.lower(): path for path in files if path.startswith("depth/")}
    depth_of = {}
    missing = []
    for path in images:
        expected = str(PurePosixPath("depth") / PurePosixPath(path.removeprefix(base)).with_suffix(suffix))
        depth_of[path] = expected if expected in files else spelled.get(expected.lower(), expected)
        if depth_of[path] not in files:
            missing.append(expected)
    if missing:
        count = f"{len(missing)} of {len(images)} are missing"
        raise DataError(f"{root / missing[0]}: no such depth map ({count}){_depth_hint(spelled.values(), suffix)}")
    return depth_of


def _note_unread(root: Path, files: set[str], depth_of: Mapping[str, str]) -> None:
    """Count, on stderr, arrays and depth maps that no picture gets."""
    used = set(depth_of.values())
    extra = sorted(path for path in files if path.startswith("depth/") and path not in used) if depth_of else []
    if extra:
        print(f"note: {root}: {len(extra)} files in depth/ are of no picture: {extra[0]} ...", file=sys.stderr)
    arrays = sorted(path for path in files - used if path.lower().endswith(_ARRAYS) and not path.startswith("depth/"))
    if arrays:
        what = f"{len(arrays)} files of arrays are not read: {arrays[0]} ..."
        print(f"note: {root}: {what}; depth maps are read from depth/<the picture's path>", file=sys.stderr)


def _depth_hint(there: Iterable[str], suffix: str) -> str:
    """What lies in depth/, and how it would be read."""
    there = sorted(there)
    found = Counter(PurePosixPath(path).suffix.lower() for path in there)
    if not found:
        return "; depth/ is empty"
    common = found.most_common(1)[0][0]
    listing = ", ".join(f"{count} {name or 'without suffix'}" for name, count in found.most_common(4))
    formats = {".npy": "npy", ".npz": "npz:KEY (KEY: the array's name)", ".png": "png16"}
    if common != suffix and common in formats:
        return f"; depth/ holds {listing}: set options.depth_format to {formats[common]}"
    return f"; depth/ holds {listing}, such as {there[0]}; a map has its picture's path there, with the suffix {suffix}"


def _check_names(root: Path, base: str, images: Sequence[str]) -> None:
    """DataError if two pictures would get one id."""
    ids: dict[str, str] = {}
    for path in images:
        other = ids.setdefault(_id(path.removeprefix(base)), path)
        if other != path:
            name = _id(path.removeprefix(base))
            raise DataError(f"{root}: sample ids are not unique: {other} and {path} both give {name!r}; rename one of them")


def _check_photographs(root: Path, images: Sequence[str], index: FileIndex) -> None:
    """Refuse depth maps and masks among the pictures: files of more than 8 bits of gray, or named for what they hold."""
    deep = [path for path in images if path.lower().endswith((".png", ".tif", ".tiff")) and index.picture(path).deep_gray]
    wanted = "pictures are read from images/, depth maps from depth/<same path>; move the others away"
    if deep and len(deep) < len(images):
        what = "are gray with more than 8 bits, as depth maps are"
        raise DataError(f"{root}: {len(deep)} of the {len(images)} pictures {what}: {deep[0]}; {wanted}")
    if named := _named_for_data(images):
        what = "are by their names depth, masks or the like of the others"
        raise DataError(f"{root}: {len(named)} of the {len(images)} pictures {what}: {named[0]}; {wanted}")
    if deep:
        what = "all pictures are gray with more than 8 bits, as depth maps are"
        print(f"note: {root}: {what}: is it the right folder?", file=sys.stderr)


def _named_for_data(images: Sequence[str]) -> list[str]:
    """Files whose name or folder says that they hold data of a picture that is there as well."""
    stems = {str(PurePosixPath(path).with_suffix("")) for path in images}
    plain = {PurePosixPath(path).stem for path in images if not _in_data_folder(path)}
    endings = tuple(joint + name for joint in "_-." for name in _DATA_NAMES)

    def is_named(path: str) -> bool:
        stem = str(PurePosixPath(path).with_suffix(""))
        if any(stem.lower().endswith(ending) and stem[: -len(ending)] in stems for ending in endings):
            return True
        return _in_data_folder(path) and PurePosixPath(path).stem in plain

    return [path for path in images if is_named(path)]


def _in_data_folder(path: str) -> bool:
    return any(part.lower() in _DATA_NAMES for part in PurePosixPath(path).parts[:-1])


def _id(path: str) -> str:
    """The path as one name. The suffix stays: a.jpg and a.png are two pictures."""
    name = path.replace("/", "_").replace("\\", "_").lstrip(".") or "_"
    return name if len(name) <= _LONGEST_ID else f"{name[:_LONGEST_ID]}_{sha256_json(name)[:12]}"
