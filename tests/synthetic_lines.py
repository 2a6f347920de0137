"""Line segments and pictures with known vanishing points, made for tests."""

import cv2
import numpy as np

from alberti.geometry.camera import Camera, directions_to_vanishing_points


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(3, 3) camera-from-world for degrees: yaw to the right, pitch up, the view rolled clockwise.

    Columns are the world's axes.
    """
    y, p, r = np.radians([yaw, pitch, roll])
    turn = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    lean = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return lean @ tilt @ turn


def segments_towards(
    points: np.ndarray,
    camera: Camera,
    per_point: int,
    generator: np.random.Generator,
    *,
    noise: float = 0.0,
    outliers: int = 0,
) -> np.ndarray:
    """``per_point`` segments of 30 to 150 px towards each of (K, 3) points, ends off by ``noise`` px, and unrelated ones."""
    middles = generator.uniform([0, 0], [camera.width, camera.height], (len(points) * per_point + outliers, 2))
    towards = np.repeat(points, per_point, axis=0)
    along = towards[:, :2] - towards[:, 2:] * middles[: len(towards)]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    angle = generator.uniform(0, np.pi, outliers)
    along = np.concatenate([along, np.stack([np.cos(angle), np.sin(angle)], axis=1)])
    half = generator.uniform(15, 75, (len(middles), 1)) * along
    segments = np.concatenate([middles - half, middles + half], axis=1)
    return segments + generator.normal(0, noise, segments.shape)


def street_picture(camera: Camera, world: np.ndarray, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: a corridor with windows on both walls, slabs on the floor and a door, seen along the world's z.

    ``world`` is a rotation as :func:`rotation` gives it; the picture's vanishing points are those of its columns.
    """
    generator = np.random.default_rng(seed)
    picture = np.full((camera.height, camera.width, 3), (200, 210, 225), dtype=np.uint8)

    def fill(corners: list[tuple[float, float, float]], colour: np.ndarray) -> None:
        pixels = camera.project(np.array(corners) @ world.T)
        points = [np.rint(pixels * 16).astype(np.int32)]
        cv2.fillPoly(picture, points, tuple(int(c) for c in colour), cv2.LINE_AA, 4)

    for side in (-4.0, 4.0):
        wall = generator.integers(90, 160, 3)
        fill([(side, -5, 4), (side, -5, 40), (side, 2, 40), (side, 2, 4)], wall)
        for z in np.arange(5, 30, 3):
            for y in (-4.0, -1.5):
                fill([(side, y, z), (side, y, z + 1.6), (side, y + 1.5, z + 1.6), (side, y + 1.5, z)], wall // 2)
    for z in range(4, 40, 2):
        for x in (-4, -2, 0, 2):
            shade = np.array([70, 70, 75]) + 60 * ((z // 2 + x // 2) % 2)
            fill([(x, 2, z), (x + 2, 2, z), (x + 2, 2, z + 2), (x, 2, z + 2)], shade)
    fill([(-4, -5, 40), (4, -5, 40), (4, 2, 40), (-4, 2, 40)], np.array([150, 120, 100]))
    fill([(-1, -2, 40), (1, -2, 40), (1, 2, 40), (-1, 2, 40)], np.array([60, 40, 40]))
    return picture


def true_points(camera: Camera, world: np.ndarray) -> np.ndarray:
    """(3, 3) vanishing points of the world's axes, as rows."""
    return directions_to_vanishing_points(world.T, camera)


def warped(picture: np.ndarray, rms: float) -> np.ndarray:
    """The picture bent by a smooth displacement of ``rms`` pixels."""
    generator = np.random.default_rng(1)
    height, width = picture.shape[:2]
    field = [cv2.GaussianBlur(generator.normal(size=(height, width)), (0, 0), 12) for _ in range(2)]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    maps = [(base + rms * f / f.std()).astype(np.float32) for base, f in zip((x, y), field, strict=True)]
    return cv2.remap(picture, maps[0], maps[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def sharpened(picture: np.ndarray) -> np.ndarray:
    """Far more than is good for it."""
    soft = cv2.GaussianBlur(picture, (0, 0), 1.5).astype(float)
    return np.clip(picture + 3.0 * (picture - soft), 0, 255).astype(np.uint8)
