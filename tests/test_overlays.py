"""Overlays: the right colours in the right places, and the picture itself untouched."""

import numpy as np
import pytest

from alberti.overlays import (
    COLOURS,
    HORIZON,
    UNASSIGNED,
    draw_annotation,
    draw_horizon,
    draw_segments,
    draw_vanishing_lines,
)


def looks(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Antialiased lines are a little off their colour."""
    return bool(np.abs(pixels.astype(int) - colour).max() < 40)


BLACK = np.zeros((100, 200, 3), dtype=np.uint8)


def test_segments_have_the_colour_of_their_point() -> None:
    segments = np.array([[10.0, 20, 190, 20], [10, 50, 190, 50], [10, 80, 190, 80]])
    drawn = draw_segments(BLACK, segments, [0, -1, len(COLOURS) + 1], thickness=1)
    assert looks(drawn[20, 100], COLOURS[0])
    assert looks(drawn[50, 100], UNASSIGNED)
    assert looks(drawn[80, 100], COLOURS[1])
    assert not drawn[35].any()
    assert not BLACK.any()


def test_horizon_is_clipped_and_may_miss_the_picture() -> None:
    drawn = draw_horizon(BLACK, (0, 1, -30))
    assert looks(drawn[30, 2:-2], HORIZON)
    assert not draw_horizon(BLACK, (0, 1, -300)).any()
    assert not draw_horizon(BLACK, (0, 0, 1)).any()
    slanted = draw_horizon(BLACK, (1, -1, 0))
    assert looks(slanted[40, 40], HORIZON)


def test_vanishing_lines_pass_through_their_point() -> None:
    for point in ([300.0, 50, 1], [1.0, 0, 0], [100.0, 50, 1]):
        drawn = draw_vanishing_lines(BLACK, np.array([point]), count=8)
        ys = np.nonzero(drawn.any(axis=2))[0]
        assert len(ys) > 200
        if point[2]:
            continue
        assert (np.bincount(ys, minlength=100)[np.unique(ys)] > 180).all()  # a point at infinity in x: level lines
    assert not draw_vanishing_lines(BLACK, np.zeros((2, 3))).any()


def test_annotation_marks_points_that_lie_in_the_picture_and_survives_those_that_do_not() -> None:
    points = np.array([[100.0, 50, 1], [1, 0, 0], [1e9, 1e9, 1e-9]])
    drawn = draw_annotation(BLACK, np.zeros((0, 4)), [], points, None)
    assert looks(drawn[50, 100], (255, 255, 255))
    assert drawn.shape == BLACK.shape


def test_a_horizon_without_the_distortion_is_drawn_where_the_picture_has_it() -> None:
    """A barrel brings the ends of what lies above the middle down towards it."""
    k, canvas = -0.3, np.zeros((300, 400, 3), dtype=np.uint8)
    drawn = draw_horizon(canvas, (0, 1, -60), distortion=k)
    for x in (20, 199, 380):
        shown = drawn[:, x, 0].astype(float)
        assert np.count_nonzero(shown) <= 4
        away = np.array([x - 199.5, shown @ np.arange(300) / shown.sum() - 149.5]) / 250
        assert away[1] / (1 + k * (away**2).sum()) * 250 + 149.5 == pytest.approx(60, abs=1)
    straight = draw_horizon(canvas, (0, 1, -150), distortion=k)
    shown = straight[:, :, 0].astype(float)
    np.testing.assert_allclose(np.arange(300) @ shown / shown.sum(axis=0), 150, atol=0.2)
    assert not draw_horizon(canvas, (0, 1, -60), distortion=0.0)[:59].any()
    assert not draw_horizon(canvas, (0, 0, 1), distortion=k).any()


def test_points_without_the_distortion_are_drawn_where_the_picture_has_them() -> None:
    k, canvas, away = -0.3, np.zeros((300, 400, 3), dtype=np.uint8), np.array([150.0, -90.0])
    straight = away / (1 + k * (away**2).sum() / 250**2) + [199.5, 149.5]
    drawn = draw_annotation(canvas, np.zeros((0, 4)), [], np.array([[*straight, 1]]), None, distortion=k)
    y, x = np.nonzero(drawn.any(axis=2))
    np.testing.assert_allclose([x.mean(), y.mean()], away + np.array([199.5, 149.5]), atol=1)
    infinite = draw_annotation(canvas, np.zeros((0, 4)), [], np.array([[1.0, 0, 0]]), None, distortion=0.1)
    assert not infinite.any()
