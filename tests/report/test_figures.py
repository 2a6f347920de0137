"""Figures in files: the strips of pictures, and everything that is written for the documentation."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from alberti.data.manifest import Dataset
from alberti.data.scenes import SceneConfig, render_dataset
from alberti.errors import DataError
from alberti.overlays import COLOURS
from alberti.report.figures import arms_to_draw, strip, write_figures
from alberti.report.inputs import ReportInputs
from alberti.report.summary import summarise


@pytest.mark.parametrize(("width", "columns", "rows"), [(64, 3, 2), (208, 2, 3)])
def test_strip_has_a_tile_for_every_set_and_scene(tmp_path: Path, width: int, columns: int, rows: int) -> None:
    """Columns of sets for square pictures, rows of sets for wide ones."""
    config = SceneConfig(width=width, height=64, supersample=1)
    data = render_dataset(tmp_path, name="streets", role="condition", count=2, seed=0, config=config)
    picture = strip({"depth": data, "render": data, "arm": data}, [sample.id for sample in data], "lines")
    tile_width, tile_height = (256, 256) if width == 64 else (448, 138)
    assert abs(picture.shape[1] - columns * tile_width) < 10 * columns
    assert rows * tile_height < picture.shape[0] < rows * (tile_height + 64) + 30
    last = picture[-tile_height - 40 :, -tile_width:]
    assert np.ptp(last) > 100


def test_all_figures_are_written_and_the_first_pictures_are_bare(inputs: ReportInputs, workspace: Path, tmp_path: Path) -> None:
    summary = summarise(inputs)
    condition = Dataset.open(workspace / "data" / "condition")
    sets = {"depth": condition, "render": condition} | {arm: inputs.generated[arm] for arm in arms_to_draw(summary)}
    paths = write_figures(summary, sets, tmp_path, scenes=1)
    assert [path.name for path in paths] == ["arms.png", "pictures.jpg", "lines.jpg", "vanishing_lines.jpg", "profiles.png"]
    images = [cv2.imread(str(path)) for path in paths]
    assert all(image is not None and image.std() > 5 for image in images)
    green = [int((np.abs(image[..., ::-1].astype(int) - COLOURS[1]).max(-1) < 40).sum()) for image in images[1:3]]
    assert green[0] == 0, "nothing is drawn on bare pictures"
    assert green[1] > 100


def test_arms_to_draw(inputs: ReportInputs) -> None:
    summary = summarise(inputs)
    assert arms_to_draw(summary) == ["base", "unconstrained", "constrained", "guided"]
    with pytest.raises(DataError, match="nothing: not an arm with pictures"):
        arms_to_draw(summary, ["nothing"])
    with pytest.raises(DataError, match="nothing to draw"):
        arms_to_draw({"images": {}})
