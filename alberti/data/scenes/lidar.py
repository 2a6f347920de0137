"""A laser scanner like KITTI's Velodyne HDL-64E, looking at a rendered scene.

Points are in velodyne axes: x forward, y left, z up, in metres from the scanner, with a reflectance in [0, 1].
``VELO_TO_CAMERA`` takes them to the camera's axes (x right, y down, z forward).
"""

import numpy as np
import torch

from alberti.data.scenes.generate import RenderedScene, one_thread
from alberti.data.scenes.layout import FACADE, GROUND
from alberti.data.scenes.render import build
from alberti.data.scenes.scene import SKY_SLOT
from alberti.data.scenes.tracing import Rays, column, nearest, refine
from alberti.errors import ConfigError
from alberti.seeding import numpy_generator

BEAMS = 64
ELEVATION = (2.0, -24.8)
"""Degrees of the highest and the lowest beam."""
AZIMUTH_STEP = 0.1728
"""Degrees between firings at ten turns a second."""
MAX_RANGE = 120.0
_BEHIND, _ABOVE = 0.27, 0.08
_RAYS = 256

VELO_TO_CAMERA = np.array([[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, -_ABOVE], [1.0, 0.0, 0.0, -_BEHIND], [0.0, 0.0, 0.0, 1.0]])
"""(4, 4): camera point = VELO_TO_CAMERA @ velodyne point. The scanner stands 0.27 m behind the camera, 0.08 m above."""


def lidar_scan(
    scene: RenderedScene,
    *,
    seed: int = 0,
    azimuth: tuple[float, float] = (-52.0, 52.0),
    dropout: float = 0.04,
    noise: float = 0.015,
) -> np.ndarray:
    """Scan the scene: (N, 4) float32 points x, y, z, reflectance in velodyne axes.

    The rays are cast from the scanner's own place, so near edges it sees past what the camera sees, as a real one does.

    Args:
        scene: a rendered scene; its street is built again from its seed, id and config.
        seed: for dropouts and noise.
        azimuth: degrees to the right of forward, first and last; the default covers KITTI's camera.
        dropout: share of returns that are lost at random; glass and far dark surfaces lose more.
        noise: standard deviation of the range in metres.
    """
    if not -180 <= azimuth[0] < azimuth[1] <= 180:
        raise ConfigError(f"azimuth: expected first < last within -180 to 180 degrees, got {azimuth}")
    directions = _directions(azimuth)
    with torch.no_grad(), one_thread():
        distance, reflectance = _cast(scene, directions)
    generator = numpy_generator(seed, "lidar", scene.id)
    jitter = generator.standard_normal(distance.shape) * noise
    kept = generator.random(distance.shape) > dropout + 0.5 * (distance / MAX_RANGE) ** 2
    kept &= (distance > 0.9) & (distance < min(MAX_RANGE, scene.config.max_depth))
    points = directions * np.maximum(distance + jitter, 0.5)[:, None]
    return np.concatenate([points, reflectance[:, None]], axis=1)[kept].astype(np.float32)


def _directions(azimuth: tuple[float, float]) -> np.ndarray:
    """(N, 3) unit directions in velodyne axes, beam by beam."""
    elevation = np.radians(np.linspace(*ELEVATION, BEAMS))[:, None]
    turn = np.radians(np.arange(azimuth[0], azimuth[1], AZIMUTH_STEP))[None]
    x, y = np.cos(elevation) * np.cos(turn), -np.cos(elevation) * np.sin(turn)
    return np.stack([x, y, np.sin(elevation) + 0 * turn], axis=-1).reshape(-1, 3)


def _cast(scene: RenderedScene, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance along each direction (0: nothing there) and reflectance."""
    scenes = build([scene.id], scene.seed, scene.config, torch.device("cpu"))
    axes = scenes.view.axes[0].double()
    to_camera = torch.from_numpy(VELO_TO_CAMERA)
    street = torch.from_numpy(directions) @ to_camera[:3, :3].T @ axes
    eye = (scenes.view.eye[0].double() + to_camera[:3, 3] @ axes).float()
    count, padding = len(street), -len(street) % _RAYS
    rows = torch.cat([street, street[-1:].expand(padding, 3)]).float().view(-1, _RAYS, 3)
    scene_index = torch.zeros(len(rows), dtype=torch.long)
    eyes = [eye[i].expand(len(rows), 1) for i in range(3)]
    components = [rows[..., i].contiguous() for i in range(3)]
    rays = Rays((components[0], components[1], components[2]), (eyes[0], eyes[1], eyes[2]), scene_index)
    bodies = scenes.bodies
    exists = (bodies.high[0, :, 1] >= bodies.low[0, :, 1]).expand(len(rows), -1)
    slot, touched = nearest(bodies, eye[None], rays, exists, MAX_RANGE)
    distance, normal = refine(bodies, eye[None], rays, slot, touched)
    seen = (slot != SKY_SLOT).float()
    facing = (rays.d[0] * normal[0] + rays.d[1] * normal[1] + rays.d[2] * normal[2]).abs()
    kind = column(bodies.kind, slot)
    bright = 0.35 - 0.12 * (kind == GROUND).float() + 0.08 * (kind == FACADE).float()
    reflectance = (bright * (0.35 + 0.65 * facing)).clamp(0, 1).flatten()[:count].numpy()
    return (distance * seen).flatten()[:count].double().numpy(), reflectance
