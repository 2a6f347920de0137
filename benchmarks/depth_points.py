"""Vanishing points from depth maps: error in degrees and milliseconds, with and without the camera. Prints JSON.

    python benchmarks/depth_points.py [--streets 200] [--holicity FOLDER]

Renders: depth as it is; rounded to 1/256 m as in a 16-bit PNG; and as Virtual KITTI 2 stores it, in centimetres with a sky of
655.35 m, four crowns of trees (ragged discs of 12 to 22 % of the height) set before it. An error is a true point's distance
to the nearest that was found, as directions. HoliCity: the depth map of one view against the planes of its own normal map,
which come from the city's CAD model; `found` are the points' distances to the nearest of them.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from alberti.data.scenes import SceneConfig, render_scenes
from alberti.geometry.camera import Camera, vanishing_points_to_directions
from alberti.geometry.depth_points import _planes, points_of_depth

SIZES = {"street": (128, 128), "kitti": (320, 96)}


def degrees(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, M) angles between directions without sign; 90 where there is none to compare with."""
    if not len(other):
        return np.full((len(one), 1), 90.0)
    found: np.ndarray = np.degrees(np.arccos(np.clip(np.abs(one @ other.T), 0, 1)))
    return found


def like_virtual_kitti(depth: np.ndarray, random: np.random.Generator) -> np.ndarray:
    height, width = depth.shape
    y, x = np.mgrid[:height, :width]
    for _ in range(4):
        middle, radius = (random.uniform(0, width), random.uniform(0, 0.6 * height)), height * random.uniform(0.12, 0.22)
        crown = ((x - middle[0]) ** 2 + (y - middle[1]) ** 2 < radius**2) & (random.random(depth.shape) < 0.85)
        depth = np.where(crown, random.uniform(8, 40) + random.uniform(-1.5, 1.5, depth.shape), depth)
    return np.round(np.where(depth == 0, 655.35, np.minimum(depth, 655.35)), 2)


def renders(options: argparse.Namespace, camera: str) -> dict[str, Any]:
    width, height = SIZES[camera]
    random = np.random.default_rng(0)
    errors: dict[str, list[float]] = {}
    seconds, sources, focals = [], [], []
    config = SceneConfig(width=width, height=height, camera=camera)
    ids = [f"street-{index}" for index in range(options.streets)]
    for scene in render_scenes(ids, seed=options.seed, config=config, with_images=False):
        true = vanishing_points_to_directions(scene.vanishing_points, scene.camera)
        rough = like_virtual_kitti(scene.depth, random)
        cases = {
            "depth": (scene.depth, scene.camera),
            "16-bit PNG": (np.round(scene.depth * 256) / 256, scene.camera),
            "sky, trees, centimetres": (rough, scene.camera),
            "no camera": (scene.depth, None),
            "no camera; sky, trees, centimetres": (rough, None),
        }
        for name, (depth, known) in cases.items():
            start = time.perf_counter()
            found = points_of_depth(depth, known)
            if name == "depth":
                seconds.append(time.perf_counter() - start)
            if name == "no camera":
                sources.append(found.camera_source)
                focals.append(found.camera.fx / scene.camera.fx)
            directions = vanishing_points_to_directions(found.points, scene.camera)
            errors.setdefault(name, []).extend(degrees(true, directions).min(axis=1))
    estimated = np.array([source == "estimated" for source in sources])
    return {
        "pixels": [width, height],
        "milliseconds": round(1000 * float(np.median(seconds)), 1),
        "focal_estimated_share": round(float(estimated.mean()), 3),
        "estimated_focal_over_true_median": round(float(np.median(np.array(focals)[estimated])), 4)
        if estimated.any()
        else None,
        **{name: summary(np.array(values)) for name, values in errors.items()},
    }


def summary(values: np.ndarray) -> dict[str, float]:
    return {
        "points": len(values),
        "median_degrees": round(float(np.median(values)), 4),
        "p90_degrees": round(float(np.percentile(values, 90)), 3),
        "over_2_degrees": round(float((values > 2).mean()), 4),
    }


def holicity(folder: Path) -> dict[str, Any]:
    depth = np.load(next(folder.glob("*_dpth.npz")))["depth"][..., 0]
    normals = np.load(next(folder.glob("*_nrml.npz")))["normal"].astype(np.float64) * [1, -1, -1]
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    planes, areas = _planes(np.where(length > 0.5, normals / np.maximum(length, 1e-9), 0))
    result: dict[str, Any] = {"plane_areas": areas.round(3).tolist()}
    camera = Camera(256, 256, 255.5, 255.5, 512, 512)
    for name, known in (("camera", camera), ("no camera", None)):
        start = time.perf_counter()
        found = points_of_depth(depth, known)
        seconds = time.perf_counter() - start
        angles = degrees(planes, vanishing_points_to_directions(found.points, camera))
        result[name] = {
            "planes_degrees": angles.min(axis=1).round(2).tolist(),
            "found_degrees": angles.min(axis=0).round(2).tolist(),
            "focal": [found.camera_source, round(found.camera.fx, 1)],
            "milliseconds": round(1000 * seconds, 1),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streets", type=int, default=200, help="rendered for each camera")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--holicity", type=Path, help="folder of a HoliCity view: *_dpth.npz and *_nrml.npz")
    options = parser.parse_args()
    result = {camera: renders(options, camera) for camera in SIZES}
    if options.holicity is not None:
        result["holicity"] = holicity(options.holicity)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
