"""Line segments as measurements of vanishing points: how likely is each of them under a given point?

All of it is in *frame* coordinates u = (p - principal point) / half the longer side, in which numbers stay near one. A
segment measures the direction of its line at its midpoint m; a point v = (x, y, w) predicts the direction
(x - w m_x, y - w m_y). The sine of the angle between the two is l . v / |v_xy - w m| for the line l through m with
unit normal. Finite and infinite points are alike, and no focal length enters.
"""

from dataclasses import dataclass, replace

import numpy as np

NOISE_LEVELS = ((0.1, 0.02), (0.2, 0.05), (0.5, 0.2))
"""From renders to photographs: the standard deviation of a segment's ends across its direction in pixels; and, in degrees,
what remains in long segments: lens distortion, walls that are not quite parallel. The picture's likelihood picks one."""
SEARCH_NOISE = ((0.6, 0.2), (0.2, 0.05))
"""The search is made at both: the wide one misses sharp points close to many blurred ones, the sharp one faint points."""
WIDE = 3.0
"""Some of the segments that belong to a point are so much less precise."""
WIDE_SHARE = 0.3
OUTLIER_SHARE = 0.2
DISPERSION = 10.0
"""So many times larger are the variances of estimates than independent segments would make them: the segments of one
wall err together. Beliefs held before the picture weigh so much more against their likelihood."""
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
    """N segments with their noise. Each counts once, whatever its length: a longer one is only more precise."""

    lines: np.ndarray
    """(N, 3) lines l, l_x^2 + l_y^2 = 1, frame coordinates."""
    middles: np.ndarray
    """(N, 2) midpoints."""
    length: np.ndarray
    """(N,) in pixels of the resolution at which they were found."""
    sigma: np.ndarray
    """(N,) standard deviation of the sine of the angle."""

    @classmethod
    def from_segments(
        cls, segments: np.ndarray, frame: Frame, *, pixel: float = 1.0, noise: tuple[float, float] = SEARCH_NOISE[0]
    ) -> "SegmentModel":
        """From (N, 4) segments in pixels, found at a resolution of ``pixel`` pixels; ``noise`` as in NOISE_LEVELS."""
        ends = frame.to_frame(segments.reshape(-1, 2, 2))
        middles = ends.mean(axis=1)
        along = ends[:, 1] - ends[:, 0]
        length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-12)
        normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / length[:, None]
        lines = np.concatenate([normal, -(normal * middles).sum(axis=1, keepdims=True)], axis=1)
        return cls(lines, middles, length * frame.scale / pixel, _sigma(length * frame.scale / pixel, noise))

    def __len__(self) -> int:
        return len(self.lines)

    def take(self, index: np.ndarray) -> "SegmentModel":
        """The segments at ``index``."""
        return SegmentModel(self.lines[index], self.middles[index], self.length[index], self.sigma[index])

    def with_noise(self, noise: tuple[float, float]) -> "SegmentModel":
        """The same segments at another noise level."""
        return replace(self, sigma=_sigma(self.length, noise))

    def sines(self, points: np.ndarray) -> np.ndarray:
        """Signed sine of the angle of every segment to every point: (M, 3) -> (M, N)."""
        return (points @ self.lines.T) / np.sqrt(self.squared_distances(points))

    def errors(self, directions: np.ndarray, focal: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sines of (M, 3) unit directions seen with ``focal``, one or (M, 1), and their slopes.

        Returns:
            errors (M, N), and normals n (M, 3, N) with which a change of the direction d by dd and of the focal length by
            d log f changes the error by n . dd + (n_x d_x + n_y d_y) d log f.
        """
        across, depth = directions[:, :2] * focal, directions[:, 2:]
        (x, y), (line_x, line_y, line_z) = self.middles.T, self.lines.T
        towards_x = across[:, :1] - depth * x
        towards_y = across[:, 1:] - depth * y
        distance = 1 / np.sqrt(np.maximum(towards_x * towards_x + towards_y * towards_y, 1e-10))
        errors = (across @ self.lines[:, :2].T + depth * line_z) * distance
        # The error is l . v / |t| with t = v_xy - w m; both its factors change with v.
        turn = errors * distance
        turn_x, turn_y = turn * towards_x, turn * towards_y
        slopes = np.empty((len(errors), 3, errors.shape[1]))
        zoomed = distance * focal
        np.multiply(line_x - turn_x, zoomed, out=slopes[:, 0])
        np.multiply(line_y - turn_y, zoomed, out=slopes[:, 1])
        turn_x *= x
        turn_y *= y
        turn_x += turn_y
        turn_x += line_z
        np.multiply(turn_x, distance, out=slopes[:, 2])
        return errors, slopes

    def squared_distances(self, points: np.ndarray) -> np.ndarray:
        """|v_xy - w m|^2: (M, 3) -> (M, N), never zero."""
        x, y, w = points.T
        terms = np.stack([x * x + y * y, -2 * w * x, -2 * w * y, w * w], axis=1)
        middles = np.empty((4, len(self)))
        middles[0] = 1
        middles[1:3] = self.middles.T
        middles[3] = middles[1] ** 2 + middles[2] ** 2
        distances = terms @ middles.astype(points.dtype)
        return np.maximum(distances, 1e-10, out=distances)

    def squared_sines(self, points: np.ndarray) -> np.ndarray:
        """Squares of :meth:`sines`, for the search: (M, 3) -> (M, N) float32."""
        points = points.astype(np.float32)
        squares = points @ self.lines.T.astype(np.float32)
        squares *= squares
        squares /= self.squared_distances(points)
        return squares

    def supports(self, points: np.ndarray, squares: np.ndarray | None = None) -> np.ndarray:
        """A truncated quadratic of every error, for the search: (M, 3) -> (M, N) in [0, 1], float32.

        Args:
            squares: of the points' sines where they are known already; they do not depend on the noise.
        """
        squares = self.squared_sines(points) if squares is None else squares
        support = squares * (1 / (SEARCH_GATE * self.sigma) ** 2).astype(np.float32)
        np.minimum(support, 1.0, out=support)
        return np.subtract(1.0, support, out=support)

    def density(self, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probability density of (M, N) sines under their points, and its stiffness -d log p / de / e.

        A scale mixture: most segments are as precise as their length says, some lie on what is nearly parallel only.
        """
        peak = 1 / (np.sqrt(2 * np.pi) * self.sigma)
        narrow = errors * (np.sqrt(0.5) / self.sigma)
        narrow *= -narrow
        tight = np.exp(narrow)
        tight *= (1 - WIDE_SHARE) * peak
        narrow /= WIDE**2
        wide = np.exp(narrow, out=narrow)
        wide *= WIDE_SHARE / WIDE * peak
        density = tight + wide
        wide /= WIDE**2
        tight += wide
        tight /= np.maximum(density, 1e-300)
        tight /= self.sigma**2
        return density, tight

    @property
    def noise_level(self) -> int:
        """Which of :data:`NOISE_LEVELS` the segments' noise is nearest to: 0 for most renders, 1 and 2 for photographs."""
        ends = float((self.sigma * self.length).min()) / np.sqrt(2)  # of the shortest, where nothing else counts
        return int(np.argmin([abs(np.log(ends / level)) for level, _ in NOISE_LEVELS]))

    @property
    def information(self) -> np.ndarray:
        """(N,) log odds that a segment gives a point which it meets exactly, against chance."""
        return np.log(1.0 + (1 - OUTLIER_SHARE) / OUTLIER_SHARE * np.sqrt(np.pi / 2) / (3 * self.sigma))


def _sigma(length: np.ndarray, noise: tuple[float, float]) -> np.ndarray:
    """Two independent ends: the direction's variance is 2 sigma^2 / length^2."""
    return np.hypot(np.sqrt(2) * noise[0] / length, np.radians(noise[1]))
