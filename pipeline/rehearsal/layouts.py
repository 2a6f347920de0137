"""Rendered streets written as HoliCity, Virtual KITTI 2 and SYNTHIA-AL lay their own files out.

What a file says (depth, camera, vanishing points) is what was rendered, in the data set's own units and axes. KITTI has a
writer in the library, :func:`alberti.data.kitti.write_kitti`.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from alberti.data.scenes import RenderedScene
from alberti.files import write_text
from alberti.geometry.camera import Camera

HOLICITY_SUPPORT = 400
"""The confidence that every vanishing point is written with; HoliCity's own range up to 1000."""
_SYNTHIA_UNITS = (2**24 - 1) / 5000.0
_SKY_16 = 65535


def write_holicity_view(root: Path, month: str, name: str, scene: RenderedScene, *, with_label: bool = True) -> str:
    """Write ``<month>/<name>_{imag.jpg,dpth.npz,camr.npz,vpts.npz}``, a tree for each kind, as the archives unpack.

    ``fov`` is the scene's own in degrees (HoliCity: always 90). ``with_label`` False leaves the vanishing points out.

    Returns:
        The picture's path below ``root``.
    """
    image = root / "image" / month / f"{name}_imag.jpg"
    _save(image, Image.fromarray(scene.image))
    _save_npz(root / "depth-v1" / month / f"{name}_dpth.npz", depth=scene.depth[..., None])
    fov = 2 * math.degrees(math.atan(scene.camera.width / 2 / scene.camera.fx))
    _save_npz(root / "camr-v1" / month / f"{name}_camr.npz", R=np.eye(4), q=np.array([1.0, 0, 0, 0]), fov=np.float64(fov))
    if with_label:
        directions = _opengl_directions(scene.vanishing_points, scene.camera)
        confidence = np.full(len(directions), HOLICITY_SUPPORT)
        _save_npz(root / "vpts-v1" / month / f"{name}_vpts.npz", vpts=directions, confidence=confidence)
    return image.relative_to(root).as_posix()


def write_holicity_lists(root: Path, splits: dict[str, Sequence[str]], captions: dict[str, str]) -> None:
    """Write ``split-all-v1-bugfix/<split>-middlesplit.txt`` and the paper's ``captions_depth.json``.

    Args:
        splits: pictures' paths, as :func:`write_holicity_view` returns them, by split.
        captions: by the same paths.
    """
    for split, paths in splits.items():
        views = ["/".join(Path(path).parts[-2:]).removesuffix("_imag.jpg") for path in paths]
        write_text(root / "split-all-v1-bugfix" / f"{split}-middlesplit.txt", "".join(f"{view}\n" for view in views))
    write_text(root / "captions_depth.json", json.dumps(captions, indent=1))


def _opengl_directions(points: np.ndarray, camera: Camera) -> np.ndarray:
    """(K, 3) homogeneous pixels -> unit directions in OpenGL camera axes (x right, y up, z towards the viewer)."""
    directions = np.linalg.solve(camera.matrix(), np.asarray(points, np.float64).reshape(-1, 3).T).T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * (1.0, -1.0, -1.0)


def write_vkitti2(root: Path, scene_name: str, variation: str, scenes: Sequence[RenderedScene], camera: int = 0) -> None:
    """Write one sequence of one camera: ``frames/{rgb,depth}/Camera_<n>/`` and ``intrinsic.txt``.

    Depth is z in centimetres, 16 bits, what is not there 65535. ``scenes`` are the frames from 00000 on.
    """
    take = root / scene_name / variation
    rows = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"]
    for frame, scene in enumerate(scenes):
        _save(take / f"frames/rgb/Camera_{camera}/rgb_{frame:05d}.jpg", Image.fromarray(scene.image))
        centimetres = np.where(scene.depth > 0, np.rint(scene.depth * 100.0).clip(1, _SKY_16 - 1), _SKY_16)
        _save(take / f"frames/depth/Camera_{camera}/depth_{frame:05d}.png", Image.fromarray(centimetres.astype(np.uint16)))
        rows.append(f"{frame} {camera} " + " ".join(f"{value:.6f}" for value in scene.camera.intrinsics))
    write_text(take / "intrinsic.txt", "\n".join(rows) + "\n")


def write_synthia_al(root: Path, split: str, take: str, scenes: Sequence[RenderedScene]) -> None:
    """Write one take, ``<sequence>/<date>``: ``RGB``, ``Depth`` and ``calib_kitti`` by frame, from 000000 on.

    Depth is 24 bits in the channels of a PNG, 5000 m full scale, which is also what sky has. The principal point is
    counted from the picture's corner, half a pixel more than from the first pixel's centre.
    """
    folder = root / split / take
    for frame, scene in enumerate(scenes):
        name = f"{frame:06d}"
        _save(folder / "RGB" / f"{name}.png", Image.fromarray(scene.image))
        stored = np.where(scene.depth > 0, np.rint(scene.depth.astype(np.float64) * _SYNTHIA_UNITS), 2**24 - 1).astype(
            np.uint32
        )
        channels = [(stored >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)]
        opaque = np.full(stored.shape, 255, np.uint8)
        _save(folder / "Depth" / f"{name}.png", Image.fromarray(np.dstack([*channels, opaque])))
        fx, fy, cx, cy = scene.camera.intrinsics
        matrix = f"{fx} 0 {cx + 0.5} 0 0 {fy} {cy + 0.5} 0 0 0 1 0"
        lines = [f"P{number}: {matrix}" for number in range(4)]
        write_text(folder / "calib_kitti" / f"{name}.txt", "\n".join(lines) + "\n")


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95)  # heard by JPEG alone


def _save_npz(path: Path, **arrays: np.ndarray | np.generic) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
