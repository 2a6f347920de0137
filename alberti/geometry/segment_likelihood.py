"""Line segments as measurements of vanishing points: how likely is each of them under a given point?

All of it is in *frame* coordinates u = (p - principal point) / half the longer side, in which numbers stay near one. A
segment measures the direction of its line at its midpoint m; a point v = (x, y, w) predicts the direction
(x - w m_x, y - w m_y). The sine of the angle between the two is l . v / |v_xy - w m| for the line l through m with
unit normal. Finite and infinite points are alike, and no focal length enters.
"""

from dataclasses import dataclass

import numpy as np

END_NOISE = 0.6
"""Standard deviation of a segment's ends across its direction, in pixels."""
ANGLE_NOISE = np.radians(0.35)
"""What remains of the angle's error in long segments: lens distortion, walls that are not quite parallel."""
OUTLIER_SHARE = 0.35
SEARCH_GATE = 3.0
"""Errors past so many standard deviations count as no support in the search."""


@dataclass(frozen=True)
class Frame:
    """Pixels <-> frame coordinates."""

    cx: float
    cy: float
    scale: float
    aspect: float
    """fx / fy."""

    def to_frame(self, pixels: np.ndarray) -> np.ndarray:
        """(..., 2) pixels -> frame."""
        return (pixels - [self.cx, self.cy]) * [1.0, self.aspect] / self.scale

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) homogeneous frame points -> homogeneous pixels, unit norm."""
        x = points[..., 0] * self.scale + points[..., 2] * self.cx
        y = points[..., 1] * self.scale / self.aspect + points[..., 2] * self.cy
        pixels = np.stack([x, y, points[..., 2]], axis=-1)
        return pixels / np.linalg.norm(pixels, axis=-1, keepdims=True)


@dataclass(frozen=True)
class SegmentModel:
    """N segments with their noise and weight."""

    lines: np.ndarray
    """(N, 3) lines l, l_x^2 + l_y^2 = 1, frame coordinates."""
    middles: np.ndarray
    """(N, 2) midpoints."""
    sigma: np.ndarray
    """(N,) standard deviation of the sine of the angle."""
    weight: np.ndarray
    """(N,) how much a segment counts; mean 1."""

    @classmethod
    def from_segments(cls, segments: np.ndarray, frame: Frame, pixel_noise: float = END_NOISE) -> "SegmentModel":
        """From (N, 4) segments in pixels."""
        ends = frame.to_frame(segments.reshape(-1, 2, 2))
        middles = ends.mean(axis=1)
        along = ends[:, 1] - ends[:, 0]
        length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-12)
        normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / length[:, None]
        lines = np.concatenate([normal, -(normal * middles).sum(axis=1, keepdims=True)], axis=1)
        # Two independent ends: the direction's variance is 2 sigma^2 / length^2.
        sigma = np.hypot(np.sqrt(2) * pixel_noise / (length * frame.scale), ANGLE_NOISE)
        weight = length / length.mean() if len(length) else length
        return cls(lines, middles, sigma, weight)

    def __len__(self) -> int:
        return len(self.lines)

    def take(self, index: np.ndarray) -> "SegmentModel":
        """The segments at ``index``."""
        return SegmentModel(self.lines[index], self.middles[index], self.sigma[index], self.weight[index])

    def sines(self, points: np.ndarray) -> np.ndarray:
        """Signed sine of the angle of every segment to every point: (M, 3) -> (M, N)."""
        return (points @ self.lines.T) / np.sqrt(self.squared_distances(points))

    def squared_distances(self, points: np.ndarray) -> np.ndarray:
        """|v_xy - w m|^2: (M, 3) -> (M, N), never zero."""
        x, y, w = points.T
        terms = np.stack([x * x + y * y, -2 * w * x, -2 * w * y, w * w], axis=1)
        middles = np.concatenate(
            [np.ones((len(self), 1)), self.middles, (self.middles**2).sum(axis=1, keepdims=True)], axis=1
        )
        return np.maximum(terms @ middles.T.astype(points.dtype), 1e-10)

    def support(self, points: np.ndarray) -> np.ndarray:
        """A truncated quadratic of every error, for the search: (M, 3) -> (M, N) in [0, weight], float32."""
        points = points.astype(np.float32)
        numerator = points @ self.lines.T.astype(np.float32)
        error = numerator * numerator / self.squared_distances(points)
        error *= (-1.0 / (SEARCH_GATE * self.sigma) ** 2).astype(np.float32)
        error += 1.0
        np.maximum(error, 0.0, out=error)
        error *= (self.weight * self.information).astype(np.float32)
        return error

    @property
    def information(self) -> np.ndarray:
        """(N,) log odds that a segment gives a point which it meets exactly, against chance."""
        return np.log(1.0 + (1 - OUTLIER_SHARE) / OUTLIER_SHARE * np.sqrt(np.pi / 2) / (3 * self.sigma))
