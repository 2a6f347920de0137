"""Files in the exact layouts of KITTI, Virtual KITTI 2, SYNTHIA-AL and DIODE, for tests of readers, stages and commands."""

from pathlib import Path

import numpy as np
from PIL import Image

from alberti.data.kitti import Frame, KittiRecord, write_kitti
from alberti.geometry.camera import Camera
from alberti.images import write_image

P2 = "P2: 895.692 0 320 0 0 895.692 240 0 0 0 1 0"
TAKE = "test5_10segs_weather_2_spawn_1/12-11-2018_12-47-37"


def picture(path: Path, width: int = 32, height: int = 32, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
    return path


def gray16(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16)).save(path)


def kitti_noise(root: Path, count: int, random: np.random.Generator) -> list[Frame]:
    """``count`` test frames of 64 x 40 with scans and annotated depth, all noise."""
    records = [
        KittiRecord(
            image=random.integers(0, 256, (40, 64, 3), dtype=np.uint8),
            camera=Camera(40, 40, 31.5, 19.5, 64, 40),
            split="test",
            depth=np.rint(random.uniform(1, 70, (40, 64)) * 256) / 256,
            points=random.uniform([2, -20, -5, 0], [60, 20, 2, 1], (3000, 4)),
        )
        for _ in range(count)
    ]
    return write_kitti(root, records)


def vkitti2(root: Path, *, archives: bool = False, frames: int = 3, size: tuple[int, int] = (124, 37)) -> None:
    rgb, depth, text = (root / f"vkitti_2.0.3_{kind}" if archives else root for kind in ("rgb", "depth", "textgt"))
    for scene, variation in (("Scene01", "clone"), ("Scene01", "fog"), ("Scene18", "clone")):
        rows = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"]
        for frame in range(frames):
            for camera in (0, 1):
                take = f"{scene}/{variation}"
                name = f"Camera_{camera}"
                picture(rgb / take / "frames" / "rgb" / name / f"rgb_{frame:05d}.jpg", *size)
                values = np.full(size[::-1], 1234)
                values[0] = 65535
                gray16(depth / take / "frames" / "depth" / name / f"depth_{frame:05d}.png", values)
                rows.append(f"{frame} {camera} 725.0087 725.0087 {620.5 + camera} 187")
        path = text / scene / variation / "intrinsic.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(rows) + "\n")


def synthia(root: Path, split: str = "train", frames: tuple[str, ...] = ("000101", "000102", "000103")) -> Path:
    take = root / split / TAKE
    for kind in ("RGB", "Depth", "SemSeg", "calib_kitti", "labels_kitti"):
        (take / kind).mkdir(parents=True)
    for frame in frames:
        pixels = np.zeros((48, 64, 4), np.uint8)
        pixels[..., 3] = 255
        Image.fromarray(pixels).save(take / "RGB" / f"{frame}.png")
        pixels[..., 1] = 131  # 131 * 256 * 5000 / (2^24 - 1) = 9.9945 m
        Image.fromarray(pixels).save(take / "Depth" / f"{frame}.png")
        (take / "calib_kitti" / f"{frame}.txt").write_text(f"P0: 1 0\nP1: 1 0\n{P2}\nP3: 1 0\n")
    (root / split / "test5_empty" / "12-11-2018_12-47-37").mkdir(parents=True)
    return take


DIODE_NAMES = ("00022_00193_outdoor_010_000", "00023_00198_outdoor_080_010")


def diode(root: Path, size: tuple[int, int] = (32, 24)) -> Path:
    """DIODE's ``val/outdoor`` below ``root``: the left quarter and one pixel of each picture are not measured."""
    random = np.random.default_rng(0)
    for name in DIODE_NAMES:
        scene, scan = name.split("_")[:2]
        folder = root / "val" / "outdoor" / f"scene_{scene}" / f"scan_{scan}"
        picture(folder / f"{name}.png", *size)
        depth = random.uniform(1, 100, (size[1], size[0], 1)).astype(np.float32)
        depth[0, 0] = np.nan
        mask = np.ones(size[::-1], dtype=np.float32)
        mask[:, : size[0] // 4] = 0
        np.save(folder / f"{name}_depth.npy", depth)
        np.save(folder / f"{name}_depth_mask.npy", mask)
    return root
