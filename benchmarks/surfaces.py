"""How right the normals of `alberti.geometry.surfaces` are, against those that HoliCity comes with. Prints JSON.

    python benchmarks/surfaces.py HOLICITY

HOLICITY: a folder, at any depth of which views lie as `*_dpth.npz` with `*_nrml.npz` beside it.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from alberti.data.holicity import opengl_to_camera
from alberti.geometry.camera import Camera
from alberti.geometry.surfaces import surface_normals

CAMERA = Camera(256.0, 256.0, 255.5, 255.5, 512, 512)


def compare(depth_file: Path) -> tuple[np.ndarray, dict[str, float]]:
    """Angles in degrees where both know a normal, and the view's shares and seconds."""
    with np.load(depth_file) as stored:
        depth = stored["depth"][..., 0]
    with np.load(depth_file.with_name(depth_file.name.replace("_dpth", "_nrml"))) as stored:
        truth = opengl_to_camera(stored["normal"])
    start = time.perf_counter()
    found = surface_normals(depth, CAMERA)
    seconds = time.perf_counter() - start
    measured = (depth > 0) & (np.linalg.norm(truth, axis=-1) > 0.5)
    both = measured & (found != 0).any(axis=-1)
    cosine = np.abs((found[both] * truth[both]).sum(axis=-1)) / np.linalg.norm(truth[both], axis=-1)
    shares = {"with_plane": float(both.sum() / measured.sum()), "seconds": seconds}
    return np.degrees(np.arccos(np.clip(cosine, 0, 1))), shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("holicity", type=Path)
    options = parser.parse_args()
    files = sorted(options.holicity.rglob("*_dpth.npz"))
    if not files:
        parser.error(f"{options.holicity}: no *_dpth.npz in it")
    views = [compare(file) for file in files]
    angles = np.concatenate([angles for angles, _ in views])
    result: dict[str, Any] = {
        "views": len(views),
        "with_plane": round(float(np.mean([shares["with_plane"] for _, shares in views])), 4),
        "median_degrees": round(float(np.median(angles)), 4),
        **{f"within_{limit}": round(float((angles <= limit).mean()), 4) for limit in (2, 5, 10)},
        "median_seconds": round(float(np.median([shares["seconds"] for _, shares in views])), 4),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
