"""The strip of pictures: columns of sets for square pictures, rows of sets for wide ones."""

from pathlib import Path

import numpy as np
import pytest
from alberti.report.seed_figures import strip

from alberti.data.scenes import SceneConfig, render_dataset


@pytest.mark.parametrize(("width", "columns", "rows"), [(64, 3, 2), (208, 2, 3)])
def test_strip_has_a_tile_for_every_set_and_scene(tmp_path: Path, width: int, columns: int, rows: int) -> None:
    config = SceneConfig(width=width, height=64, supersample=1)
    data = render_dataset(tmp_path, name="streets", role="condition", count=2, seed=0, config=config)
    picture = strip({"depth": data, "render": data, "arm": data}, [sample.id for sample in data], "lines")
    tile_width, tile_height = (256, 256) if width == 64 else (448, 138)
    assert abs(picture.shape[1] - columns * tile_width) < 10 * columns
    assert rows * tile_height < picture.shape[0] < rows * (tile_height + 64) + 30
    last = picture[-tile_height - 40 :, -tile_width:]
    assert np.ptp(last) > 100
