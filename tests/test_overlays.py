"""Overlays: the right colours in the right places, and the picture itself untouched."""

import numpy as np

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
