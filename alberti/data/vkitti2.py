"""Virtual KITTI 2 (Cabon et al. 2020): rendered driving with exact depth.

Layout: ``SceneXX/<variation>/frames/{rgb,depth}/Camera_{0,1}/{rgb_NNNNN.jpg,depth_NNNNN.png}`` and
``SceneXX/<variation>/intrinsic.txt``, all in one tree or in the trees of the three archives
(``vkitti_2.0.3_{rgb,depth,textgt}/SceneXX/...``). Depth is z in centimetres, 16-bit, sky 65535.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from alberti.data.fingerprint import FileIndex
from alberti.data.manifest import Sample
from alberti.data.sequences import Intrinsics, Shot, check_intrinsics, scaled_intrinsics, sequence_samples
from alberti.data.source import Source
from alberti.data.sources import folders, layout_error, matching
from alberti.errors import ConfigError, DataError
from alberti.image_folder import is_picture
from alberti.reading import read_lines

_LAYOUT = "Virtual KITTI 2's SceneXX/<variation>/frames/rgb/Camera_0/rgb_00000.jpg"
_INTRINSICS = (725.0087, 725.0087, 620.5, 187.0)
"""What intrinsic.txt holds for every frame of the 1242 x 375 release; used where that archive was not downloaded."""
_SIZE = (1242, 375)


def open_vkitti2(
    root: Path,
    index: FileIndex,
    *,
    scenes: Sequence[str] | None = None,
    variations: Sequence[str] | None = None,
    cameras: Sequence[int] = (0,),
    every: int = 1,
) -> Source:
    """Open Virtual KITTI 2 at ``root``.

    Args:
        scenes: say ("Scene01", "Scene18"); None: all.
        variations: say ("clone", "fog"); None: all that the scenes have.
        cameras: 0 (left), 1 (right) or both.
        every: keep every n-th frame of a sequence.

    Raises:
        DataError: another layout, no such scene or variation, an image without its depth map.
    """
    if every < 1:
        raise ConfigError(f"vkitti2: every: expected at least 1, got {every}")
    if not cameras or not set(cameras) <= {0, 1}:
        raise ConfigError(f"vkitti2: cameras: expected 0, 1 or both, got {list(cameras)}")
    trees = _Trees(root)
    sequences = list(_sequences(root, trees.rgb, scenes, variations, cameras))

    def samples() -> Iterator[Sample]:
        for scene, variation, camera in sequences:
            yield from _sequence(root, trees, scene, variation, camera, every, index)

    notes = "Virtual KITTI 2, native layout"
    return Source("vkitti2", root, samples(), depth_format="vkitti2", depth_scale=100.0, notes=notes)


class _Trees:
    """Which folder below the root holds the scenes' colour, depth and text: "" or an archive's own, with a slash."""

    def __init__(self, root: Path):
        names = list(folders(root))
        if any(name.startswith("Scene") for name in names):
            self.rgb = self.depth = self.text = ""
            return
        trees = {
            kind: [name for name in names if name.startswith("vkitti_2") and name.endswith(f"_{kind}")]
            for kind in ("rgb", "depth", "textgt")
        }
        if not trees["rgb"] or not trees["depth"]:
            raise layout_error(root, f"{_LAYOUT}, or vkitti_2.0.3_rgb/ and vkitti_2.0.3_depth/ with the scenes in them")
        self.rgb, self.depth = trees["rgb"][0] + "/", trees["depth"][0] + "/"
        self.text = trees["textgt"][0] + "/" if trees["textgt"] else self.rgb


def _sequences(
    root: Path, tree: str, scenes: Sequence[str] | None, variations: Sequence[str] | None, cameras: Sequence[int]
) -> Iterator[tuple[str, str, int]]:
    base = root / tree
    found_scenes = [name for name in folders(base) if name.startswith("Scene")]
    for scene in matching(scenes, found_scenes, "scene", base):
        for variation in matching(variations, folders(base / scene), "variation", base / scene):
            for camera in sorted(set(cameras)):
                if not (base / scene / variation / "frames" / "rgb" / f"Camera_{camera}").is_dir():
                    raise layout_error(base / scene / variation, f"frames/rgb/Camera_{camera}/ ({_LAYOUT})")
                yield scene, variation, camera


def _sequence(
    root: Path, trees: _Trees, scene: str, variation: str, camera: int, every: int, index: FileIndex
) -> Iterator[Sample]:
    take = f"{scene}/{variation}"
    rgb, depth = f"{trees.rgb}{take}/frames/rgb/Camera_{camera}", f"{trees.depth}{take}/frames/depth/Camera_{camera}"
    names = sorted(path.name for path in (root / rgb).iterdir() if path.name.startswith("rgb_") and is_picture(path.name))[
        ::every
    ]
    if not names:
        raise layout_error(root / rgb, "rgb_NNNNN.jpg")
    if not (root / depth).is_dir():
        raise DataError(f"{root / depth}: no such folder; the depth archive of Virtual KITTI 2 belongs beside the colour")
    intrinsics = _read_intrinsics(root / f"{trees.text}{take}/intrinsic.txt", camera)
    frames = [name.removeprefix("rgb_").partition(".")[0] for name in names]
    for name, frame in zip(names, frames, strict=True):
        if not frame.isdigit():
            raise DataError(f"{root / rgb / name}: expected rgb_NNNNN.jpg ({_LAYOUT})")
    depth_of = {path.stem.removeprefix("depth_"): path.name for path in (root / depth).iterdir() if is_picture(path.name)}
    shots = [
        Shot(
            id=f"{scene}_{variation}_{camera}_{frame}",
            image=f"{rgb}/{name}",
            depth=f"{depth}/{depth_of.get(frame, f'depth_{frame}.png')}",
            intrinsics=partial(_of_frame, intrinsics, frame, root / trees.text / take),
        )
        for name, frame in zip(names, frames, strict=True)
    ]
    yield from sequence_samples(root, index, shots)


def _of_frame(table: dict[int, Intrinsics] | None, frame: str, where: Path, size: tuple[int, int]) -> Intrinsics:
    """The camera of a frame of ``size``: the release's, scaled to a resized copy, or that of the copy's own text file."""
    if table is None:
        if size != _SIZE:
            raise DataError(f"{where}/intrinsic.txt: missing, and {size[0]} x {size[1]} is not the release's 1242 x 375")
        return _INTRINSICS
    if int(frame) not in table:
        raise DataError(f"{where}/intrinsic.txt: no row for frame {int(frame)}")
    found = table[int(frame)]
    if np.allclose(found, _INTRINSICS, rtol=0, atol=2):
        return scaled_intrinsics(found, _SIZE, size, f"{where}/intrinsic.txt")
    return check_intrinsics(found, size, f"{where}/intrinsic.txt")


def _read_intrinsics(path: Path, camera: int) -> dict[int, Intrinsics] | None:
    """Frame -> (fx, fy, cx, cy) from lines ``frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]`` under a header."""
    if not path.is_file():
        return None
    table = {}
    for number, line in read_lines(path, "camera file"):
        if number == 1 and not line.split()[0].isdigit():
            continue
        try:
            frame, of, fx, fy, cx, cy = line.split()
            if int(of) == camera:
                table[int(frame)] = (float(fx), float(fy), float(cx), float(cy))
        except ValueError:
            raise DataError(f"{path}, line {number}: expected frame, camera, fx, fy, cx, cy; got {line!r:.80}") from None
    return table
