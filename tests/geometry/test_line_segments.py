"""Line segments: where edges are, what is one edge, and pictures that are none."""

import cv2
import numpy as np
import pytest

from alberti.errors import DataError
from alberti.geometry import line_segments
from alberti.geometry.line_segments import default_min_length, detect_line_segments, merge_line_segments, to_gray


def half_plane(size: int, normal: np.ndarray, point: np.ndarray) -> np.ndarray:
    """A picture, bright where n . (p - point) > 0, antialiased over 8 x 8 samples a pixel."""
    places = (np.arange(size * 8) + 0.5) / 8 - 0.5
    x, y = np.meshgrid(places, places)
    bright = ((x - point[0]) * normal[0] + (y - point[1]) * normal[1] > 0).astype(np.float64)
    shares = bright.reshape(size, 8, size, 8).mean(axis=(1, 3))
    return np.rint(40 + 160 * shares).astype(np.uint8)


@pytest.mark.parametrize("size", [150, 400, 601])  # full size, between, at 0.6
def test_an_edge_is_found_to_a_few_hundredths_of_a_pixel(size: int) -> None:
    generator = np.random.default_rng(0)
    for _ in range(8):
        angle = generator.uniform(0, 2 * np.pi)
        normal = np.array([np.cos(angle), np.sin(angle)])
        point = size / 2 + generator.uniform(-5, 5, 2)
        segments = detect_line_segments(half_plane(size, normal, point))
        ends = segments[0].reshape(2, 2)
        assert np.hypot(*(ends[1] - ends[0])) > 0.8 * size
        assert np.abs((ends - point) @ normal).max() < 0.05


def test_a_shrunk_search_gives_the_pictures_own_pixels() -> None:
    normal, point = np.array([0.6, 0.8]), np.array([203.0, 188.0])
    picture = half_plane(400, normal, point)
    ends = detect_line_segments(picture, max_side=128)[0].reshape(2, 2)
    assert np.abs((ends - point) @ normal).max() < 0.3


def test_gray_rgb_and_float_pictures_agree() -> None:
    gray = half_plane(200, np.array([0.8, -0.6]), np.array([100.0, 100.0]))
    expected = detect_line_segments(gray)
    assert len(expected) == 1
    np.testing.assert_array_equal(detect_line_segments(np.stack([gray] * 3, axis=2)), expected)
    np.testing.assert_array_equal(detect_line_segments(gray[..., None]), expected)
    np.testing.assert_array_equal(detect_line_segments(gray / 255.0), expected)


def test_segments_come_longest_first_and_not_too_short() -> None:
    picture = np.full((300, 300), 220, dtype=np.uint8)
    for index, length in enumerate((20, 60, 100, 35)):
        cv2.rectangle(picture, (20, 30 + 60 * index), (20 + length, 60 + 60 * index), 40, -1)
    segments = detect_line_segments(picture, min_length=25)
    lengths = np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1])
    assert (np.diff(lengths) <= 0).all()
    assert lengths.min() >= 25
    assert np.isclose(lengths, 101, atol=3).sum() == 2  # top and bottom of the longest


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (3, 3), (500, 2), (64, 64), (64, 64, 3)])
def test_blank_and_tiny_pictures_have_none(shape: tuple[int, ...]) -> None:
    assert detect_line_segments(np.full(shape, 128, dtype=np.uint8)).shape == (0, 4)


def test_default_length_grows_with_the_picture() -> None:
    assert default_min_length(128, 128) == 8
    assert default_min_length(2000, 2000) == 40


def test_both_shapes_of_opencv_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = half_plane(200, np.array([0.8, -0.6]), np.array([100.0, 100.0]))
    expected = detect_line_segments(picture)
    create = cv2.createLineSegmentDetector

    class Other:
        def __init__(self, shape: tuple[int, ...], **options: object):
            self.shape, self.real = shape, create(**options)

        def detect(self, image: np.ndarray) -> tuple[np.ndarray, None, None, None]:
            return self.real.detect(image)[0].reshape(self.shape), None, None, None

    for shape in ((-1, 4), (-1, 1, 4)):
        monkeypatch.setattr(line_segments.cv2, "createLineSegmentDetector", lambda s=shape, **o: Other(s, **o))
        np.testing.assert_array_equal(detect_line_segments(picture), expected)


@pytest.mark.parametrize(
    "image",
    [np.zeros((0, 5), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.int32), np.full((9, 9), np.nan)],
)
def test_what_is_no_picture_is_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="image"):
        detect_line_segments(image)


def test_pieces_of_one_edge_become_one_segment() -> None:
    pieces = np.array([[10.0, 20, 60, 30], [70, 32, 130, 44], [135, 45, 160, 50]])
    merged = merge_line_segments(pieces[[2, 0, 1]])
    np.testing.assert_allclose(merged, [[10, 20, 160, 50]], atol=0.3)


@pytest.mark.parametrize(
    "pair",
    [
        [[0.0, 0, 100, 0], [0, 3, 100, 3]],  # parallel
        [[0.0, 0, 100, 0], [210, 0, 250, 0]],  # far apart
        [[0.0, 0, 100, 0], [101, 0, 150, 8]],  # bent
        [[0.0, 0, 100, 0], [150, 0, 105, 0]],  # in line, but dark on the other side
    ],
)
def test_what_is_not_one_edge_stays_apart(pair: list[list[float]]) -> None:
    assert len(merge_line_segments(np.array(pair))) == 2


def test_merging_does_not_depend_on_the_order_and_is_finished() -> None:
    generator = np.random.default_rng(3)
    start = generator.uniform(0, 200, (60, 2))
    angle = generator.choice([0.1, 1.2, 2.0], 60)
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1) * generator.uniform(10, 50, (60, 1))
    pieces = np.concatenate([start, start + along], axis=1)
    merged = merge_line_segments(pieces)
    assert len(merged) < len(pieces)
    np.testing.assert_allclose(merge_line_segments(pieces[generator.permutation(60)]), merged, atol=1e-9)


def test_merging_nothing_gives_nothing() -> None:
    assert merge_line_segments(np.zeros((0, 4))).shape == (0, 4)


def test_floats_up_to_255_are_no_picture_and_overshoot_is() -> None:
    with pytest.raises(DataError, match=r"floats up to 255, expected \[0, 1\]"):
        to_gray(np.array([[0.0, 255.0]]))
    np.testing.assert_array_equal(to_gray(np.array([[-0.1, 1.2]])), [[0, 255]])
