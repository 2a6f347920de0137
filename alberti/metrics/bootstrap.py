"""Confidence intervals by resampling images, or seeds and images, with replacement (percentile bootstrap, Efron 1979)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_CHUNK = 500  # resamples at once: bounds memory at _CHUNK * n counts


def bootstrap_interval(
    values: np.ndarray,
    *,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the mean over images.

    All columns share their resamples, and so does every call with the same n, ``resamples`` and ``seed``.

    Args:
        values: (n,) or (n, k), one row per image.
        groups: the scene of each image, where several images show one: whole scenes are resampled then, and a draw's mean is
            over the images that its scenes have.
        level: the interval's nominal coverage.

    Returns:
        Lower and upper bound, () or (k,).
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim not in (1, 2) or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"values: expected (n,) or (n, k) finite numbers with n > 0, got shape {values.shape}")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"expected 0 < level < 1 and resamples > 0, got {level} and {resamples}")
    scenes, count = _scenes(groups, len(values))
    generator, means = np.random.default_rng(seed), []
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        picks = _picks(generator, count, rows)[:, scenes]
        means.append((picks @ values).T / picks.sum(1))
    means = [mean.T for mean in means]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of ``a - b`` over images, with the lower and upper bound of its interval.

    ``a`` and ``b`` are (n,) or (n, k) and their rows the same images in the same order: what makes an image hard for
    both arms cancels, so the interval is that of the arms' difference.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"expected the same images in both arms, got shapes {a.shape} and {b.shape}")
    low, high = bootstrap_interval(a - b, level=level, resamples=resamples, seed=seed)
    return (a - b).mean(axis=0), low, high


@dataclass(frozen=True)
class Crossed:
    """Means of several quantities over the same seeds and images, and what resampling both makes of them."""

    means: np.ndarray
    """(k,)."""
    draws: np.ndarray
    """(resamples, k): the rows share their seeds and images, so that functions of several columns are paired."""

    def interval(self, draws: np.ndarray | None = None, *, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Percentile interval of the columns, or of ``draws`` made from them, (resamples, ...)."""
        low, high = np.quantile(self.draws if draws is None else draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high


def crossed_bootstrap(
    values: np.ndarray, *, groups: Sequence[str] | None = None, resamples: int = 10_000, seed: int = 0
) -> Crossed:
    """Resample seeds and images independently of each other (the pigeonhole bootstrap, Owen 2007).

    Every seed has the same images, so images are not nested in seeds: an image that is hard is hard in all of them. Means
    of few draws vary too little under resampling, by (s - 1) / s and (n - 1) / n; the parts that belong to seeds alone and
    to images alone are scaled back. With 1 seed the intervals are over images only. With 2 or 3 seeds they still are too
    narrow where most of the variation is between seeds, since so few values do not show their own spread: 3 seeds cover
    about 4 in 5 instead of 19 in 20 then (`tests/metrics/test_bootstrap.py`). Show the seeds' own values beside them.

    Args:
        values: (k, s, n): k quantities, s seeds, n images; the same seeds and images in each.
        groups: the scene of each image, where several images show one: whole scenes are resampled then, and a draw's mean is
            over the images that its scenes have.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 3 or 0 in values.shape or not np.isfinite(values).all():
        raise ValueError(f"values: expected (k, s, n) finite numbers, none of them 0, got shape {values.shape}")
    if resamples < 1:
        raise ValueError(f"expected resamples > 0, got {resamples}")
    _, s, n = values.shape
    scenes, count = _scenes(groups, n)
    means = values.mean((1, 2))
    of_seed = values.mean(2) - means[:, None]
    of_image = values.mean(1) - means[:, None]
    rest = values - means[:, None, None] - of_seed[:, :, None] - of_image[:, None, :]
    generator, parts = np.random.default_rng(seed), []
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        seeds = _picks(generator, s, rows) / s
        images = _picks(generator, count, rows)[:, scenes].astype(np.float64)
        images /= images.sum(1, keepdims=True)
        draw = _unshrunk(s) * seeds @ of_seed.T + _unshrunk(count) * images @ of_image.T
        for index in range(s):
            draw += seeds[:, index, None] * (images @ rest[:, index].T)
        parts.append(means + draw)
    return Crossed(means, np.concatenate(parts))


def _scenes(groups: Sequence[str] | None, n: int) -> tuple[np.ndarray, int]:
    """The number of each image's scene, and how many scenes there are."""
    scenes = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(scenes) != n:
        raise ValueError(f"groups: expected a scene for each of the {n} images, got {len(scenes)}")
    return scenes, int(scenes.max()) + 1


def _picks(generator: np.random.Generator, count: int, rows: int) -> np.ndarray:
    """(rows, count): how often each of ``count`` things is drawn in ``count`` draws with replacement."""
    picks = generator.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
    return np.bincount(picks.ravel(), minlength=rows * count).reshape(rows, count)


def _unshrunk(count: int) -> float:
    return float(np.sqrt(count / (count - 1))) if count > 1 else 1.0
