"""Three orthogonal vanishing points: search over rotations (and focal lengths), then maximum likelihood.

The search: points where pairs of long segments meet are scored by all segments; for each good one the two
directions orthogonal to it have one angle left, found by a vote of all segments on its great circle; the resulting
triads are scored, the best ones refined. Nothing is drawn at random.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from alberti.geometry.segment_likelihood import DISPERSION, NOISE_LEVELS, OUTLIER_SHARE, SEARCH_NOISE, SegmentModel

_PAIR_SEGMENTS = 50
_SCORE_SEGMENTS, _VOTING_SEGMENTS = 120, 80
_CANDIDATES = 28
_APART = np.cos(np.radians(1.5))
_VOTE_BINS = 90
_PEAKS = 2
_REFINED = 2
_SAME_TRIAD = np.cos(np.radians(2.0))
_CONVERGED = 2e-4
"""Radians; a hundredth of what the best pictures determine."""

_TOGETHER = 4.0
"""The segments of one direction err together by so many times what remains in a long segment (:data:`NOISE_LEVELS`)."""


@dataclass(frozen=True)
class Triad:
    """Three orthogonal directions, the focal length they are seen with, and how well the segments fit."""

    rotation: np.ndarray
    """(3, 3), columns are the directions."""
    focal: float
    """In frame units."""
    score: float
    """Log likelihood (with the focal length's prior) against the segments being chance."""
    covariance: np.ndarray
    """(3, 3) of the rotation vector in camera axes, or (4, 4) with log focal last."""

    @property
    def upright(self) -> int:
        """The column nearest to the picture's vertical."""
        return int(np.abs(self.rotation[1]).argmax())

    def points(self) -> np.ndarray:
        """(3, 3), rows: the vanishing points in the frame, unit norm."""
        return directions_to_points(self.rotation.T, self.focal)


@dataclass(frozen=True)
class FocalPrior:
    """Log-normal belief about the focal length in frame units (half the longer side)."""

    median: float = 1.8
    sigma: float = 0.35
    grid: int = 7

    @classmethod
    def for_size(cls, width: int, height: int) -> "FocalPrior":
        """For a picture of this shape: lenses are chosen by the area that they cover, and panoramas are cut from them."""
        return cls(median=cls.median * math.sqrt(width * height) / max(width, height))

    def deviation(self, focal: float | np.ndarray) -> np.ndarray:
        """Standard deviations from the median."""
        return np.asarray(np.log(focal / self.median) / self.sigma)

    def values(self) -> np.ndarray:
        """Focal lengths to start from."""
        return self.median * np.exp(self.sigma * np.linspace(-2.5, 2.5, self.grid))


def directions_to_points(directions: np.ndarray, focal: float | np.ndarray) -> np.ndarray:
    """(..., 3) directions -> homogeneous frame points, unit norm."""
    focal = np.asarray(focal)[..., None]
    across = directions[..., :2] * focal
    points = np.concatenate([across, np.broadcast_to(directions[..., 2:], (*across.shape[:-1], 1))], axis=-1)
    return points / np.linalg.norm(points, axis=-1, keepdims=True)


def points_to_directions(points: np.ndarray, focal: float | np.ndarray) -> np.ndarray:
    """(..., 3) homogeneous frame points -> unit directions."""
    focal = np.asarray(focal)[..., None]
    depth = points[..., 2:] * focal
    directions = np.concatenate([np.broadcast_to(points[..., :2], (*depth.shape[:-1], 2)), depth], axis=-1)
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def find_triad(
    model: SegmentModel, candidates: np.ndarray, *, focal: float | None, prior: FocalPrior
) -> tuple[Triad | None, SegmentModel]:
    """The most likely orthogonal triad, None with fewer than three segments; and the model at the likeliest noise level.

    Args:
        candidates: (C, 3) as :func:`find_candidates_twice` gives them.
        focal: in frame units; None: estimated under ``prior``.
    """
    if len(model) < 3 or len(candidates) == 0:
        return None, model
    scoring = model.take(np.arange(min(len(model), _SCORE_SEGMENTS)))
    voting = model.take(np.arange(min(len(model), _VOTING_SEGMENTS)))
    searched = [voting.with_noise(noise) for noise in SEARCH_NOISE]
    focals = np.array([focal]) if focal is not None else prior.values()
    rotations, used = _hypothesise(voting, candidates, focals)
    belief = np.zeros(len(used)) if focal is not None else -0.5 * DISPERSION * prior.deviation(used) ** 2
    starts = _best(searched, rotations, used, belief)
    uncertain = None if focal is not None else prior
    rough = refine([scoring] * len(starts), rotations[starts], used[starts], uncertain, 2)
    best = max(rough, key=lambda triad: triad.score)
    levels = [scoring.with_noise(noise) for noise in NOISE_LEVELS]
    tried = refine(levels, np.array([best.rotation] * len(levels)), np.array([best.focal] * len(levels)), uncertain, 1)
    likeliest = int(np.argmax([triad.score for triad in tried]))
    start, level = tried[likeliest], model.with_noise(NOISE_LEVELS[likeliest])
    # With an unknown focal length it is only where other worlds start from.
    triad = refine([level], start.rotation[None], np.array([start.focal]), uncertain, 2 if focal is None else 30)[0]
    if focal is not None:
        triad = balance(level, triad, _TOGETHER * math.radians(NOISE_LEVELS[likeliest][1]))
    return triad, level


def balance(model: SegmentModel, triad: Triad, together: float) -> Triad:
    """The rotation nearest to the three directions measured one by one, each weighted by its own precision.

    The segments of a direction err together (walls that are not quite parallel, the lens), by ``together`` radians. That adds
    to a direction's covariance, so that a hundred segments of one direction do not outvote ten of another. With a large
    ``together`` it is the orthogonal Procrustes fit to three points.
    """
    density = model.density(model.errors(triad.rotation.T, triad.focal)[0])[0]
    density *= (1 - OUTLIER_SHARE) / 3
    rivals = density.sum(axis=0) + OUTLIER_SHARE / np.pi - density
    information, pull = 1e-9 * np.eye(3), np.zeros(3)
    for direction, rival in zip(triad.rotation.T, rivals, strict=True):
        measured, basis, own = measure_direction(model, direction, triad.focal, rival * 3 / (1 - OUTLIER_SHARE))
        weight = np.linalg.inv(np.linalg.inv(own) + together**2 * np.eye(2))
        # basis . (omega x d) = omega . (d x basis)
        turns = np.cross(direction, basis)
        measured = measured if measured @ direction > 0 else -measured
        information += turns.T @ weight @ turns
        pull += turns.T @ weight @ (basis @ (measured - direction))
    return replace(triad, rotation=rotate(np.linalg.solve(information, pull)) @ triad.rotation)


def measure_direction(
    model: SegmentModel, direction: np.ndarray, focal: float, rival: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maximum likelihood of one direction by itself, from (3,) ``direction``.

    Args:
        rival: density (N,) or scalar of the segments' sines if they belong to something else.

    Returns:
        the direction (3,), a basis (2, 3) of its tangent plane, and the information (2, 2) in that basis.
    """
    for _ in range(10):
        axis = np.eye(3)[np.abs(direction).argmin()]
        one = np.cross(direction, axis)
        one /= np.linalg.norm(one)
        basis = np.stack([one, np.cross(direction, one)])
        errors, slopes = model.errors(direction[None], focal)
        error, gradient = errors[0], (basis @ slopes[0]).T
        likelihood, stiffness = model.density(error)
        weighted = (gradient * (stiffness * likelihood / (likelihood + rival))[:, None]).T
        information = weighted @ gradient + 1e-6 * np.eye(2)
        step = -np.linalg.solve(information, weighted @ error)
        step *= min(1.0, 0.1 / max(float(np.abs(step).max()), 1e-12))
        direction = direction + step @ basis
        direction /= np.linalg.norm(direction)
        if np.abs(step).max() < _CONVERGED:
            break
    return direction, basis, information


def find_candidates_twice(model: SegmentModel) -> np.ndarray:
    """(C, 3) candidates of both noise levels of the search; (0, 3) with fewer than three segments."""
    if len(model) < 3:
        return np.zeros((0, 3))
    model = model.take(np.arange(min(len(model), _SCORE_SEGMENTS)))
    return _candidates(model, [model.with_noise(noise) for noise in SEARCH_NOISE], _CANDIDATES // len(SEARCH_NOISE))


def find_candidates(model: SegmentModel, count: int = _CANDIDATES) -> np.ndarray:
    """(C, 3) meeting points of pairs of the longest segments with most support, best first, 1.5 degrees apart."""
    return _candidates(model, [model], count)


def _candidates(model: SegmentModel, levels: list[SegmentModel], count: int) -> np.ndarray:
    """The best ``count`` of each noise level, one level after the other."""
    first, second = np.triu_indices(min(len(model), _PAIR_SEGMENTS), 1)
    points = np.cross(model.lines[first], model.lines[second])
    norm = np.linalg.norm(points, axis=1)
    points = points[norm > 1e-6] / norm[norm > 1e-6, None]
    squares = model.squared_sines(points)
    # Apart on the sphere of a middling camera: any will do to tell neighbours.
    rays = points_to_directions(points, 1.5).astype(np.float32)
    chosen: list[int] = []
    for level in levels:
        alive = level.supports(points, squares) @ level.information.astype(np.float32)
        for _ in range(count):
            if len(alive) == 0 or alive.max() <= 0:
                break
            index = int(alive.argmax())
            chosen.append(index)
            alive[np.abs(rays @ rays[index]) > _APART] = 0
    return points[chosen]


def _hypothesise(model: SegmentModel, candidates: np.ndarray, focals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (H, 3, 3) and focal lengths (H,): every candidate, with the best angles of its great circle."""
    first = points_to_directions(candidates[None], focals[:, None])  # (F, C, 3)
    second, third = _bases(first)
    normals = np.stack([model.lines * [focal, focal, 1.0] for focal in focals])
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)  # (F, N, 3)
    toward = normals.transpose(0, 2, 1).astype(np.float32)
    along = second.astype(np.float32) @ toward  # (F, C, N)
    across = third.astype(np.float32) @ toward
    angle = np.arctan2(along, -across) % (np.pi / 2)
    free = model.information.astype(np.float32) * (1 - model.supports(candidates))
    votes = free[None] * np.hypot(along, across)
    peaks = _vote(angle, votes)  # (F, C, P)
    cos, sin = np.cos(peaks)[..., None], np.sin(peaks)[..., None]
    one = cos * second[:, :, None] + sin * third[:, :, None]
    two = -sin * second[:, :, None] + cos * third[:, :, None]
    rotations = np.stack([np.broadcast_to(first[:, :, None], one.shape), one, two], axis=-1).reshape(-1, 3, 3)
    return rotations, np.repeat(focals, candidates.shape[0] * peaks.shape[2])


def _bases(first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors orthogonal to each of (..., 3) and to each other."""
    axis = np.eye(3)[np.abs(first).argmin(axis=-1)]
    second = np.cross(first, axis)
    second /= np.linalg.norm(second, axis=-1, keepdims=True)
    return second, np.cross(first, second)


def _vote(angle: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """The strongest ``_PEAKS`` angles in [0, pi / 2) of each of (F, C, N) weighted votes: (F, C, P)."""
    shape, rows = angle.shape, angle.shape[0] * angle.shape[1]
    bins = np.minimum((angle * (_VOTE_BINS / (np.pi / 2))).astype(np.int32), _VOTE_BINS - 1).reshape(rows, -1)
    flat = (np.arange(rows)[:, None] * _VOTE_BINS + bins).ravel()
    histogram = np.bincount(flat, votes.reshape(-1), rows * _VOTE_BINS).reshape(rows, _VOTE_BINS)
    smooth = histogram + 0.7 * (np.roll(histogram, 1, 1) + np.roll(histogram, -1, 1))
    peaks = np.empty((rows, _PEAKS))
    for peak in range(_PEAKS):
        top = smooth.argmax(axis=1)
        peaks[:, peak] = (top + 0.5) * (np.pi / 2 / _VOTE_BINS)
        near = (top[:, None] + np.arange(-2, 3)) % _VOTE_BINS
        np.put_along_axis(smooth, near, -1.0, axis=1)
    return peaks.reshape(*shape[:2], _PEAKS)


def _best(levels: list[SegmentModel], rotations: np.ndarray, focals: np.ndarray, belief: np.ndarray) -> list[int]:
    """Indices of each noise level's best hypotheses, each another triad or another focal length than those before."""
    points = directions_to_points(rotations.transpose(0, 2, 1), focals[:, None]).reshape(-1, 3)
    chosen: list[int] = []
    taken = np.zeros(len(rotations), dtype=bool)
    squares = levels[0].squared_sines(points).reshape(len(rotations), 3, -1)
    nearest = np.minimum(np.minimum(squares[:, 0], squares[:, 1]), squares[:, 2])  # of a segment's three points
    for level in levels:
        score = level.supports(points, nearest) @ level.information + belief
        for _ in range(_REFINED):
            index = int(np.where(taken, -np.inf, score).argmax())
            if taken[index]:
                break
            chosen.append(index)
            overlap = np.abs(rotations.transpose(0, 2, 1) @ rotations[index]).max(axis=2).min(axis=1)
            taken |= (overlap > _SAME_TRIAD) & (np.abs(np.log(focals / focals[index])) < 0.1)
    return chosen


def refine(
    models: list[SegmentModel], rotations: np.ndarray, focals: np.ndarray, prior: FocalPrior | None, iterations: int
) -> list[Triad]:
    """Maximum likelihood of T rotations (and log focals, given a prior) under a mixture of the three points and chance.

    Gauss-Newton steps on the errors, weighted by how surely a segment belongs to a point (EM). All together, which takes
    little more time than one.

    Args:
        models: the same segments T times, each at the noise level of its triad.
        rotations: (T, 3, 3).
        focals: (T,).
    """
    rotations = rotations * np.sign(np.linalg.det(rotations))[:, None, None]
    sigma = np.repeat([model.sigma for model in models], 3, axis=0)
    model = replace(models[0], sigma=sigma)
    scores, information, pulls = _expectation(model, rotations, focals, prior)
    for _ in range(iterations):
        steps = -np.linalg.solve(information, pulls[:, :, None])[:, :, 0]
        largest = np.abs(steps).max(axis=1, keepdims=True)
        steps *= np.minimum(1.0, 0.2 / np.maximum(largest, 1e-12))
        rotations = np.array([rotate(step[:3]) @ rotation for step, rotation in zip(steps, rotations, strict=True)])
        if prior is not None:
            focals = np.clip(focals * np.exp(steps[:, 3]), 0.2, 20.0)
        scores, information, pulls = _expectation(model, rotations, focals, prior)
        if largest.max() < _CONVERGED:
            break
    covariances = DISPERSION * np.linalg.inv(information)
    return [Triad(r, float(f), float(s), c) for r, f, s, c in zip(rotations, focals, scores, covariances, strict=True)]


def _expectation(
    model: SegmentModel, rotations: np.ndarray, focals: np.ndarray, prior: FocalPrior | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log posteriors (T,) against chance, and the Gauss-Newton matrices and gradients of their negatives.

    The parameters are a rotation vector in camera axes, followed by log focal where there is a prior.
    """
    directions = rotations.transpose(0, 2, 1).reshape(-1, 3)
    errors, slopes = model.errors(directions, np.repeat(focals, 3)[:, None])
    density, stiffness = model.density(errors)
    density *= (1 - OUTLIER_SHARE) / 3
    chance = OUTLIER_SHARE / np.pi
    total = density.reshape(len(rotations), 3, -1).sum(axis=1) + chance
    scores = np.log(total / chance).sum(axis=1)
    moves = turning(directions)
    if prior is not None:
        moves = np.concatenate([moves, zooming(directions)], axis=2)
    stiffness *= density
    stiffness /= np.repeat(total, 3, axis=0)
    own, pull = normal_equations(errors, slopes, stiffness, moves)
    information = own.reshape(-1, 3, *own.shape[1:]).sum(axis=1)
    pulls = pull.reshape(-1, 3, pull.shape[1]).sum(axis=1)
    information[:, range(information.shape[1]), range(information.shape[1])] += 1e-6
    if prior is not None:
        deviation = prior.deviation(focals)
        scores -= 0.5 * DISPERSION * deviation**2
        information[:, 3, 3] += DISPERSION / prior.sigma**2
        pulls[:, 3] += DISPERSION * deviation / prior.sigma
    return scores, information, pulls


def turning(directions: np.ndarray) -> np.ndarray:
    """(M, 3, 3) how (M, 3) directions d move with a rotation vector: omega x d."""
    moves = np.zeros((len(directions), 3, 3))
    x, y, z = directions.T
    moves[:, 0, 1], moves[:, 0, 2], moves[:, 1, 2] = z, -y, x
    moves[:, 1, 0], moves[:, 2, 0], moves[:, 2, 1] = -z, y, -x
    return moves


def zooming(directions: np.ndarray) -> np.ndarray:
    """(M, 3, 1) what a change of log focal is as a move of (M, 3) directions."""
    moves = directions[:, :, None].copy()
    moves[:, 2] = 0
    return moves


def normal_equations(
    errors: np.ndarray, slopes: np.ndarray, weights: np.ndarray, moves: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Newton matrices (M, D, D) and gradients (M, D) of half the weighted sums of squared errors of M directions.

    Args:
        errors, slopes: (M, N) and (M, 3, N) as :meth:`SegmentModel.errors` gives them.
        weights: (M, N).
        moves: (M, 3, D) how the directions move with the D parameters.
    """
    weighted = slopes * weights[:, None]
    turned = moves.transpose(0, 2, 1)
    information = turned @ (weighted @ slopes.transpose(0, 2, 1)) @ moves
    return information, (turned @ (weighted @ errors[:, :, None]))[:, :, 0]


def rotate(vector: np.ndarray) -> np.ndarray:
    """The rotation matrix of a rotation vector (Rodrigues)."""
    x, y, z = vector.tolist()
    angle = math.sqrt(x * x + y * y + z * z)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = x / angle, y / angle, z / angle
    sin, cos = math.sin(angle), math.cos(angle)
    rest = 1 - cos
    return np.array(
        [
            [cos + rest * x * x, rest * x * y - sin * z, rest * x * z + sin * y],
            [rest * x * y + sin * z, cos + rest * y * y, rest * y * z - sin * x],
            [rest * x * z - sin * y, rest * y * z + sin * x, cos + rest * z * z],
        ]
    )
