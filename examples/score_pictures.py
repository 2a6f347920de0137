"""How well any generator's pictures obey perspective: python examples/score_pictures.py [FOLDER]

Of each picture: the share of its line length within 2 degrees of a vanishing point, 0 where none is found. The points
are the picture's own here; better give the scene's where they are known. Without a folder a street is rendered, and bent.
"""

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from alberti.annotate import annotate_image
from alberti.data.scenes import SceneConfig, render_scenes
from alberti.errors import DataError
from alberti.image_folder import is_picture
from alberti.images import read_image, write_image
from alberti.metrics.perspective import perspective_consistency


def main(folder: str | None = None) -> dict[str, float]:
    place = Path(folder) if folder is not None else _example(Path(tempfile.mkdtemp()))
    paths, found = sorted(path for path in place.glob("*") if is_picture(path.name)), {}
    if not paths:
        raise DataError(f"{place}: expected a folder with pictures in it")
    for path in paths:
        image = read_image(path)
        points = np.array(annotate_image(image)["vanishing_points"]).reshape(-1, 3)
        found[path.name] = perspective_consistency(image, points)["consistency_2"] or 0.0
        print(f"{path.name}: {100 * found[path.name]:.0f} % of the line length within 2 degrees of {len(points)} points")
    return found


def _example(folder: Path) -> Path:
    street = next(iter(render_scenes(["street"], seed=3, config=SceneConfig(width=256, height=256)))).image
    y, x = np.mgrid[:256, :256].astype(np.float32)
    wavy = cv2.remap(street, x + 4 * np.sin(y / 9), y + 4 * np.sin(x / 9), cv2.INTER_LINEAR)
    write_image(folder / "straight.png", street)
    write_image(folder / "wavy.png", wavy)
    return folder


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except DataError as error:
        sys.exit(f"error: {error}")
