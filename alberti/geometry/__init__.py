"""Cameras, vanishing points and line segments."""

from alberti.geometry.camera import (
    Camera,
    crop_homography,
    directions_to_vanishing_points,
    flip_homography,
    resize_homography,
    transform_vanishing_points,
    vanishing_points_to_directions,
)
from alberti.geometry.depth_points import vanishing_points_from_depth

__all__ = [
    "Camera",
    "crop_homography",
    "directions_to_vanishing_points",
    "flip_homography",
    "resize_homography",
    "transform_vanishing_points",
    "vanishing_points_from_depth",
    "vanishing_points_to_directions",
]
