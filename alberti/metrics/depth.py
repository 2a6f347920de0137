"""Depth metrics, the protocols under which KITTI and DIODE numbers are published, and alignment.

Depth is metres; everything is computed in float64. The metrics are those of Eigen et al. 2014 with SILog as KITTI's
benchmark reports it.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from alberti.errors import ConfigError, DataError

METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "silog", "log10", "d1", "d2", "d3")
HIGHER_IS_BETTER = frozenset({"d1", "d2", "d3"})
ALIGNMENTS = ("none", "median", "affine_disparity", "weighted_disparity", "affine_depth")
DISPARITY = frozenset({"affine_disparity", "weighted_disparity"})
"""Those of inverse relative depth."""
AFFINE = frozenset({"affine_disparity", "weighted_disparity", "affine_depth"})
"""Those that fit a shift as well: any sign of the prediction is ordinary."""
KB_SIZE = (352, 1216)
"""(rows, columns) of the KITTI benchmark crop, bottom-centred."""

_CROPS = {
    # (top, bottom, left, right) as fractions of the image, rounded down
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
    "none": (0.0, 1.0, 0.0, 1.0),
}


@dataclass(frozen=True)
class Protocol:
    """Which ground truth is compared where. Numbers of different protocols do not belong in one table."""

    name: str
    ground_truth: str
    """Kind of the ground truth: "lidar_forward", "annotated", "diode" or "metric"."""
    crop: str
    """"garg", "eigen" or "none": the part of the image that counts."""
    images: int | None
    """How many images the published list has."""
    description: str
    min_depth: float = 1e-3
    max_depth: float = 80.0
    kb_window: bool = False
    """Predictions cover the KITTI benchmark crop only (352 x 1216, bottom-centred); pixels outside do not count."""
    cap_ground_truth: bool = True
    """Leave out ground truth past ``max_depth``. Predictions are clipped to [min_depth, max_depth] in any case."""

    def valid(self, target: np.ndarray) -> np.ndarray:
        """The (H, W) mask of pixels that count, given (H, W) ground truth in metres."""
        with np.errstate(invalid="ignore"):
            valid = np.isfinite(target) & (target > (self.min_depth if self.cap_ground_truth else 0.0))
            if self.cap_ground_truth:
                valid &= target < self.max_depth
        height, width = target.shape
        top, bottom, left, right = _CROPS[self.crop]
        inside = np.zeros_like(valid)
        inside[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
        if self.kb_window:
            rows, columns = kb_window(height, width)
            window = np.zeros_like(valid)
            window[rows, columns] = True
            inside &= window
        return valid & inside


_LIST = (
    Protocol("eigen_garg", "lidar_forward", "garg", 697, "Eigen's 697 images, raw LiDAR as monodepth2, Garg's crop"),
    Protocol("eigen_eigen_crop", "lidar_forward", "eigen", 697, "Eigen's 697 images, raw LiDAR, Eigen's crop"),
    Protocol("eigen_no_crop", "lidar_forward", "none", 697, "Eigen's 697 images, raw LiDAR, whole image"),
    Protocol(
        "eigen_garg_kb",
        "lidar_forward",
        "garg",
        697,
        "as eigen_garg, predictions on the KITTI benchmark crop",
        kb_window=True,
    ),
    Protocol(
        "eigen_benchmark",
        "annotated",
        "garg",
        652,
        "Eigen's images with annotated depth, Garg's crop, as BTS, AdaBins and PixelFormer",
    ),
    Protocol("eigen_benchmark_eigen_crop", "annotated", "eigen", 652, "annotated depth, Eigen's crop"),
    Protocol("eigen_benchmark_no_crop", "annotated", "none", 652, "annotated depth, whole image"),
    Protocol(
        "eigen_benchmark_kb",
        "annotated",
        "garg",
        652,
        "as eigen_benchmark, predictions on the KITTI benchmark crop",
        kb_window=True,
    ),
    Protocol(
        "eigen_benchmark_monodepth2",
        "annotated",
        "none",
        652,
        "annotated depth as monodepth2 scores it: whole image, ground truth past 80 m counts",
        cap_ground_truth=False,
    ),
    Protocol("metric_80", "metric", "none", None, "depth maps in metres of a data set of your own, whole image, to 80 m"),
    Protocol("diode_outdoor", "diode", "none", 446, "DIODE's outdoor validation images, whole image"),
    Protocol("diode_indoor", "diode", "none", 325, "DIODE's indoor validation images, whole image, to 10 m", max_depth=10.0),
    Protocol(
        "diode_all",
        "diode",
        "none",
        771,
        "all of DIODE's validation images, 0.6 to 350 m, as Marigold",
        min_depth=0.6,
        max_depth=350.0,
    ),
)
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _LIST}


@dataclass(frozen=True)
class GroundTruth:
    """Depth to compare with, and what kind it is: a protocol refuses every other kind."""

    depth: np.ndarray
    """(H, W) metres, 0 = no measurement."""
    kind: str


class Aligned(NamedTuple):
    """A prediction brought to metres."""

    depth: np.ndarray
    scale: float
    shift: float


def get_protocol(name: str | Protocol) -> Protocol:
    """The protocol of this name; ConfigError that lists them if there is none."""
    if isinstance(name, Protocol):
        return name
    if name not in PROTOCOLS:
        known = "; ".join(f"{p.name} ({p.description})" for p in PROTOCOLS.values())
        raise ConfigError(f"protocol (--protocol): unknown {name!r}; there are: {known}")
    return PROTOCOLS[name]


def kb_window(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the KITTI benchmark crop; DataError if the image is smaller than it."""
    rows, columns = KB_SIZE
    if height < rows or width < columns:
        raise DataError(f"the KITTI benchmark crop is {columns} x {rows}, larger than the image of {width} x {height}")
    top, left = height - rows, (width - columns) // 2
    return slice(top, top + rows), slice(left, left + columns)


def depth_metrics(pred: Any, target: Any, mask: Any) -> dict[str, float]:
    """The metrics of one image over the pixels of ``mask``.

    With g the target, p the prediction, means over the mask's pixels: abs_rel = mean |p - g| / g,
    sq_rel = mean (p - g)^2 / g, rmse = sqrt(mean (p - g)^2), e = ln p - ln g, rmse_log = sqrt(mean e^2),
    silog = 100 sqrt(mean e^2 - (mean e)^2), log10 = mean |log10 p - log10 g|, and d1, d2, d3 the shares with
    max(p / g, g / p) < 1.25, 1.25^2, 1.25^3.

    Args:
        pred, target: (H, W) metres, numpy arrays or torch tensors.
        mask: (H, W), true (not 0) where pixels count.

    Raises:
        DataError: shapes differ, no pixel counts, or a pixel that counts is not positive and finite in either.
    """
    pred, target = as_array(pred, "pred"), as_array(target, "target")
    mask = as_array(mask, "mask").astype(bool)
    if pred.ndim != 2 or pred.shape != target.shape or pred.shape != mask.shape:
        raise DataError(
            f"expected pred, target and mask of one (H, W) shape, got {pred.shape}, {target.shape} and {mask.shape}"
        )
    return _metrics(pred[mask], target[mask])


def _metrics(pred: np.ndarray, target: np.ndarray) -> dict[str, float]:
    if pred.size == 0:
        raise DataError("no pixel to compare: the mask is empty")
    pred, target = pred.astype(np.float64), target.astype(np.float64)
    for name, depth in (("pred", pred), ("target", target)):
        bad = int((~(np.isfinite(depth) & (depth > 0))).sum())
        if bad:
            raise DataError(f"{name}: depth must be positive and finite; {bad} of {depth.size} pixels that count are not")
    difference, error = pred - target, np.log(pred) - np.log(target)
    ratio = np.maximum(pred / target, target / pred)
    squares = difference**2
    values = {
        "abs_rel": np.mean(np.abs(difference) / target),
        "sq_rel": np.mean(squares / target),
        "rmse": np.sqrt(np.mean(squares)),
        "rmse_log": np.sqrt(np.mean(error**2)),
        "silog": 100 * np.std(error),  # the variance, without the cancellation of mean of squares - square of mean
        "log10": np.mean(np.abs(error)) / np.log(10),
        "d1": np.mean(ratio < 1.25),
        "d2": np.mean(ratio < 1.25**2),
        "d3": np.mean(ratio < 1.25**3),
    }
    return {name: float(values[name]) for name in METRICS}


def align(pred: Any, target: Any, mask: Any, how: str, *, max_depth: float = 80.0) -> Aligned:
    """Bring one prediction to metres by the pixels of ``mask``.

    - "none": the prediction is metres.
    - "median": depth up to scale, times median(target) / median(pred).
    - "affine_disparity": inverse depth up to scale and shift. Least squares of scale * pred + shift against 1 / target
      over the mask (Ranftl et al. 2022), then depth = 1 / max(scale * pred + shift, 1 / max_depth).
    - "weighted_disparity": the same with each pixel weighed by the square of its depth, so that the fit makes the relative
      error of the disparity small. Under plain least squares far pixels, whose disparity is small, hardly count, and a slight
      shift sends them to the cap; this says how much of an error is the fit's.
    - "affine_depth": depth up to scale and shift (affine-invariant models such as Marigold). Least squares of
      scale * pred + shift against target over the mask.

    Args:
        pred, target, mask: of one shape; pred may be inverse relative depth for "affine_disparity".

    Raises:
        ConfigError: an unknown alignment.
        DataError: no pixel in the mask, a constant prediction that no scale fits, a median that is not positive.
    """
    pred, target = as_array(pred, "pred"), as_array(target, "target")
    mask = as_array(mask, "mask").astype(bool)
    scale, shift = fit_alignment(pred[mask].astype(np.float64), target[mask].astype(np.float64), how)
    return Aligned(apply_alignment(pred.astype(np.float64), how, scale, shift, max_depth), scale, shift)


def fit_alignment(pred: np.ndarray, target: np.ndarray, how: str) -> tuple[float, float]:
    """The scale and shift of :func:`align`, from the (n,) float64 values of the pixels that count."""
    check_alignment(how)
    if pred.size == 0:
        raise DataError("no pixel to align by: the mask is empty")
    if not (np.isfinite(target) & (target > 0)).all():
        raise DataError("target: depth must be positive and finite at every pixel that counts")
    if how == "none":
        return 1.0, 0.0
    if how == "median":
        middle = float(np.median(pred))
        if not middle > 0:
            raise DataError(f"median alignment needs a positive median, the prediction's is {middle:g}")
        return float(np.median(target)) / middle, 0.0
    wanted = target if how == "affine_depth" else 1.0 / target
    weight = target**2 / (target @ target) if how == "weighted_disparity" else np.full(len(target), 1.0 / len(target))
    mean, middle = float(weight @ pred), float(weight @ wanted)
    centred = pred - mean
    spread = float(weight @ centred**2)
    if not spread > 1e-20 * float(weight @ pred**2):
        raise DataError(f"{how}: the prediction is constant over the valid pixels, no scale and shift fit")
    scale = float((weight * centred) @ (wanted - middle)) / spread
    return scale, middle - scale * mean


def apply_alignment(pred: np.ndarray, how: str, scale: float, shift: float, max_depth: float) -> np.ndarray:
    """The metres that :func:`align` makes of ``pred`` with a scale and shift already fitted."""
    if how in DISPARITY:
        return 1.0 / np.maximum(scale * pred + shift, 1.0 / max_depth)
    return pred * scale + shift if how == "affine_depth" else pred * scale


def check_alignment(how: str) -> None:
    """ConfigError unless ``how`` is one of :data:`ALIGNMENTS`."""
    if how not in ALIGNMENTS:
        raise ConfigError(f"alignment (--align): expected one of {', '.join(ALIGNMENTS)}, got {how!r}")


def score_image(pred: np.ndarray, truth: GroundTruth, protocol: Protocol, alignment: str) -> dict[str, float | int]:
    """One row of a results table: the metrics under a protocol, and what the image was like.

    ``pixels`` counts those compared; ``scale`` and ``shift`` are the alignment's; ``pred_median`` and ``target_median``
    are medians over the pixels before alignment; ``correlation`` is that of prediction and ground truth, negative where the
    prediction falls as depth grows; ``zeros`` counts pixels where the prediction is 0: metric ones become the minimum
    depth, as in the reference evaluators.

    Args:
        pred: (H, W) as ``truth``, or 352 x 1216 where the protocol has a KB window. Metres, or relative depth for the affine
            alignments, where negative values are ordinary.

    Raises:
        DataError: another kind of ground truth, another size, NaN, infinite or (metric) negative predictions, no pixel.
    """
    if truth.kind != protocol.ground_truth:
        raise DataError(f"protocol {protocol.name} scores {protocol.ground_truth} ground truth, got {truth.kind}")
    pred = check_prediction(pred, truth.depth.shape, protocol, alignment)
    mask = protocol.valid(truth.depth)
    values, target = pred[mask].astype(np.float64), truth.depth[mask].astype(np.float64)
    if target.size == 0:
        raise DataError(f"no valid ground truth under protocol {protocol.name}")
    scale, shift = fit_alignment(values, target, alignment)
    depth = np.clip(
        apply_alignment(values, alignment, scale, shift, protocol.max_depth), protocol.min_depth, protocol.max_depth
    )
    return {
        **_metrics(depth, target),
        "pixels": int(target.size),
        "scale": scale,
        "shift": shift,
        "pred_median": float(np.median(values)),
        "target_median": float(np.median(target)),
        "correlation": _correlation(values, target),
        "zeros": int((values == 0).sum()),
    }


def _correlation(values: np.ndarray, target: np.ndarray) -> float:
    """Pearson's; 0 where one of the two is constant."""
    a, b = values - values.mean(), target - target.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / spread if spread > 0 else 0.0


def check_prediction(pred: np.ndarray, shape: tuple[int, ...], protocol: Protocol, alignment: str) -> np.ndarray:
    """The prediction at the ground truth's (H, W), placed in the KB window if need be; DataError as :func:`score_image`."""
    pred = as_array(pred, "prediction")
    finite = np.isfinite(pred)
    if not finite.all():
        raise DataError(
            f"{int((~finite).sum())} of {pred.size} predicted values are NaN or infinite; a prediction is finite everywhere"
        )
    if alignment not in AFFINE and pred.size and pred.min() < 0:
        raise DataError(f"{int((pred < 0).sum())} of {pred.size} predicted depths are negative, down to {pred.min():g}")
    if pred.shape == shape:
        return pred
    if protocol.kb_window and pred.shape == KB_SIZE:
        whole = np.zeros(shape, dtype=pred.dtype)
        whole[kb_window(*shape)] = pred
        return whole
    check_shape(pred.shape, shape, protocol)
    raise DataError(
        f"the prediction is {_size(pred.shape)} pixels, the ground truth {_size(shape)}; predict at that size, or have it "
        "resized (--resize-predictions bilinear or nearest)"
    )


def check_shape(found: tuple[int, ...], shape: tuple[int, ...], protocol: Protocol) -> None:
    """Refuse a prediction of another size that is no smaller or larger copy of the whole picture.

    A stretched prediction gives plausible numbers, and wrong ones.

    Raises:
        DataError: no (H, W) map, KITTI's benchmark crop under a protocol for the whole picture, a transposed map, an aspect
            that differs by more than a factor of 1.5.
    """
    sizes = f"the prediction is {_size(found)} pixels, the ground truth {_size(shape)}"
    if len(found) != 2 or 0 in found:
        raise DataError(f"{sizes}; expected one (H, W) map")
    if is_kb_crop(found, shape) and not protocol.kb_window:
        name = f"{protocol.name}_kb"
        instead = f"--protocol {name}" if name in PROTOCOLS else "one of the protocols whose names end in _kb"
        raise DataError(
            f"{sizes}: that is KITTI's benchmark crop, which does not cover the picture and is not resized to it; score it "
            f"with {instead}"
        )
    if found != shape and found[::-1] == shape:
        raise DataError(f"{sizes}: rows and columns are swapped; save the transposed map")
    change = aspect_change(found, shape)
    if change > MOST_STRETCHED and not (protocol.kb_window and is_kb_crop(found, shape)):
        raise DataError(f"{sizes}: the aspect differs by a factor of {change:.2f}; a crop or a swapped map, not a resized copy")


MOST_STRETCHED = 1.5


def aspect_change(found: tuple[int, ...], shape: tuple[int, ...]) -> float:
    """By which factor the aspect of two (H, W) differs, at least 1."""
    ratio = (found[1] * shape[0]) / (found[0] * shape[1])
    return max(ratio, 1 / ratio)


def is_kb_crop(found: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a map of shape ``found`` is KITTI's benchmark crop, at its size or another, of a larger picture of ``shape``."""
    rows, columns = KB_SIZE
    if shape[0] < rows or shape[1] < columns or found == shape or tuple(shape) == KB_SIZE:
        return False
    return abs(found[1] - found[0] * columns / rows) <= 1.0


def as_array(values: Any, name: str) -> np.ndarray:
    """A numpy array of a numpy array, a list or a torch tensor on any device, without importing torch."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() and values.element_size() < 4 else values).numpy()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name}: expected an array of numbers, got {array.dtype}")
    return array


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}" if len(shape) == 2 else f"of shape {shape}"
