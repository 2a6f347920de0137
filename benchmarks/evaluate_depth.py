"""Time and memory of ``evaluate-depth`` on synthetic files of KITTI's sizes, and of its parts against plain loops.

    python benchmarks/evaluate_depth.py [--images 697] [--workers 2] [--folder DIR]

Writes about 3.8 MB an image (a 1242 x 375 prediction, a scan of 120,000 points) below DIR and deletes it. Prints JSON.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from alberti.data.kitti import KittiReader, KittiRecord, lidar_depth, write_kitti
from alberti.geometry.camera import Camera
from alberti.metrics import PROTOCOLS, depth_metrics

CAMERA = Camera(721.5377, 721.5377, 609.5593, 172.854, 1242, 375)
POINTS = 120_000


def scan(random: np.random.Generator) -> np.ndarray:
    """A scan like KITTI's: 64 rings, all round, on a ground plane 1.7 m below and walls 15 m to the sides."""
    azimuth = np.tile(np.linspace(-np.pi, np.pi, POINTS // 64, endpoint=False), 64)
    elevation = np.repeat(np.radians(np.linspace(-24.8, 2, 64)), POINTS // 64)
    direction = np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], axis=1)
    ground = np.where(direction[:, 2] < 0, 1.7 / np.maximum(-direction[:, 2], 1e-6), np.inf)
    walls = 15 / np.maximum(np.abs(direction[:, 1]), 0.1)
    distance = np.minimum(ground, walls) * random.normal(1, 0.01, len(azimuth))
    return np.concatenate([direction * distance[:, None], random.random((len(azimuth), 1))], axis=1).astype(np.float32)


def write_files(folder: Path, images: int) -> None:
    """Write the scans in KITTI's layout, their list, and a prediction each."""
    random = np.random.default_rng(0)
    image = np.zeros((CAMERA.height, CAMERA.width, 3), dtype=np.uint8)
    points = scan(random)
    records = (KittiRecord(image, CAMERA, "test", points=points * (1 + k / 10_000)) for k in range(images))
    frames = write_kitti(folder, records)
    (folder / "predictions").mkdir()
    base = random.uniform(3, 40, (CAMERA.height, CAMERA.width)).astype(np.float32)
    for k, frame in enumerate(frames):
        np.save(folder / "predictions" / f"{frame.id}.npy", base * (1 + k / 10_000))


def run_command(folder: Path, images: int, workers: int) -> dict[str, float]:
    """Seconds and peak memory (of the largest process) of the command on the first ``images`` frames."""
    lines = (folder / "splits" / "test.txt").read_text().splitlines()[:images]
    (folder / "part.txt").write_text("\n".join(lines))
    options = ["--predictions", folder / "predictions", "--kitti", folder / "raw", "--split", folder / "part.txt"]
    options += ["--protocol", "eigen_garg", "--out", folder / "out.json", "--workers", workers]
    start = time.perf_counter()
    command = [sys.executable, "-m", "alberti.cli", "evaluate-depth", *map(str, options)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"images": images, "seconds": round(seconds, 2), "peak_mb": round(peak)}


def plain_projection(points: np.ndarray, projection: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same ground truth, duplicates searched one by one."""
    width, height = size
    points = points[points[:, 0] >= 0]
    u, v, w = projection @ np.concatenate([points[:, :3], np.ones((len(points), 1))], axis=1).T
    column, row = np.round(u / w) - 1, np.round(v / w) - 1
    seen = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    column, row, depth = column[seen].astype(int), row[seen].astype(int), points[seen, 0]
    image = np.zeros((height, width), dtype=np.float32)
    image[row, column] = depth
    index = row * (width - 1) + column - 1
    for pixel, count in Counter(index.tolist()).items():
        if count > 1:
            same = np.where(index == pixel)[0]
            image[row[same[0]], column[same[0]]] = depth[same].min()
    return image


def milliseconds(function, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return round(1000 * statistics.median(times), 2)


def parts(folder: Path) -> dict[str, float | bool]:
    """Milliseconds an image of projection and metrics, beside the plain projection, and whether the two agree."""
    reader = KittiReader(folder)
    frame = reader.frames()[0]
    points, calibration = reader.read_scan(frame), reader.calibration(frame)
    arguments = (points, calibration.velo_to_image(), calibration.size)
    target = lidar_depth(*arguments, "lidar_forward")
    mask = PROTOCOLS["eigen_garg"].valid(target)
    return {
        "read_scan_ms": milliseconds(lambda: reader.read_scan(frame), 15),
        "projection_ms": milliseconds(lambda: lidar_depth(*arguments, "lidar_forward"), 15),
        "plain_projection_ms": milliseconds(lambda: plain_projection(*arguments), 3),
        "projections_equal": bool(np.array_equal(target, plain_projection(*arguments))),
        "metrics_ms": milliseconds(lambda: depth_metrics(target + 1, target, mask), 15),
        "scored_pixels": int(mask.sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=697)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to write; the system's temporary folder if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_files(folder, options.images)
        few, all_of_them = max(options.images // 7, 1), options.images
        # the smaller run first: ru_maxrss only grows, so equal peaks mean that memory does not depend on the count
        runs = [run_command(folder, count, options.workers) for count in (few, all_of_them)]
        print(json.dumps({"workers": options.workers, "runs": runs, "parts": parts(folder)}, indent=2))


if __name__ == "__main__":
    main()
