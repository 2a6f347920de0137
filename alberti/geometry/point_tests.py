"""Is a vanishing point there at all, and how sure is it? A test against chance, and a calibrated confidence.

Against a fixed point, segments of random direction have a likelihood ratio of mean one, so that it exceeds e^t with a
chance of at most e^-t. A point found by search is the best of many: those segments that could have defined it are left
out, and the log of the number of choices is taken off (an a-contrario test, Desolneux et al. 2000).
"""

import math
from dataclasses import dataclass

import numpy as np

from alberti.geometry.manhattan import FocalPrior, Triad, find_candidates, measure_direction, points_to_directions
from alberti.geometry.segment_likelihood import SegmentModel
from alberti.geometry.upright import Upright

_SHARES = np.array([0.03, 0.08, 0.2, 0.4, 0.7, 0.9])
_SIGNIFICANT = np.log(1e4)
"""At most one false point in ten thousand pictures of unrelated segments."""
_LIKELY = np.log(10)
"""Once one point is there, others at right angles to it need less to be believed."""
_CONFIDENCE = (3.5, -1.3, -1.0, -0.9, -2.5)
"""Logistic regression on: 1, log of the spread, whether the noise level is not the least one, whether it is the largest,
whether out of the triad.

Near fits to "within 2 degrees of a true direction" on every second of 51 York Urban images (given their intrinsics, and
not) and of 150 rendered streets of 128 to 384 pixels, both kinds with the same total weight (1195 points): (3.3, -1.4, -0.8,
-1.3) before the principal point was free, (3.6, -1.7, -1.2, -1.0) on all of them after. These are rounded by hand towards what
independent segments ask for, which err less. The last stands on three points only: one in five. Mean confidence less share on
the others: 0.024 on York Urban with intrinsics, 0.017 without, -0.011 on the renders.
"""
_PAST_CHANCE = 25.0
"""Of a world's :attr:`Upright.gain`: 16 was the most in 400 sets of 20 to 300 unrelated segments."""
_ROLLS = 60.0
"""So many rolls of a held camera can be told apart, where the upright direction is not seen."""
_OUT_OF_ORDER = np.log(1e6)
"""A direction at no right angle to the others must be this sure: what is nearly parallel gathers to such points."""
_SAME_POINT = np.cos(np.radians(6.0))
_GATE = 3.0
_FAR_GATE = 6.0
"""Past so many standard deviations a segment is none of a found point's less precise ones either."""
_TESTED = 300
"""The longest segments are evidence enough."""
_ONE_LINE = 0.012
"""Parallel segments nearer than this, in half the longer side, are one line."""


@dataclass(frozen=True)
class FoundPoint:
    """One vanishing point in the frame."""

    point: np.ndarray
    """(3,) homogeneous frame point, unit norm."""
    confidence: float
    evidence: float
    """Log of the likelihood ratio against chance, choices taken off; negative: no support of its own."""
    spread: float
    """Expected angular error in degrees."""


def evidence(model: SegmentModel, points: np.ndarray, free: int, choices: float) -> float:
    """Log likelihood ratio against chance of segments that belong to some of ``points`` (P, 3), less what search buys.

    Args:
        free: number of segments that it took to define the points: the best ones are left out.
        choices: number of sets of points that could have been chosen.
    """
    if len(model) <= free:
        return -np.inf
    ratio = np.pi * model.density(model.sines(points))[0].mean(axis=0)
    ratio = np.sort(ratio)[: len(ratio) - free]
    scores = np.log1p(_SHARES[:, None] * (ratio - 1)[None]).sum(axis=1)
    return float(scores.max() - np.log(len(_SHARES) * max(choices, 1.0)))


def distinct_lines(model: SegmentModel) -> np.ndarray:
    """Indices of segments that are lines of their own: one of several pieces or edges of one thin bar counts once."""
    model = model.take(np.arange(min(len(model), _TESTED)))
    lines, middles = model.lines.astype(np.float32), model.middles.astype(np.float32)
    normals = lines[:, :2]
    distance = np.abs(normals @ middles.T + lines[:, 2:])
    crossed = np.abs(normals @ np.stack([-normals[:, 1], normals[:, 0]]))
    same = (distance < _ONE_LINE) & (crossed < np.sin(np.radians(2.0)))
    kept = np.ones(len(model), dtype=bool)
    for index in np.flatnonzero(np.triu(same, 1).any(axis=1)):
        if kept[index]:
            kept[index + 1 :] &= ~same[index, index + 1 :]
    return np.flatnonzero(kept)


def check_triad(model: SegmentModel, triad: Triad, *, focal_known: bool) -> tuple[list[FoundPoint], bool]:
    """The triad's points, and whether it is there.

    It is there if its best point stands the test alone or all three together do, and if the lines that the best one leaves
    over speak for the other two, which then have one angle (and the focal length) to choose.
    """
    lines = model.take(distinct_lines(model))
    points = triad.points()
    count = float(len(lines))
    alone = np.array([evidence(lines, point[None], 2, count**2 / 2) for point in points])
    order = np.argsort(-alone)
    together = evidence(lines, points, 3 if focal_known else 4, count**3 / 6)
    if max(alone[order[0]], together) < _SIGNIFICANT:
        return [], False
    rest = lines.take(np.flatnonzero(np.abs(lines.sines(points[order[:1]])[0]) > _GATE * lines.sigma))
    others = evidence(rest, points[order[1:]], 1 if focal_known else 2, max(len(rest), 1.0))
    if others < _LIKELY:
        return [], False
    given = [alone[order[0]], evidence(rest, points[order[1:2]], 1, 1.0), evidence(rest, points[order[2:]], 0, 1.0)]
    spreads = triad_spreads(triad)
    return [_found(model, points[k], value, spreads[k], in_triad=True) for k, value in zip(order, given, strict=True)], True


def check_upright(model: SegmentModel, world: Upright) -> tuple[list[FoundPoint], bool]:
    """The points of a world of streets at any angle that stand the test, and whether its horizon is known from them.

    The world is there if one of its points stands the test alone, or several together, or if its log likelihood is past what
    unrelated segments reach. Then each point, best first, has the lines that those before leave over speak for it: a
    direction has one angle to choose there, or, at right angles to one that is already there, only the camera's roll, or
    nothing. The horizon is known from two points or more.
    """
    lines = model.take(distinct_lines(model))
    points = world.points()
    count = float(len(lines))
    alone = [evidence(lines, point[None], 2, count**2 / 2) for point in points]
    if world.gain < _PAST_CHANCE and max(*alone, _together(lines, world)) < _SIGNIFICANT:
        return [], False
    spreads = upright_spreads(world)
    families = [-1, *world.families]
    values: dict[int, float] = {}
    rest = lines
    while len(values) < len(points):
        tests = {}
        for k in range(len(points)):
            if k not in values:
                fixed = k > 0 and families[k] in [families[j] for j in values]
                choices = (1.0 if 0 in values else _ROLLS) if fixed else max(len(rest), 1.0)
                tests[k] = evidence(rest, points[k : k + 1], 0 if fixed else 1, choices)
        best = max(tests, key=lambda k: alone[k] if not values else tests[k])
        if tests[best] < _LIKELY:
            break
        values[best] = tests[best] if values else alone[best]
        rest = rest.take(np.flatnonzero(np.abs(rest.sines(points[best : best + 1])[0]) > _GATE * rest.sigma))
    found = [_found(model, points[k], value, spreads[k], in_triad=True) for k, value in values.items()]
    return found, len(found) >= 2


def _together(lines: SegmentModel, world: Upright) -> float:
    """The most evidence of the upright direction with one, two, ... of the horizontal ones, those with most segments first."""
    order = np.concatenate([[0], 1 + np.argsort(-world.weights[1:-1])])
    points, count = world.points()[order], float(len(lines))
    values = [-np.inf]
    for number in range(2, len(points) + 1):
        free = number + 1
        choices = count**free / math.factorial(free)
        values.append(evidence(lines, points[:number], free, choices * (len(points) - 1)))
    return max(values)


def upright_spreads(world: Upright) -> np.ndarray:
    """(1 + K,) root mean square angular error in degrees of a world's points, by its covariance.

    Angles are those seen with a fixed focal length. The focal length was estimated: its error moves the points too.
    """
    spreads, covariance = [], world.covariance
    for index, (direction, ray) in enumerate(zip(world.directions(), world.level_slopes(), strict=True)):
        x, y, z = direction
        slopes = np.zeros((3, len(covariance)))
        slopes[:, :3] = [[0, z, -y], [-z, 0, x], [y, -x, 0]]
        slopes[:, 3] = np.array([x, y, 0]) - direction * (x * x + y * y)
        if index:
            slopes[:, (4 if world.centre is None else 6) + world.families[index - 1]] = ray
        if world.centre is not None:
            across = np.array([[z, 0], [0, z], [0, 0]]) / world.focal
            slopes[:, 4:6] = across - direction[:, None] * (direction @ across)
        spreads.append(np.degrees(np.sqrt(np.trace(slopes @ covariance @ slopes.T))))
    return np.array(spreads)


def triad_spreads(triad: Triad) -> np.ndarray:
    """(3,) root mean square angular error in degrees of the triad's points, by its covariance.

    Where the focal length was estimated, its error moves the points too: the angle is that seen with a fixed one.
    """
    spreads = []
    for x, y, z in triad.rotation.T:
        slopes = np.array([[0, z, -y], [-z, 0, x], [y, -x, 0]])
        if len(triad.covariance) == 4:
            direction = np.array([x, y, z])
            zoom = np.array([x, y, 0]) - direction * (x * x + y * y)
            slopes = np.concatenate([slopes, zoom[:, None]], axis=1)
        spreads.append(np.degrees(np.sqrt(np.trace(slopes @ triad.covariance @ slopes.T))))
    return np.array(spreads)


def lone_point(model: SegmentModel, triad: Triad) -> list[FoundPoint]:
    """The best single point, where it stands the test."""
    lines = model.take(distinct_lines(model))
    candidates = np.concatenate([triad.points(), find_candidates(model, 10)])
    best = max(candidates, key=lambda point: evidence(lines, point[None], 2, len(lines) ** 2 / 2))
    found = _refined(model, lines, best, triad.focal)
    return [found] if found.evidence >= _SIGNIFICANT else []


def further_points(model: SegmentModel, found: list[FoundPoint], focal: float | None, count: int) -> list[FoundPoint]:
    """Up to ``count`` points more in what the found points leave unexplained."""
    more: list[FoundPoint] = []
    focal = FocalPrior.median if focal is None else focal
    while len(more) < count:
        points = np.array([point.point for point in found + more])
        unexplained = (np.abs(model.sines(points)) > _FAR_GATE * model.sigma).all(axis=0)
        rest = model.take(np.flatnonzero(unexplained))
        candidates = find_candidates(rest, 1)
        if len(candidates) == 0:
            break
        lines = rest.take(distinct_lines(rest))
        if evidence(lines, candidates[:1], 2, len(lines) ** 2 / 2) < 0:
            break
        new = _refined(rest, lines, candidates[0], focal)
        rays, ray = points_to_directions(points, focal), points_to_directions(new.point, focal)
        if new.evidence < _OUT_OF_ORDER or (np.abs(rays @ ray) > _SAME_POINT).any():
            break
        more.append(new)
    return more


def _refined(model: SegmentModel, lines: SegmentModel, point: np.ndarray, focal: float) -> FoundPoint:
    point, spread = refine_point(model, point, focal)
    return _found(model, point, evidence(lines, point[None], 2, len(lines) ** 2 / 2), spread, in_triad=False)


def refine_point(model: SegmentModel, point: np.ndarray, focal: float) -> tuple[np.ndarray, float]:
    """Maximum likelihood of one point, robust; and its expected angular error in degrees."""
    direction, _, information = measure_direction(model, points_to_directions(point, focal), focal, 1 / np.pi)
    refined = direction * [focal, focal, 1.0]
    spread = float(np.degrees(np.sqrt(np.trace(np.linalg.inv(information)))))
    return refined / np.linalg.norm(refined), spread


def _found(model: SegmentModel, point: np.ndarray, value: float, spread: float, *, in_triad: bool) -> FoundPoint:
    level = model.noise_level
    features = [1.0, np.log(max(spread, 0.02)), level >= 1, level >= 2, not in_triad]
    confidence = 1 / (1 + np.exp(-np.dot(_CONFIDENCE, features)))
    return FoundPoint(point, float(confidence), float(value), float(spread))
