"""Cameras, vanishing points and line segments. Names are imported when first used."""

from typing import TYPE_CHECKING

from alberti.lazy import lazy_names

if TYPE_CHECKING:
    from alberti.geometry.camera import Camera as Camera
    from alberti.geometry.camera import crop_homography as crop_homography
    from alberti.geometry.camera import directions_to_vanishing_points as directions_to_vanishing_points
    from alberti.geometry.camera import flip_homography as flip_homography
    from alberti.geometry.camera import resize_homography as resize_homography
    from alberti.geometry.camera import transform_vanishing_points as transform_vanishing_points
    from alberti.geometry.camera import vanishing_points_to_directions as vanishing_points_to_directions
    from alberti.geometry.depth_points import vanishing_points_from_depth as vanishing_points_from_depth

_HOMES = {
    "camera": (
        "Camera", "crop_homography", "directions_to_vanishing_points", "flip_homography", "resize_homography",
        "transform_vanishing_points", "vanishing_points_to_directions",
    ),
    "depth_points": ("vanishing_points_from_depth",),
}  # fmt: skip
__getattr__, __all__ = lazy_names(__name__, _HOMES)
