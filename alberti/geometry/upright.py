"""A zenith and any number of horizontal directions: streets at odd angles, seen by a camera that is known or not.

The world has one upright direction and horizontal ones at any azimuth. Horizontal directions of one *family* are at right
angles to each other, as the two of one building; a Manhattan world is one family of two. Whether two directions are such a
family, or only nearly so, the picture decides: a right angle takes one parameter less, and has to fit for it.

First hypotheses are horizons: through a candidate zenith and a focal length, or through two candidate horizontal points.
Each one is scored by all segments; the best are searched for horizontal directions all around, and refined by maximum
likelihood. Nothing is drawn at random.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from alberti.geometry.manhattan import (
    FocalPrior,
    Triad,
    directions_to_points,
    normal_equations,
    points_to_directions,
    rotate,
    turning,
    zooming,
)
from alberti.geometry.segment_likelihood import DISPERSION, OUTLIER_SHARE, SEARCH_NOISE, SegmentModel

_ROLL = math.radians(2.5)
"""Scale of the camera's roll: Student's t with three degrees of freedom. People level their cameras: the horizons of 51
pictures of York Urban fall by 0.8 degrees (rms). Held cameras lean more, and a lean has to be found as well."""
_PITCH = math.radians(15.0)
"""The same of the pitch. Heavy tails: some look up at towers."""
_FREEDOM = 3.0
_MOST_ROLL = math.radians(40.0)
"""Beyond it the picture lies on its side, and which direction is the upright one is not asked."""
_PAIRED = 14
"""Candidates of which pairs make horizons."""
_ON_HORIZON = math.sin(math.radians(1.5))
DOWN = 1
"""The column of the upright direction in a world's rotation."""
_STARTS = 3
_VOTING, _SEARCHED, _USED = 80, 120, 200
"""So many of the longest segments choose where to start, tell worlds apart, and are the evidence for the last refinement."""
_AZIMUTHS = 180
_BELIEF = 2.0
"""How much beliefs about roll, pitch and focal length weigh against the log likelihood when worlds are compared."""
_CENTRE = 0.03
"""Standard deviation of a camera's principal point, in half the longer side, either way: 10 pixels of 640. Those of KITTI and
York Urban lie 0.03 and 0.05 off the middle."""
_CONVERGED = 2e-4
_APART = math.radians(5.0)
"""Nearer horizontal directions are one."""
_GAIN = 5.0
"""A horizontal direction has to raise the log likelihood by so much: the price of its azimuth."""
_MANHATTAN = 25.0
"""Log odds of a Manhattan world before the picture is seen: others have to explain it so much better. Segments of one wall err
together, so that odds on a few of them are no odds."""
_RIGHT_ANGLE = math.radians(4.0)
"""Azimuths nearer to a right angle are tried as one family."""


@dataclass(frozen=True)
class Upright:
    """The upright direction, horizontal ones, and the focal length that they are seen with."""

    rotation: np.ndarray
    """(3, 3), columns: right, down and forward of the world in camera axes."""
    focal: float
    """In frame units."""
    azimuths: np.ndarray
    """(K,) radians from forward to the right."""
    families: np.ndarray
    """(K,) directions of one family stay at right angles."""
    weights: np.ndarray
    """(1 + K + 1,) shares of the segments: upright, horizontal ones, none of them."""
    score: float
    """Log likelihood against chance."""
    gain: float
    """The score less the price of azimuths and unlikely cameras: what worlds are compared by."""
    information: np.ndarray
    """Of rotation vector (3), log focal, principal point (2) where it is free, one azimuth a family."""
    centre: tuple[float, float] | None = None
    """The principal point in the frame where it is free; None: at (0, 0)."""

    @property
    def covariance(self) -> np.ndarray:
        """The inverse of the information, with the segments' dispersion."""
        return np.asarray(DISPERSION * np.linalg.inv(self.information))

    @property
    def manhattan(self) -> bool:
        """Whether all horizontal directions are one family of two."""
        return len(self.families) == 2 and bool(self.families[0] == self.families[1])

    @property
    def preference(self) -> float:
        """The gain, and what a Manhattan world has in advance."""
        return self.gain + (_MANHATTAN if self.manhattan else 0.0)

    def directions(self) -> np.ndarray:
        """(1 + K, 3): down, then the horizontal ones."""
        level = np.stack([np.sin(self.azimuths), np.zeros_like(self.azimuths), np.cos(self.azimuths)], axis=1)
        return np.concatenate([self.rotation[:, 1:2].T, level @ self.rotation.T])

    def level_slopes(self) -> np.ndarray:
        """(1 + K, 3) how the directions move with their azimuths; zeros for down."""
        along = np.stack([np.cos(self.azimuths), np.zeros_like(self.azimuths), -np.sin(self.azimuths)], axis=1)
        return np.concatenate([np.zeros((1, 3)), along @ self.rotation.T])

    def points(self) -> np.ndarray:
        """(1 + K, 3) vanishing points in the frame, unit norm."""
        return directions_to_points(self.seen(), self.focal)

    def seen(self) -> np.ndarray:
        """(1 + K, 3) directions that a camera whose principal point is at (0, 0) would see where this one sees its own."""
        directions = self.directions()
        if self.centre is not None:
            directions[:, :2] += directions[:, 2:] * self.centre / self.focal
        return directions


def _log_t(value: np.ndarray | float, scale: float) -> np.ndarray:
    """Log density of Student's t, up to a constant."""
    return -(_FREEDOM + 1) / 2 * np.log1p((np.asarray(value) / scale) ** 2 / _FREEDOM)


def belief(down: np.ndarray, focal: np.ndarray | float, prior: FocalPrior) -> np.ndarray:
    """Log prior of (..., 3) down directions seen with focal lengths (...): level cameras, common lenses."""
    roll = np.arctan2(-down[..., 0], down[..., 1])
    known = _known(down) - 0.5 * prior.deviation(focal) ** 2
    return np.where(np.abs(roll) < _MOST_ROLL, known, -1e6)


def _known(down: np.ndarray) -> np.ndarray:
    """Log prior of roll and pitch of (..., 3) down directions."""
    roll = np.arctan2(-down[..., 0], down[..., 1])
    pitch = np.arcsin(np.clip(down[..., 2], -1, 1))
    return _log_t(roll, _ROLL) + _log_t(pitch, _PITCH)


def upright_basis(down: np.ndarray) -> np.ndarray:
    """(3, 3) columns right, down, forward for a down direction: forward is the camera's axis, made level."""
    axis = np.array([0.0, 0.0, 1.0]) if abs(down[2]) < 0.95 else np.array([0.0, -1.0, 0.0])
    forward = axis - down * (axis @ down)
    forward /= np.linalg.norm(forward)
    return np.stack([np.cross(down, forward), down, forward], axis=1)


def hypothesise(
    model: SegmentModel, candidates: np.ndarray, focals: np.ndarray, prior: FocalPrior
) -> list[tuple[np.ndarray, float]]:
    """The best (down direction, focal length) by candidate points (C, 3), each another horizon than those before."""
    supports = model.supports(candidates) * model.information.astype(np.float32)
    downs, used = [], []
    first, second = np.triu_indices(min(len(candidates), _PAIRED), 1)
    for focal in focals:
        rays = points_to_directions(candidates, focal)
        normal = np.cross(rays[first], rays[second])
        length = np.linalg.norm(normal, axis=1, keepdims=True)
        normal = (normal / np.maximum(length, 1e-9))[length[:, 0] > math.sin(math.radians(4.0))]
        level = np.array([[0.0, 1.0, 0.0]])
        downs.append(np.concatenate([rays, normal, level]))
        used.append(np.full(len(downs[-1]), focal))
    down, focal_of = np.concatenate(downs), np.concatenate(used)
    down = down * np.where(down[:, 1:2] < 0, -1.0, 1.0)
    known = _BELIEF * belief(down, focal_of, prior)
    keep = known > -20 * _BELIEF
    down, focal_of, known = down[keep], focal_of[keep], known[keep]
    score = known.copy()
    for focal in focals:
        mine = np.flatnonzero(focal_of == focal)
        rays = points_to_directions(candidates, focal)
        row, member = np.nonzero(np.abs(down[mine] @ rays.T) < _ON_HORIZON)
        best = model.supports(directions_to_points(down[mine], focal)) * model.information.astype(np.float32)
        if len(row):
            some, first = np.unique(row, return_index=True)
            best[some] = np.maximum(best[some], np.maximum.reduceat(supports[member], first, axis=0))
        score[mine] += best.sum(axis=1)
    chosen: list[tuple[np.ndarray, float]] = []
    for index in np.argsort(-score, kind="stable"):
        if len(chosen) == _STARTS:
            break
        if all(not _same(down[index], focal_of[index], *other) for other in chosen):
            chosen.append((down[index], float(focal_of[index])))
    return chosen


def _same(down: np.ndarray, focal: float, other: np.ndarray, other_focal: float) -> bool:
    """Whether two horizons of pictures are the same to a few pixels, and seen with a similar focal length."""
    if down[1] == 0 or other[1] == 0:  # straight down: no horizon of a picture
        return False
    one, two = down / [focal, focal, 1.0], other / [other_focal, other_focal, 1.0]
    near = np.abs(one[[0, 2]] / one[1] - two[[0, 2]] / two[1]).max() < 0.03
    return bool(near and abs(math.log(focal / other_focal)) < 0.35)


def scan(model: SegmentModel, down: np.ndarray, focal: float, most: int) -> Upright:
    """The horizontal directions that segments show on the horizon of ``down``, one after the other."""
    basis = upright_basis(down)
    angle = np.arange(_AZIMUTHS) * (math.pi / _AZIMUTHS)
    level = np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)], axis=1) @ basis.T
    points = directions_to_points(np.concatenate([down[None], level]), focal)
    gain = model.supports(points) * model.information.astype(np.float32)
    best, chosen = gain[0], []
    gain = gain[1:]
    for _ in range(most):
        more = np.maximum(gain - best, 0).sum(axis=1)
        index = int(more.argmax())
        if more[index] < _GAIN:
            break
        chosen.append(index)
        best = np.maximum(best, gain[index])
        near = np.abs((angle - angle[index] + math.pi / 2) % math.pi - math.pi / 2) < _APART
        gain[near] = 0
    azimuths = angle[chosen]
    shares = np.full(len(chosen) + 2, (1 - OUTLIER_SHARE) / (len(chosen) + 1))
    shares[-1] = OUTLIER_SHARE
    return Upright(basis, focal, azimuths, np.arange(len(chosen)), shares, -np.inf, -np.inf, np.eye(3))


def refine(model: SegmentModel, starts: list[Upright], prior: FocalPrior, iterations: int) -> list[Upright]:
    """Maximum likelihood (EM, Gauss-Newton) of down, azimuths and focal length, which its prior and level cameras draw on.

    Of all worlds together, which takes less time than one after the other.
    """
    best = list(starts)
    running = dict(enumerate(starts))
    for step_index in range(iterations + 1):
        if not running:
            break
        expected = _expectation(model, list(running.values()), prior)
        for (index, now), (score, information, pull, weights) in zip(list(running.items()), expected, strict=True):
            now = replace(now, score=score, gain=_gain(now, score, prior), weights=weights)
            if now.gain >= best[index].gain or step_index == 0:
                best[index] = replace(now, information=information)
            if step_index == iterations:
                continue
            step = -np.linalg.solve(information, pull)
            largest = float(np.abs(step).max())
            running[index] = _moved(now, step * min(1.0, 0.2 / max(largest, 1e-12)), prior)
            if largest < _CONVERGED:
                del running[index]
    return best


def _moved(now: Upright, step: np.ndarray, prior: FocalPrior) -> Upright:
    rotation = rotate(step[:3]) @ now.rotation
    # A focal length that is given may lie outside: that of a small crop.
    focal = float(np.clip(now.focal * math.exp(step[3]), min(0.2, prior.median), max(20.0, prior.median)))
    centre = now.centre
    if centre is not None:
        centre = (centre[0] + float(step[4]), centre[1] + float(step[5]))
    turns = step[4 if centre is None else 6 :]
    azimuths = now.azimuths + (turns[now.families] if len(turns) else 0.0)
    return replace(now, rotation=rotation, focal=focal, azimuths=azimuths, centre=centre)


Expected = tuple[float, np.ndarray, np.ndarray, np.ndarray]
"""Log likelihood against chance, Gauss-Newton matrix and gradient of its negative, and the shares of the directions."""


def _expectation(model: SegmentModel, worlds: list[Upright], prior: FocalPrior) -> list[Expected]:
    """Of each world; what is as long as the segments are many, for all worlds at once.

    The principal point is free in all of them or in none.
    """
    counts = [1 + len(world.azimuths) for world in worlds]
    first = np.cumsum([0, *counts])[:-1]
    directions = np.concatenate([world.directions() for world in worlds])
    focals = np.repeat([world.focal for world in worlds], counts)[:, None]
    errors, slopes = model.errors(np.concatenate([world.seen() for world in worlds]), focals)
    density, stiffness = model.density(errors)
    density *= np.concatenate([world.weights[:-1] for world in worlds])[:, None]
    chance = np.array([[world.weights[-1] / np.pi] for world in worlds])
    total = np.add.reduceat(density, first, axis=0) + chance
    scores = np.log(total * np.pi).sum(axis=1)
    density /= np.repeat(total, counts, axis=0)
    stiffness *= density
    # Turns of azimuths are moves of their own directions alone.
    along = np.concatenate([world.level_slopes() for world in worlds])[:, :, None]
    moves = np.concatenate([turning(directions), zooming(directions), along], axis=2)
    if worlds[0].centre is not None:
        moves = _recentred(moves, directions, focals, np.repeat([world.centre for world in worlds], counts, axis=0))
    own, pulls = normal_equations(errors, slopes, stiffness, moves)
    shares, nothing = density.sum(axis=1), (chance / total).sum(axis=1)
    result = []
    for index, (world, start, count) in enumerate(zip(worlds, first, counts, strict=True)):
        rows = slice(start, start + count)
        information, pull = _by_family(own[rows], pulls[rows], world.families)
        information, pull = _with_beliefs(information, pull, world, prior)
        # Shares of a Dirichlet prior: ten segments, spread evenly.
        sums = np.concatenate([shares[rows], nothing[index : index + 1]]) + 10 / (count + 1)
        result.append((float(scores[index]), information, pull, sums / sums.sum()))
    return result


def _recentred(moves: np.ndarray, directions: np.ndarray, focals: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(M, 3, 7): (M, 3, 5) moves of directions as those of :meth:`Upright.seen`, with the principal point's before the last.

    Args:
        focals: (M, 1).
        centres: (M, 2).
    """
    moves = moves.copy()
    turned = [0, 1, 2, 4]  # a change of focal length leaves the principal point where it is
    moves[:, :2, turned] += moves[:, 2:, turned] * (centres / focals)[:, :, None]
    own = np.zeros((len(moves), 3, 2))
    own[:, 0, 0] = own[:, 1, 1] = directions[:, 2] / focals[:, 0]
    return np.concatenate([moves[:, :, :4], own, moves[:, :, 4:]], axis=2)


def _by_family(own: np.ndarray, pulls: np.ndarray, families: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and gradient of what moves all directions and one azimuth a family.

    From those of each direction, (K, C + 1, C + 1) and (K, C + 1), of which the last row is the direction's own azimuth.
    """
    common = own.shape[1] - 1
    size = common + (int(families.max()) + 1 if len(families) else 0)
    information, pull = np.zeros((size, size)), np.zeros(size)
    information[:common, :common] = own[:, :common, :common].sum(axis=0)
    pull[:common] = pulls[:, :common].sum(axis=0)
    for family, matrix, slope in zip((common + families).tolist(), own[1:], pulls[1:], strict=True):
        information[family, :common] += matrix[common, :common]
        information[:common, family] += matrix[:common, common]
        information[family, family] += matrix[common, common]
        pull[family] += slope[common]
    return information, pull


def _with_beliefs(
    information: np.ndarray, pull: np.ndarray, world: Upright, prior: FocalPrior
) -> tuple[np.ndarray, np.ndarray]:
    """The same with what is believed of focal length, roll and principal point."""
    down = world.rotation[:, DOWN]
    # A turn about the upright direction and one of all azimuths are the same: this keeps the first from being used.
    roll_pull, roll_stiffness, slope = _roll(down)
    information[:3, :3] += 1e3 * down[:, None] * down + DISPERSION * roll_stiffness * slope[:, None] * slope
    information.flat[:: len(information) + 1] += 1e-6
    information[3, 3] += DISPERSION / prior.sigma**2
    pull[3] += DISPERSION * math.log(world.focal / prior.median) / prior.sigma**2
    pull[:3] += DISPERSION * roll_pull * slope
    if world.centre is not None:
        information[[4, 5], [4, 5]] += DISPERSION / _CENTRE**2
        pull[4:6] += DISPERSION * np.array(world.centre) / _CENTRE**2
    return information, pull


def _roll(down: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Of the roll's log prior, the negative's slope and stiffness, and the roll's slope along the rotation vector (3,)."""
    x, y, z = down.tolist()
    roll = math.atan2(-x, y)
    across = max(x * x + y * y, 1e-9)
    stiffness = (_FREEDOM + 1) / (_FREEDOM * _ROLL**2 + roll**2)
    return stiffness * roll, stiffness, np.array([-z * x / across, -z * y / across, 1.0])


def from_triad(triad: Triad) -> Upright:
    """A triad as a world of one family."""
    rotation = triad.rotation
    upright = triad.upright
    down = rotation[:, upright] * (1.0 if rotation[1, upright] > 0 else -1.0)
    basis = upright_basis(down)
    ray = basis.T @ rotation[:, (upright + 1) % 3]
    azimuth = math.atan2(ray[0], ray[2])
    shares = np.array([*[(1 - OUTLIER_SHARE) / 3] * 3, OUTLIER_SHARE])
    return Upright(
        basis,
        triad.focal,
        np.array([azimuth, azimuth + math.pi / 2]),
        np.zeros(2, dtype=int),
        shares,
        -np.inf,
        -np.inf,
        np.eye(3),
    )


def _gain(found: Upright, score: float, prior: FocalPrior) -> float:
    """Log likelihood, beliefs, and the price of azimuths."""
    count = int(found.families.max()) + 1 if len(found.families) else 0
    known = float(_known(found.rotation[:, DOWN])) - 0.5 * float(prior.deviation(found.focal)) ** 2
    if found.centre is not None:
        known -= 0.5 * (found.centre[0] ** 2 + found.centre[1] ** 2) / _CENTRE**2
    return score + _BELIEF * known - _GAIN * count


def tied(found: Upright) -> list[Upright]:
    """The same with pairs of azimuths that are nearly at right angles made one family, and the first pair as all there is.

    The pair nearest to a right angle first, then it and the next, and so on.
    """
    pairs = []
    for i in range(len(found.azimuths)):
        for j in range(i):
            gap = (found.azimuths[i] - found.azimuths[j]) % math.pi - math.pi / 2
            if abs(gap) < _RIGHT_ANGLE:
                pairs.append((abs(gap), j, i))
    families = list(range(len(found.azimuths)))
    azimuths = found.azimuths.copy()
    used: set[int] = set()
    result: list[Upright] = []
    for _, j, i in sorted(pairs):
        if {i, j} & used:
            continue
        used |= {i, j}
        gap = (azimuths[i] - azimuths[j]) % math.pi - math.pi / 2
        azimuths[i] -= gap / 2
        azimuths[j] += gap / 2
        families[i] = families[j]
        index = np.unique(families, return_inverse=True)[1]
        if not result:
            weights = found.weights[[0, 1 + i, 1 + j, -1]]
            result.append(
                replace(found, azimuths=azimuths[[i, j]], families=np.zeros(2, dtype=int), weights=weights / weights.sum())
            )
        result.append(replace(found, azimuths=azimuths.copy(), families=index))
    return result


def find_upright(
    model: SegmentModel,
    candidates: np.ndarray,
    triads: list[Triad],
    *,
    prior: FocalPrior,
    most: int = 5,
    free_centre: bool = False,
) -> Upright | None:
    """The most likely world of an upright direction and up to ``most`` horizontal ones; None where no hypothesis is left.

    Args:
        candidates: (C, 3) points that many segments point at, best first.
        triads: further hypotheses.
        prior: of the focal length.
        free_centre: whether the principal point is unknown. It is sought where three directions at right angles show it, in a
            photograph; renders have it in the middle.
    """
    searched = model.take(np.arange(min(len(model), _SEARCHED)))
    voting = searched.take(np.arange(min(len(searched), _VOTING)))
    wide = searched.with_noise(SEARCH_NOISE[0])
    starts = [scan(wide, down, used, most) for down, used in hypothesise(voting, candidates, prior.values()[1:-1], prior)]
    for triad in triads:
        own = from_triad(triad)
        starts += [own, scan(wide, own.directions()[0], own.focal, most)]  # its upright direction may be all that is right
    if not starts:
        return None
    worlds = refine(searched, starts, prior, 2)
    first, *others = sorted(worlds, key=lambda world: -world.preference)[:2]
    # Another world that cannot come first by being Manhattan is not asked.
    rivals = [world for world in others if world.preference + _MANHATTAN + _GAIN > first.preference]
    worlds += refine(searched, [pair for rival in [first, *rivals] for pair in tied(rival)], prior, 2)
    best = max(worlds, key=lambda world: world.preference)
    if free_centre and best.manhattan and model.noise_level > 0:
        best = replace(best, centre=(0.0, 0.0))
    return refine(model.take(np.arange(min(len(model), _USED))), [best], prior, 4)[0]
