"""Distances between sets of pictures in the feature space of a named network, and the evaluation of generated pictures.

The default extractor is EfficientNet-Lite0, not Inception, so its Frechet distance is never called FID.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from alberti.data.manifest import Dataset, Sample
from alberti.errors import DataError
from alberti.extras import extra
from alberti.metrics.bootstrap import bootstrap_interval
from alberti.metrics.depth_seen import depth_seen
from alberti.metrics.features import (
    EXTRACTORS,
    EfficientNetLite0,
    FeatureExtractor,
    extract_features,
    feature_extractor,
)
from alberti.metrics.picture_rows import PictureJob, find_points, measure_picture
from alberti.parallel import ordered_results
from alberti.progress import track
from alberti.seeding import numpy_generator

if TYPE_CHECKING:
    import pandas as pd

    from alberti.depth.models import DepthModel

__all__ = [
    "EXTRACTORS",
    "EfficientNetLite0",
    "FeatureExtractor",
    "KernelDistance",
    "evaluate_pictures",
    "feature_extractor",
    "frechet_distance",
    "kernel_distance",
]

_BLOCK = 1024


def _check_features(features_a: np.ndarray, features_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(features_a, np.float64), np.asarray(features_b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"features: expected (N, D) and (M, D) of one extractor, got {a.shape} and {b.shape}")
    if len(a) < 2 or len(b) < 2:
        raise DataError(f"a distance between two sets needs 2 images in each, got {len(a)} and {len(b)}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("features: NaN or infinite values")
    return a, b


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Squared Frechet (2-Wasserstein) distance between the Gaussians fitted to two sets of features, (N, D) and (M, D).

    |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) with sample covariances (n - 1), no shrinkage and nothing added
    to the diagonal (Dowson & Landau 1982, eq. 16). With S_a = A^T A and S_b = B^T B for centred, scaled features A and
    B, the last trace is the sum of the singular values of A B^T, which needs no matrix square root and is stable for
    singular covariances. Symmetric; zero for equal sets.

    With fewer images than features (a warning says so) the estimate is biased upwards: compare only values taken with
    the same numbers of images and the same extractor.
    """
    a, b = _check_features(features_a, features_b)
    if min(len(a), len(b)) < a.shape[1]:
        warnings.warn(
            f"Frechet distance from {len(a)} and {len(b)} images in {a.shape[1]} dimensions is biased upwards; "
            "compare it only with values from the same numbers of images",
            stacklevel=2,
        )
    mean_a, mean_b = a.mean(0), b.mean(0)
    root_a = _square_root_factor((a - mean_a) / np.sqrt(len(a) - 1))
    root_b = _square_root_factor((b - mean_b) / np.sqrt(len(b) - 1))
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    distance = ((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * cross
    return max(float(distance), 0.0)


def _square_root_factor(centred: np.ndarray) -> np.ndarray:
    """R with R^T R = centred^T centred and at most D rows."""
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(centred) > centred.shape[1] else centred


@dataclass(frozen=True)
class KernelDistance:
    """Unbiased squared kernel distance and its bootstrap interval over images."""

    value: float
    low: float
    high: float


def kernel_distance(
    features_a: np.ndarray,
    features_b: np.ndarray,
    *,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> KernelDistance:
    """Unbiased estimate of the squared maximum mean discrepancy under the kernel (x . y / D + 1)^3.

    The kernel and estimator of Binkowski et al. 2018 ("Demystifying MMD GANs"), over all pairs rather than subsets;
    unbiased, so it is fit for few images and may be negative. The interval is the percentile bootstrap over images of
    both sets, where a pair made of one image drawn twice does not count. ``bootstrap=0``: the interval is the value.
    """
    a, b = _check_features(features_a, features_b)
    rng = numpy_generator(seed, "kernel_distance", len(a), len(b))
    # Row 0 weighs every image once: the estimate itself. Each further row is one bootstrap sample as counts.
    weights_a = np.vstack([np.ones(len(a)), rng.multinomial(len(a), np.full(len(a), 1 / len(a)), bootstrap)])
    weights_b = np.vstack([np.ones(len(b)), rng.multinomial(len(b), np.full(len(b), 1 / len(b)), bootstrap)])
    values = (
        _mean_kernel(a, a, weights_a, weights_a, within=True)
        + _mean_kernel(b, b, weights_b, weights_b, within=True)
        - 2 * _mean_kernel(a, b, weights_a, weights_b, within=False)
    )
    tail = (1 - confidence) / 2
    samples = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(samples, [tail, 1 - tail]) if len(samples) else (values[0], values[0])
    return KernelDistance(float(values[0]), float(low), float(high))


def _mean_kernel(a: np.ndarray, b: np.ndarray, weights_a: np.ndarray, weights_b: np.ndarray, within: bool) -> np.ndarray:
    """Weighted mean of k(a_i, b_j), one value for each row of weights; ``within``: without the pairs i = j."""
    total = np.zeros(len(weights_a))
    for i in range(0, len(a), _BLOCK):
        for j in range(0, len(b), _BLOCK):
            kernel = (a[i : i + _BLOCK] @ b[j : j + _BLOCK].T / a.shape[1] + 1.0) ** 3
            if within and i == j:
                np.fill_diagonal(kernel, 0.0)
            total += ((weights_a[:, i : i + _BLOCK] @ kernel) * weights_b[:, j : j + _BLOCK]).sum(1)
    pairs = weights_a.sum(1) * weights_b.sum(1)
    if within:
        pairs = pairs - (weights_a**2).sum(1)
    # Of few images a bootstrap sample may hold one image only, and then no pair.
    return total / np.where(pairs > 0, pairs, np.nan)


def evaluate_pictures(
    generated: Dataset,
    reference: Dataset,
    *,
    extractor: FeatureExtractor | None = None,
    depth_model: "DepthModel | None" = None,
    thresholds: tuple[float, ...] = (2.0, 5.0),
    num_lines: int = 1000,
    batch_size: int = 32,
    resamples: int = 2000,
    seed: int = 0,
    workers: int = 1,
) -> tuple[dict[str, float | int | str | None], "pd.DataFrame"]:
    """How well generated pictures obey their vanishing points, and how near they are to reference pictures.

    Args:
        generated: pictures with the vanishing points of the depth maps that they were made from.
        reference: real or rendered pictures. Where it has a picture of the same id, that is the generated one's pair:
            its own consistency and the perspective loss against it enter the row. Points that the data set does not know
            (Virtual KITTI 2, SYNTHIA-AL) are those found in the pair, whose own consistency then says little.
        extractor: of the features for the distances; None: :class:`EfficientNetLite0`.
        depth_model: sees depth in the pictures, for the column ``depth_seen``; None: there is no such column.
        thresholds: degrees within which a line counts as pointing at a vanishing point.
        num_lines: of the perspective loss.
        resamples: of the bootstrap behind the 95 % intervals.
        workers: processes that look for lines; above 1, a script that calls this needs its ``if __name__ == "__main__":``.

    Returns:
        A flat summary and a table with one row per picture. For each column ``c`` of numbers the summary holds the mean
        ``c`` over the pictures that have it, the interval ``c_low``, ``c_high`` and their number ``c_n``; beside them
        ``n``, ``n_points_found`` (pictures whose points were found in their pair), ``n_reference``, ``extractor``,
        ``frechet_distance`` (squared), ``kernel_distance`` with its interval.

        Columns: ``consistency_<t>`` (share of the detected line length), ``line_length`` (pixels), ``segments``,
        ``level_line_length`` (pixels of lines within 2 degrees of a vanishing point that is not the upright one),
        ``surface_consistency_<t>`` and ``surface_line_length`` (of :func:`alberti.metrics.perspective.surface_consistency`;
        empty without metric depth and intrinsics),
        ``vp_error`` (degrees from a true vanishing point to the nearest estimated one, mean over the true ones; empty
        if none was estimated), ``vp_auc_10`` (1 - error / 10 degrees, at least 0, mean over the true ones; 0 if none
        was estimated), ``perspective_loss``, ``depth_seen`` (:func:`alberti.metrics.depth_seen.depth_seen`), and
        ``reference_consistency_<t>``, ``reference_line_length`` of the pair.

    Raises:
        DataError: a picture without vanishing points in its row and without a pair, a missing or damaged file.
    """
    with extra("depth", "a table of measured pictures"):
        import pandas as pd

    pairs = {sample.id: sample for sample in reference if sample.image is not None}
    points = _points(generated, reference, pairs, workers)
    jobs = [_job(generated, sample, reference, pairs.get(sample.id), points[sample.id], thresholds) for sample in generated]
    rows = list(track(ordered_results(measure_picture, jobs, workers), "evaluating pictures", len(jobs)))
    losses = _losses_against_pairs(generated, reference, pairs, points, num_lines, batch_size)
    for row in rows:
        row["perspective_loss"] = losses.get(str(row["id"]))
    if depth_model is not None:
        seen = depth_seen(generated, depth_model, batch_size=batch_size)
        for row in rows:
            row["depth_seen"] = seen.get(str(row["id"]))
    table = pd.DataFrame(rows)
    found = sum(sample.vanishing_points is None for sample in generated)
    summary: dict[str, float | int | str | None] = {"n": len(table), "n_points_found": found}
    for column in table.columns.drop("id"):
        summary.update(_mean_with_interval(column, table[column].dropna().to_numpy(np.float64), resamples, seed))
    summary.update(_set_distances(generated, list(pairs.values()), reference, extractor, batch_size, resamples, seed))
    return summary, table


def _points(generated: Dataset, reference: Dataset, pairs: dict[str, Sample], workers: int) -> dict[str, np.ndarray]:
    """(K, 3) vanishing points by id; where the data set does not know them, those found in the picture's pair."""
    unknown = [sample for sample in generated if sample.vanishing_points is None]
    for sample in unknown:
        if sample.id not in pairs:
            raise DataError(
                f"{generated.folder}: sample {sample.id!r} has no vanishing points to be measured against, and "
                f"{reference.folder} has no reference picture of it to find them in"
            )
    asked = [(reference.image_path(pairs[sample.id]), reference.camera(pairs[sample.id])) for sample in unknown]
    found = dict(zip((sample.id for sample in unknown), ordered_results(find_points, asked, workers), strict=True))
    known = {sample.id: sample.vanishing_points for sample in generated if sample.vanishing_points is not None}
    return found | {name: np.asarray(points, np.float64).reshape(-1, 3) for name, points in known.items()}


def _job(
    generated: Dataset,
    sample: Sample,
    reference: Dataset,
    pair: Sample | None,
    points: np.ndarray,
    thresholds: tuple[float, ...],
) -> PictureJob:
    path = None if pair is None else reference.image_path(pair)
    known = sample.depth is not None and generated.info.depth_kind == "z"
    depth = Dataset(generated.folder, generated.info, [sample]) if known else None
    return PictureJob(sample.id, generated.image_path(sample), points, generated.camera(sample), path, thresholds, depth)


def _losses_against_pairs(
    generated: Dataset,
    reference: Dataset,
    pairs: dict[str, Sample],
    points: Mapping[str, np.ndarray],
    num_lines: int,
    batch_size: int,
) -> dict[str, float]:
    """Perspective loss by id, of the pictures that have vanishing points and a pair of their own size."""
    from alberti.data.transforms import stack_vanishing_points, to_tensor
    from alberti.losses.perspective import perspective_loss

    by_size: dict[tuple[int, int], list[Sample]] = {}
    for sample in generated:
        pair = pairs.get(sample.id)
        if pair is not None and len(points[sample.id]) and (pair.width, pair.height) == (sample.width, sample.height):
            by_size.setdefault((sample.width, sample.height), []).append(sample)
    losses: dict[str, float] = {}
    for samples in by_size.values():
        for start in range(0, len(samples), batch_size):
            batch = samples[start : start + batch_size]
            made = torch.stack([to_tensor(generated.read_image(sample)) for sample in batch])
            true = torch.stack([to_tensor(reference.read_image(pairs[sample.id])) for sample in batch])
            stacked = torch.from_numpy(stack_vanishing_points([points[sample.id] for sample in batch]))
            values = perspective_loss(made, true, stacked, num_lines=num_lines)
            losses.update(zip((sample.id for sample in batch), values.tolist(), strict=True))
    return losses


def _mean_with_interval(name: str, values: np.ndarray, resamples: int, seed: int) -> dict[str, float | int | None]:
    if len(values) == 0:
        return {name: None, f"{name}_low": None, f"{name}_high": None, f"{name}_n": 0}
    low, high = bootstrap_interval(values, resamples=resamples, seed=seed)
    return {
        name: float(values.mean()),
        f"{name}_low": float(low),
        f"{name}_high": float(high),
        f"{name}_n": len(values),
    }


def _set_distances(
    generated: Dataset,
    references: list[Sample],
    reference: Dataset,
    extractor: FeatureExtractor | None,
    batch_size: int,
    resamples: int,
    seed: int,
) -> dict[str, float | int | str | None]:
    extractor = extractor or EfficientNetLite0()
    made = extract_features(map(generated.image_path, generated), extractor, batch_size=batch_size)
    true = extract_features(map(reference.image_path, references), extractor, batch_size=batch_size)
    with warnings.catch_warnings():
        # Said in the report beside the number; every arm is measured with the same n.
        warnings.simplefilter("ignore", UserWarning)
        frechet = frechet_distance(made, true)
    kernel = kernel_distance(made, true, bootstrap=resamples, seed=seed)
    return {
        "n_reference": len(true),
        "extractor": extractor.name,
        "frechet_distance": frechet,
        "kernel_distance": kernel.value,
        "kernel_distance_low": kernel.low,
        "kernel_distance_high": kernel.high,
    }
