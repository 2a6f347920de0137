"""The picture strip: every arm's picture of the same depth map and seed, with lines and vanishing lines as vectors."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from alberti.data.manifest import Dataset, Sample
from alberti.data.sources import evenly
from alberti.errors import DataError
from alberti.geometry.line_segments import detect_line_segments
from alberti.geometry.vanishing_points import assign_segments
from alberti.metrics.perspective import segments_consistency
from alberti.report.inputs import ReportInputs

_WITHIN = 2.0
_NUM_LINES = 500
_RAYS = 18
_POINTS = 4
"""Vanishing points that get a colour of their own; further ones share the last."""


@dataclass(frozen=True)
class Line:
    """A line of an overlay in pixels; ``point`` is the vanishing point it belongs to, None for none."""

    x1: float
    y1: float
    x2: float
    y2: float
    point: int | None


@dataclass(frozen=True)
class Picture:
    """One tile of the strip."""

    label: str
    kind: str
    """"depth", "reference" or "arm"."""
    data_uri: str
    width: int
    height: int
    segments: tuple[Line, ...] = ()
    rays: tuple[Line, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Scene:
    """A row of the strip: one depth map."""

    id: str
    caption: str
    pictures: tuple[Picture, ...]


def choose_samples(inputs: ReportInputs) -> list[str]:
    """Ids of ``inputs.pictures`` scenes that every arm drew, evenly spread over the condition set's order."""
    if not inputs.generated:
        return []
    drawn = [{sample.id for sample in dataset} for dataset in inputs.generated.values()]
    common = [sample.id for sample in inputs.condition if all(sample.id in ids for ids in drawn)]
    return evenly(common, inputs.pictures) if common else []


def build_gallery(inputs: ReportInputs, ids: Sequence[str]) -> list[Scene]:
    """The scenes of the strip: depth map, the picture that belongs to it where there is one, then every arm's."""
    return [_scene(inputs, sample_id) for sample_id in ids]


def _scene(inputs: ReportInputs, sample_id: str) -> Scene:
    condition = inputs.condition.by_id(sample_id)
    pictures = [_depth_picture(inputs.condition, condition)]
    if condition.image is not None:
        pictures.append(_picture("reference", "reference", inputs.condition, condition))
    pictures += [_picture(arm, "arm", dataset, dataset.by_id(sample_id)) for arm, dataset in inputs.generated.items()]
    return Scene(sample_id, condition.caption or "", tuple(pictures))


def _picture(label: str, kind: str, dataset: Dataset, sample: Sample) -> Picture:
    image = dataset.read_image(sample)
    points = np.asarray(sample.vanishing_points or [], np.float64).reshape(-1, 3)
    segments = detect_line_segments(image)
    share = segments_consistency(segments, points, sample.width, sample.height, (_WITHIN,))[f"consistency_{_WITHIN:g}"]
    return Picture(
        label,
        kind,
        data_uri(image),
        sample.width,
        sample.height,
        tuple(_coloured(segments, points)),
        tuple(_rays(points, sample.width, sample.height)),
        "no lines" if share is None else f"{share:.0%} within {_WITHIN:g}°",
    )


def _coloured(segments: np.ndarray, points: np.ndarray) -> list[Line]:
    assigned = assign_segments(segments, points, _WITHIN)
    return [_line(segment, int(point) if point >= 0 else None) for segment, point in zip(segments, assigned, strict=True)]


def _line(ends: np.ndarray, point: int | None) -> Line:
    x1, y1, x2, y2 = (float(value) for value in ends)
    return Line(x1, y1, x2, y2, point)


def _rays(points: np.ndarray, width: int, height: int) -> list[Line]:
    """Lines from points spread along the picture's border through each vanishing point, across the picture."""
    perimeter = np.linspace(0, 4, _RAYS, endpoint=False)
    side, along = perimeter.astype(int), perimeter % 1
    x = np.choose(side, [along, np.ones(_RAYS), 1 - along, np.zeros(_RAYS)]) * width - 0.5
    y = np.choose(side, [np.zeros(_RAYS), along, np.ones(_RAYS), 1 - along]) * height - 0.5
    reach = float(np.hypot(width, height))
    lines = []
    for index, point in enumerate(points):
        towards = point[:2] - point[2] * np.column_stack([x, y])
        norm = np.linalg.norm(towards, axis=1)
        for start_x, start_y, (dx, dy), length in zip(x, y, towards, norm, strict=True):
            if length > 0:
                step = reach / length
                lines.append(Line(start_x - dx * step, start_y - dy * step, start_x + dx * step, start_y + dy * step, index))
    return lines


def _depth_picture(dataset: Dataset, sample: Sample) -> Picture:
    depth = dataset.read_depth(sample)
    return Picture("depth", "depth", data_uri(paint_depth(depth)), sample.width, sample.height)


def profiles_of(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Perspective profiles of a picture (H, W, 3) uint8: (K, 500) for (K, 3) vanishing points."""
    import torch

    from alberti.data.transforms import to_tensor
    from alberti.losses.perspective import perspective_profile

    profile = perspective_profile(to_tensor(image)[None], torch.from_numpy(points).float()[None], num_lines=_NUM_LINES)
    return profile[0].numpy()


def paint_depth(depth: np.ndarray) -> np.ndarray:
    """(H, W) metres as (H, W, 3) uint8: near bright, far dark, by inverse depth between its 2nd and 98th percentile."""
    from matplotlib import colormaps

    known = depth > 0
    inverse = np.where(known, 1 / np.where(known, depth, 1), 0)
    low, high = np.percentile(inverse[known], [2, 98]) if known.any() else (0.0, 1.0)
    value = np.clip((inverse - low) / max(high - low, 1e-12), 0, 1)
    return (colormaps["magma"](0.08 + 0.9 * value)[..., :3] * 255 * known[..., None] + 0.5).astype(np.uint8)


def data_uri(image: np.ndarray) -> str:
    """A (H, W, 3) uint8 picture as a data URI: PNG when small, else JPEG of high quality."""
    small = image.shape[0] * image.shape[1] <= 256 * 256
    buffer = io.BytesIO()
    if small:
        Image.fromarray(image).save(buffer, "PNG", optimize=True)
    else:
        Image.fromarray(image).save(buffer, "JPEG", quality=90)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def file_uri(path: Path) -> str:
    """A PNG or JPEG file as a data URI; DataError if it is not there."""
    kind = {".png": "png", ".jpg": "jpeg"}.get(path.suffix)
    if kind is None or not path.is_file():
        raise DataError(f"{path}: expected a PNG or JPEG file of `python -m pipeline.results --figures`")
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def point_class(line: Line) -> str:
    """The style class of an overlay's line."""
    return "vp-none" if line.point is None else f"vp-{min(line.point, _POINTS - 1)}"
