"""Crops and sizes: geometry moves with the pixels, depth is never blended, several sources become one data set."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from native_layouts import gray16, synthia, vkitti2
from pydantic import ValidationError

from alberti.data.config import CaptionConfig, Fit
from alberti.data.crops import crop_boxes
from alberti.data.manifest import Dataset
from alberti.data.source import Source
from alberti.data.sources import limited, open_source, write_fitted
from alberti.errors import ConfigError, DataError
from alberti.geometry.camera import Camera
from alberti.images import write_image


def write(sources: list[Source], out: Path, fit: Fit, **options: object) -> Dataset:
    out.mkdir()
    return write_fitted(sources, out, role="condition", fit=fit, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "fit", "boxes"),
    [
        ((1242, 375), Fit(width=512, height=512), [(433, 0, 375, 375)]),
        (
            (1242, 375),
            Fit(width=512, height=512, rule="crops_along"),
            [(0, 0, 375, 375), (433, 0, 375, 375), (867, 0, 375, 375)],
        ),
        ((640, 480), Fit(width=512, height=512, rule="crops_along"), [(80, 0, 480, 480)]),
        ((480, 1000), Fit(width=64, height=64, rule="crops_along"), [(0, 0, 480, 480), (0, 520, 480, 480)]),
        ((100, 100), Fit(width=64, height=32), [(0, 25, 100, 50)]),
        ((512, 512), Fit(width=512, height=512, rule="crops_along"), [(0, 0, 512, 512)]),
        ((3, 1000), Fit(width=512, height=8), [(0, 499, 3, 1)]),
    ],
)
def test_boxes_cover_the_size(size: tuple[int, int], fit: Fit, boxes: list[tuple[int, int, int, int]]) -> None:
    assert crop_boxes(size, fit) == boxes


def test_crops_lie_inside_side_by_side_from_edge_to_edge() -> None:
    random = np.random.default_rng(0)
    for width, height, w, h in random.integers(8, 3000, (200, 4)):
        boxes = crop_boxes((width, height), Fit(width=w, height=h, rule="crops_along"))
        for x0, y0, box_width, box_height in boxes:
            assert 0 <= x0 <= width - box_width
            assert 0 <= y0 <= height - box_height
            assert abs(box_width * h / w - box_height) <= max(0.5, 0.5 * h / w) or min(box_width, box_height) == 1
            assert box_width == width or box_height == height, "the frame is just covered"
        for (x0, y0, box_width, box_height), (x1, y1, _, _) in itertools.pairwise(boxes):
            assert x1 - x0 >= box_width or y1 - y0 >= box_height, "no overlap"
        if len(boxes) > 1:
            assert boxes[0][:2] == (0, 0)
            assert (boxes[-1][0] + boxes[-1][2], boxes[-1][1] + boxes[-1][3]) == (width, height)


def one_view(root: Path, width: int, height: int) -> Source:
    """A folder with one picture in which red and depth mark the projection of a known point."""
    image = np.zeros((height, width, 3), np.uint8)
    image[20:24, 70:74] = (255, 0, 0)
    root.mkdir()
    write_image(root / "a.png", image)
    depth = np.zeros((height, width), np.uint16)
    depth[::3, ::3] = 256 * 7
    depth[20:24, 70:74] = 256 * 30
    gray16(root / "depth" / "a.png", depth)
    source = open_source("folder", root, fov=80)
    (sample,) = source.samples
    camera = Camera.from_fov(80, width, height)
    direction = camera.matrix() @ np.array([0.1, 0.02, 1.0])
    point = tuple(direction / np.linalg.norm(direction))
    row = sample.model_copy(update={"vanishing_points": [point, (1.0, 0.0, 0.0)], "vanishing_points_source": "true"})
    return Source("folder", root, [row], notes="one view")


@pytest.mark.parametrize("size", [(64, 64), (20, 20), (48, 24)])
def test_image_depth_camera_and_points_move_together(tmp_path: Path, size: tuple[int, int]) -> None:
    dataset = write([one_view(tmp_path / "set", 124, 40)], tmp_path / "out", Fit(width=size[0], height=size[1]))
    (sample,) = dataset
    assert (sample.width, sample.height) == size
    old, new = Camera.from_fov(80, 124, 40), dataset.camera(sample)
    assert new is not None
    # The ray through the middle of the mark (71.5, 21.5) meets the new picture where the new camera says.
    ray = np.linalg.inv(old.matrix()) @ [71.5, 21.5, 1.0]
    expected = (new.matrix() @ ray)[:2]
    red = dataset.read_image(sample)[..., 0].astype(float)
    middle = [(red.sum(axis) * np.arange(red.shape[1 - axis])).sum() / red.sum() for axis in (0, 1)]
    np.testing.assert_allclose(middle, expected, atol=0.35)
    depth = dataset.read_depth(sample)
    np.testing.assert_allclose(np.argwhere(depth == 30).mean(axis=0)[::-1], expected, atol=0.75)
    assert set(np.unique(depth)) <= {0.0, 7.0, 30.0}, "measurements are neither blended nor invented"
    assert sample.vanishing_points is not None
    points = np.array(sample.vanishing_points)
    direction = new.matrix() @ np.array([0.1, 0.02, 1.0])
    np.testing.assert_allclose(points[0], direction / np.linalg.norm(direction), atol=1e-9)
    np.testing.assert_allclose(points[1], [1, 0, 0], atol=1e-12)
    assert sample.vanishing_points_source == "true"


def test_several_sources_become_one_data_set(tmp_path: Path) -> None:
    vkitti2(tmp_path / "vk", frames=2)
    synthia(tmp_path / "sy")
    sources = [
        open_source("vkitti2", tmp_path / "vk", scenes=["Scene18"]),
        limited(open_source("synthia_al", tmp_path / "sy"), 1),
        open_source("vkitti2", tmp_path / "vk", scenes=["Scene01"], variations=["fog"], every=2),
    ]
    captions = CaptionConfig(template="a street")
    dataset = write(sources, tmp_path / "out", Fit(width=32, height=32, rule="crops_along"), captions=captions)
    assert [sample.id for sample in dataset] == [
        *(f"vkitti2_Scene18_clone_0_0000{frame}_{crop}" for frame in (0, 1) for crop in (0, 1, 2)),
        "synthia_al_train_test5_10segs_weather_2_spawn_1_12-11-2018_12-47-37_000101",
        *(f"vkitti2_2_Scene01_fog_0_00000_{crop}" for crop in (0, 1, 2)),
    ]
    assert {sample.caption for sample in dataset} == {"a street"}
    Dataset.open(tmp_path / "out", check_files=True)
    vk, sy = dataset.read_depth(dataset[0]), dataset.read_depth(dataset[6])
    assert (vk[0, 0], vk[-1, 0]) == (0, np.float32(12.34))
    np.testing.assert_array_equal(sy, np.float32(131 * 256 * 5000 / (2**24 - 1)))
    assert dataset.read_image(dataset[6]).shape == (32, 32, 3)
    assert dataset.info.name == "vkitti2+synthia_al"


def test_bytes_do_not_depend_on_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alberti.data.crops._WORTH_PROCESSES", 1)
    vkitti2(tmp_path / "vk", frames=2)
    fit = Fit(width=32, height=32, rule="crops_along")
    for workers in (1, 2):
        write([open_source("vkitti2", tmp_path / "vk")], tmp_path / str(workers), fit, workers=workers)
    one, two = (sorted(path for path in (tmp_path / name).rglob("*") if path.is_file()) for name in "12")
    assert [path.relative_to(tmp_path / "1") for path in one] == [path.relative_to(tmp_path / "2") for path in two]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_unknown_parts_stay_unknown(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_image(tmp_path / "set" / "a.png", np.zeros((20, 30, 3), np.uint8))
    (sample,) = write([open_source("folder", tmp_path / "set")], tmp_path / "out", Fit(width=16, height=16))
    assert (sample.depth, sample.intrinsics, sample.vanishing_points) == (None, None, None)


def test_bad_input(tmp_path: Path) -> None:
    for values in ({"width": 512}, {"width": 512, "height": 4}, {"width": 64, "height": 64, "rule": "stretch"}):
        with pytest.raises(ValidationError):
            Fit.model_validate(values)
    vkitti2(tmp_path / "vk", frames=1)
    relative = Source("other", tmp_path, [], depth_kind="relative")
    with pytest.raises(ConfigError, match="kinds relative, z"):
        write([open_source("vkitti2", tmp_path / "vk"), relative], tmp_path / "a", Fit(width=32, height=32))
    depth = tmp_path / "vk" / "Scene01/clone/frames/depth/Camera_0/depth_00000.png"
    gray16(depth, np.full((10, 10), 100))
    with pytest.raises(DataError, match=r"depth_00000\.png: 10 x 10 pixels, but the manifest says 124 x 37"):
        write([open_source("vkitti2", tmp_path / "vk")], tmp_path / "b", Fit(width=32, height=32))
    assert not list((tmp_path / "b").glob("*.json"))
