"""Segments moved onto edges: from beside them, with noise, and where there is none."""

import numpy as np
import pytest

from alberti.geometry.segment_edges import move_onto_edges


def edge(normal: np.ndarray, point: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """(200, 200), bright where n . (p - point) > 0, with a linear ramp of two pixels."""
    y, x = np.mgrid[:200, :200]
    distance = (x - point[0]) * normal[0] + (y - point[1]) * normal[1]
    values = 60 + 120 * np.clip(distance / 2 + 0.5, 0, 1) + np.random.default_rng(0).normal(0, noise, distance.shape)
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


@pytest.mark.parametrize("angle", [0.0, 17.0, 45.0, 90.0, 131.0, 200.0])
@pytest.mark.parametrize(("noise", "limit"), [(0.0, 0.05), (6.0, 0.1)])
def test_a_segment_beside_its_edge_is_moved_onto_it(angle: float, noise: float, limit: float) -> None:
    normal = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    along, point = np.array([-normal[1], normal[0]]), np.array([101.3, 98.6])
    ends = np.array([point - 60 * along + 0.9 * normal, point + 60 * along - 0.6 * normal])
    for order in ([0, 1], [1, 0]):  # which side is darker does not matter
        moved = move_onto_edges(edge(normal, point, noise), ends[order].reshape(1, 4))[0].reshape(2, 2)
        assert np.abs((moved - point) @ normal).max() < limit
        np.testing.assert_allclose((moved - ends[order]) @ along, 0, atol=0.02)


def test_an_occluder_on_a_third_of_the_edge_does_not_pull_it() -> None:
    normal, point = np.array([0.0, 1.0]), np.array([100.0, 100.0])
    picture = edge(normal, point)
    picture[101:104, 40:75] = 60  # there the edge is two pixels lower
    moved, edges = move_onto_edges(picture, np.array([[40.0, 100.5, 160.0, 100.2]]))
    assert np.abs(moved[0, [1, 3]] - 100).max() < 0.15
    x, y = edges.places[0].T
    assert not edges.seen[0, (x > 42) & (x < 73)].any()  # another edge is no bend of this one
    assert np.abs(y[edges.seen[0]] - 100).max() < 0.3
    assert edges.seen[0].sum() >= 14


def test_without_an_edge_segments_stay() -> None:
    segments = np.array([[20.0, 30, 90, 60], [5, 5, 100, 5]])
    np.testing.assert_array_equal(move_onto_edges(np.full((120, 120), 90, dtype=np.uint8), segments)[0], segments)
    assert move_onto_edges(np.zeros((20, 20), dtype=np.uint8), np.zeros((0, 4)))[0].shape == (0, 4)


def test_short_segments_stay() -> None:
    segments = np.array([[95.0, 100.4, 110, 100.2], [60, 100.4, 140, 100.2]])
    moved = move_onto_edges(edge(np.array([0.0, 1.0]), np.array([100.0, 100.0])), segments)[0]
    np.testing.assert_array_equal(moved[0], segments[0])
    assert np.abs(moved[1, [1, 3]] - 100).max() < 0.05


def test_many_segments_are_the_same_as_one_by_one() -> None:
    """More places than OpenCV maps in one call."""
    normal, point = np.array([0.6, 0.8]), np.array([100.0, 100.0])
    picture = edge(normal, point, 3.0)
    generator = np.random.default_rng(1)
    segments = np.tile(np.concatenate([point - 50 * np.array([-0.8, 0.6]), point + 50 * np.array([-0.8, 0.6])]), (3000, 1))
    segments += generator.normal(0, 0.5, segments.shape)
    moved = move_onto_edges(picture, segments)[0]
    for index in (0, 1333, 1334, 2999):
        np.testing.assert_allclose(moved[index], move_onto_edges(picture, segments[index : index + 1])[0][0], atol=1e-9)


def test_edges_are_measured_from_the_smallest_segment_that_is_fitted_on() -> None:
    normal, point = np.array([0.0, 1.0]), np.array([100.0, 100.0])
    segments = np.array([[40.0, 100.6, 160.0, 99.7], [95.0, 100.4, 110, 100.2]])
    edges = move_onto_edges(edge(normal, point), segments)[1]
    assert edges.places.shape == (1, 24, 2)
    assert edges.lengths[0] == pytest.approx(120 * 0.9 * 23 / 24, abs=0.1)
    assert np.abs(edges.places[0, :, 1] - 100).max() < 0.05
