"""Confidence intervals by resampling images with replacement (percentile bootstrap, Efron 1979)."""

import numpy as np

_CHUNK = 500  # resamples at once: bounds memory at _CHUNK * n counts


def bootstrap_interval(
    values: np.ndarray, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the mean over images.

    All columns share their resamples, and so does every call with the same n, ``resamples`` and ``seed``.

    Args:
        values: (n,) or (n, k), a row an image.
        level: the interval's nominal coverage.

    Returns:
        Lower and upper bound, () or (k,).
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim not in (1, 2) or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"values: expected (n,) or (n, k) finite numbers with n > 0, got shape {values.shape}")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"expected 0 < level < 1 and resamples > 0, got {level} and {resamples}")
    n, generator, means = len(values), np.random.default_rng(seed), []
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        picks = generator.integers(0, n, (rows, n)) + np.arange(rows)[:, None] * n
        counts = np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n)
        means.append(counts @ values / n)
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
