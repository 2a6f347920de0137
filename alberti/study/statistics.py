"""Shares and Bradley-Terry strengths with intervals that respect that answers of one rater, and of one scene, are alike.

Two-way clustered variance (Cameron, Gelbach and Miller 2011): of clusters of raters plus that of clusters of scenes minus that
of their intersection, never less than either alone. Quantiles are Student's, with the smaller number of clusters less one.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Share:
    """A share of answers with its 95 % interval."""

    share: float
    low: float
    high: float
    n: int
    raters: int
    scenes: int
    standard_error: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def clustered_share(values: Any, raters: Any, scenes: Any, *, level: float = 0.95) -> Share | None:
    """The mean of (n,) zeros and ones and its interval; None without answers.

    The interval is Wilson's for the number of independent answers that would have the clustered variance, so that it stays
    inside [0, 1]. With a share of 0 or 1 there is no variance to see, and that number is the smaller number of clusters.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return None
    rater, n_raters = _codes(raters)
    scene, n_scenes = _codes(scenes)
    share, clusters = float(values.mean()), min(n_raters, n_scenes)
    variance = float(two_way_variance((values - share)[:, None] / len(values), rater, scene)[0])
    spread = share * (1 - share)
    effective = min(spread / variance, len(values)) if variance > 0 and spread > 0 else clusters
    low, high = _wilson(share, max(effective, 1.0), _quantile(clusters, level))
    return Share(share, low, high, len(values), n_raters, n_scenes, math.sqrt(variance))


def two_way_variance(scores: np.ndarray, rater: np.ndarray, scene: np.ndarray) -> np.ndarray:
    """(n, k) contributions to k sums -> (k,) variances of the sums, clustered by rater and by scene (codes from 0)."""
    by_rater, by_scene = _cluster_variance(scores, rater), _cluster_variance(scores, scene)
    both = _cluster_variance(scores, rater * (int(scene.max()) + 1) + scene)
    variance: np.ndarray = np.maximum(by_rater + by_scene - both, np.maximum(by_rater, by_scene))
    return variance


def _cluster_variance(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    sums = np.zeros((int(codes.max()) + 1, scores.shape[1]))
    np.add.at(sums, codes, scores)
    groups = len(np.unique(codes))
    variance: np.ndarray = (sums**2).sum(axis=0) * (groups / (groups - 1) if groups > 1 else 1.0)
    return variance


def _codes(labels: Any) -> tuple[np.ndarray, int]:
    unique, codes = np.unique(np.asarray(labels), return_inverse=True)
    return codes, len(unique)


def _quantile(clusters: int, level: float) -> float:
    return float(stats.t.ppf((1 + level) / 2, max(clusters - 1, 1)))


def _wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    square = quantile**2 / n
    centre = (share + square / 2) / (1 + square)
    half = quantile / (1 + square) * math.sqrt(share * (1 - share) / n + square / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Strength:
    """An arm's Bradley-Terry strength: log odds against the average arm, so that they add up to 0."""

    arm: str
    strength: float
    low: float
    high: float


def bradley_terry(
    winners: Sequence[str], losers: Sequence[str], raters: Any, scenes: Any, arms: Sequence[str], *, level: float = 0.95
) -> list[Strength] | None:
    """Strengths of ``arms`` by maximum likelihood (choix), with two-way clustered sandwich intervals.

    None if the answers do not connect all arms. A thousandth of an answer a pair keeps an arm that always won finite.
    """
    import choix

    place = {arm: index for index, arm in enumerate(arms)}
    won, lost = np.array([place[arm] for arm in winners]), np.array([place[arm] for arm in losers])
    if not _connected(len(arms), won, lost):
        return None
    counts = np.zeros((len(arms), len(arms)))
    np.add.at(counts, (won, lost), 1.0)
    counts += 1e-3 * ((counts + counts.T) > 0)
    theta = choix.ilsr_pairwise_dense(counts, max_iter=1000)
    theta = theta - theta.mean()
    contrast = np.eye(len(arms))[won] - np.eye(len(arms))[lost]
    chance = 1 / (1 + np.exp(-(theta[won] - theta[lost])))
    bread = np.linalg.pinv((contrast * (chance * (1 - chance))[:, None]).T @ contrast)
    (rater, n_raters), (scene, n_scenes) = _codes(raters), _codes(scenes)
    influence = (contrast * (1 - chance)[:, None]) @ bread
    half = _quantile(min(n_raters, n_scenes), level) * np.sqrt(two_way_variance(influence, rater, scene))
    return [Strength(arm, float(t), float(t - h), float(t + h)) for arm, t, h in zip(arms, theta, half, strict=True)]


def _connected(arms: int, won: np.ndarray, lost: np.ndarray) -> bool:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(won):
        return False
    graph = coo_array((np.ones(len(won)), (won, lost)), shape=(arms, arms))
    return int(connected_components(graph, directed=False)[0]) == 1


def agreement(raters: Any, items: Any, values: Any) -> dict[str, Any]:
    """Krippendorff's alpha of (n,) zeros and ones (2011, nominal), and the share of pairs of raters that agree.

    None where no item has two answers, and alpha also where all answers are the same.
    """
    item, n_items = _codes(items)
    ones = np.bincount(item, weights=np.asarray(values, float), minlength=n_items)
    totals = np.bincount(item, minlength=n_items).astype(float)
    several = totals >= 2
    result: dict[str, Any] = {"items": int(several.sum()), "alpha": None, "agreeing_pairs": None}
    if not several.any():
        return result
    ones, totals = ones[several], totals[several]
    agreeing = (ones * (ones - 1) + (totals - ones) * (totals - ones - 1)).sum() / (totals * (totals - 1)).sum()
    result["agreeing_pairs"] = float(agreeing)
    if 0 < ones.sum() < totals.sum():
        observed = (ones * (totals - ones) / (totals - 1)).sum()
        n, n_ones = totals.sum(), ones.sum()
        result["alpha"] = float(1 - (n - 1) * observed / (n_ones * (n - n_ones)))
    return result
