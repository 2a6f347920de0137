"""Three orthogonal vanishing points: search over rotations (and focal lengths), then maximum likelihood.

The search: points where pairs of long segments meet are scored by all segments; for each good one the two
directions orthogonal to it have one angle left, found by a vote of all segments on its great circle; the resulting
triads are scored, the best ones refined. Nothing is drawn at random.
"""

from dataclasses import dataclass

import numpy as np

from alberti.geometry.segment_likelihood import OUTLIER_SHARE, SegmentModel

_PAIR_SEGMENTS = 80
_SCORE_SEGMENTS = 250
_CANDIDATES = 40
_APART = np.cos(np.radians(1.5))
_VOTE_BINS = 90
_PEAKS = 3
_REFINED = 5
_ITERATIONS = 15


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

    def points(self) -> np.ndarray:
        """(3, 3), rows: the vanishing points in the frame, unit norm."""
        return directions_to_points(self.rotation.T, self.focal)


@dataclass(frozen=True)
class FocalPrior:
    """Log-normal belief about the focal length in frame units."""

    median: float = 1.7
    sigma: float = 0.45
    grid: int = 7

    def values(self) -> np.ndarray:
        """Focal lengths to start from."""
        return self.median * np.exp(self.sigma * np.linspace(-2.0, 2.0, self.grid))


def directions_to_points(directions: np.ndarray, focal: float | np.ndarray) -> np.ndarray:
    """(..., 3) directions -> homogeneous frame points, unit norm."""
    focal = np.asarray(focal)[..., None]
    points = np.concatenate([directions[..., :2] * focal, directions[..., 2:]], axis=-1)
    return points / np.linalg.norm(points, axis=-1, keepdims=True)


def points_to_directions(points: np.ndarray, focal: float | np.ndarray) -> np.ndarray:
    """(..., 3) homogeneous frame points -> unit directions."""
    focal = np.asarray(focal)[..., None]
    directions = np.concatenate([points[..., :2], points[..., 2:] * focal], axis=-1)
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def find_triad(model: SegmentModel, *, focal: float | None, prior: FocalPrior) -> Triad | None:
    """The most likely orthogonal triad; None with fewer than three segments.

    Args:
        focal: in frame units; None: estimated under ``prior``.
    """
    if len(model) < 3:
        return None
    scoring = model.take(np.arange(min(len(model), _SCORE_SEGMENTS)))
    candidates = find_candidates(scoring)
    if len(candidates) == 0:
        return None
    focals = np.array([focal]) if focal is not None else prior.values()
    rotations, used = _hypothesise(scoring, candidates, focals)
    score = _triad_scores(scoring, rotations, used)
    if focal is None:
        score = score - 0.5 * (np.log(used / prior.median) / prior.sigma) ** 2
    best: Triad | None = None
    for index in _distinct(rotations, used, score):
        triad = refine(model, rotations[index], float(used[index]), None if focal is not None else prior)
        if best is None or triad.score > best.score:
            best = triad
    return best


def find_candidates(model: SegmentModel, count: int = _CANDIDATES) -> np.ndarray:
    """(C, 3) meeting points of pairs of the longest segments with most support, best first, 1.5 degrees apart."""
    first, second = np.triu_indices(min(len(model), _PAIR_SEGMENTS), 1)
    points = np.cross(model.lines[first], model.lines[second])
    norm = np.linalg.norm(points, axis=1)
    points = points[norm > 1e-6] / norm[norm > 1e-6, None]
    score = model.support(points).sum(axis=1)
    # Apart on the sphere of a middling camera: any will do to tell neighbours.
    rays = points_to_directions(points, 1.5).astype(np.float32)
    chosen = []
    alive = score.copy()
    while len(chosen) < count and len(alive) and alive.max() > 0:
        index = int(alive.argmax())
        chosen.append(index)
        alive[np.abs(rays @ rays[index]) > _APART] = 0
    return points[chosen]


def _hypothesise(model: SegmentModel, candidates: np.ndarray, focals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (H, 3, 3) and focal lengths (H,): every candidate, with the best angles of its great circle."""
    first = points_to_directions(candidates[None], focals[:, None])  # (F, C, 3)
    second, third = _bases(first)
    normals = np.concatenate([model.lines[None, :, :2] * focals[:, None, None],
                              np.repeat(model.lines[None, :, 2:], len(focals), axis=0)], axis=2)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)  # (F, N, 3)
    along = second @ normals.transpose(0, 2, 1)  # (F, C, N)
    across = third @ normals.transpose(0, 2, 1)
    angle = np.arctan2(along, -across) % (np.pi / 2)
    free = (model.weight * model.information)[None] - model.support(candidates)
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
    bins = np.minimum((angle * (_VOTE_BINS / (np.pi / 2))).astype(np.int64), _VOTE_BINS - 1).reshape(rows, -1)
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


def _triad_scores(model: SegmentModel, rotations: np.ndarray, focals: np.ndarray) -> np.ndarray:
    points = directions_to_points(rotations.transpose(0, 2, 1), focals[:, None])
    support = model.support(points.reshape(-1, 3)).reshape(len(rotations), 3, -1)
    return support.max(axis=1).sum(axis=1)


def _distinct(rotations: np.ndarray, focals: np.ndarray, score: np.ndarray) -> list[int]:
    """Indices of the best hypotheses, each another triad or another focal length than those before."""
    chosen: list[int] = []
    alive = score.copy()
    while len(chosen) < _REFINED and np.isfinite(alive.max()):
        index = int(alive.argmax())
        chosen.append(index)
        overlap = np.abs(np.einsum("hij,ik->hjk", rotations, rotations[index])).max(axis=2).min(axis=1)
        same = (overlap > np.cos(np.radians(2.0))) & (np.abs(np.log(focals / focals[index])) < 0.1)
        alive[same] = -np.inf
    return chosen


def refine(model: SegmentModel, rotation: np.ndarray, focal: float, prior: FocalPrior | None) -> Triad:
    """Maximum likelihood of rotation (and log focal, given a prior) under a mixture of the three points and chance.

    Gauss-Newton steps on the errors weighted by how surely a segment belongs to a point (EM).
    """
    rotation = rotation * (np.linalg.det(rotation) or 1.0)
    information = np.eye(3)
    for _ in range(_ITERATIONS):
        errors, gradients, share, _ = _expectation(model, rotation, focal, prior is not None)
        weight = share * (model.weight / model.sigma**2)[None]
        information = np.einsum("kn,kni,knj->ij", weight, gradients, gradients)
        pull = np.einsum("kn,kni,kn->i", weight, gradients, errors)
        if prior is not None:
            information[3, 3] += prior.sigma**-2
            pull[3] += np.log(focal / prior.median) / prior.sigma**2
        information[np.diag_indices(len(information))] += 1e-6
        step = -np.linalg.solve(information, pull)
        size = np.abs(step).max()
        step *= min(1.0, 0.2 / max(size, 1e-12))
        rotation = _rotate(step[:3]) @ rotation
        if prior is not None:
            focal = float(np.clip(focal * np.exp(step[3]), 0.2, 20.0))
        if size < 1e-6:
            break
    score = _expectation(model, rotation, focal, False)[3]
    if prior is not None:
        score -= 0.5 * (np.log(focal / prior.median) / prior.sigma) ** 2
    return Triad(rotation, focal, float(score), np.linalg.inv(information))


def _expectation(
    model: SegmentModel, rotation: np.ndarray, focal: float, with_focal: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Errors (3, N), their gradients (3, N, 3 or 4), the share of each segment in each point (3, N), the score."""
    directions = rotation.T
    scale = np.array([focal, focal, 1.0])
    points = directions * scale
    distance = np.sqrt(model.squared_distances(points))
    errors = (points @ model.lines.T) / distance
    likelihood = np.exp(-0.5 * (errors / model.sigma) ** 2) / (np.sqrt(2 * np.pi) * model.sigma)
    chance = OUTLIER_SHARE / np.pi
    likelihood *= (1 - OUTLIER_SHARE) / 3
    total = likelihood.sum(axis=0) + chance
    score = float(model.weight @ np.log(total / chance))
    # d(R d)/d omega = -[d]x, so d(n . d)/d omega = d x n with n = diag(f, f, 1) l.
    normals = model.lines * scale
    gradients = np.cross(directions[:, None], normals[None]) / distance[..., None]
    if with_focal:
        change = (directions[:, None, :2] * normals[None, :, :2]).sum(axis=2) / distance
        gradients = np.concatenate([gradients, change[..., None]], axis=2)
    return errors, gradients, likelihood / total, score


def _rotate(vector: np.ndarray) -> np.ndarray:
    """The rotation matrix of a rotation vector (Rodrigues)."""
    angle = np.linalg.norm(vector)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
