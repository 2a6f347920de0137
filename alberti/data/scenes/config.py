"""What to render: style, size, camera."""

from dataclasses import dataclass

from alberti.data.scenes.styles import STYLES
from alberti.errors import ConfigError

CAMERAS = ("street", "kitti", "mixed", "driving")


@dataclass(frozen=True)
class SceneConfig:
    """Settings of rendered streets.

    ``style`` is one of STYLES or "mixed", which draws one of the training styles for each scene. ``camera`` "street"
    varies in place, direction and field of view; "kitti" is KITTI's left colour camera, scaled to the image's size;
    "mixed" draws for each scene a street's camera or, as often, one where KITTI's is, with square pixels and any focal length;
    "driving" is a car's camera like KITTI's, whose height, direction, focal length and horizon differ from car to car.
    Each pixel averages ``supersample`` squared samples. Beyond ``max_depth`` metres everything is sky, with depth 0.
    """

    style: str = "mixed"
    width: int = 128
    height: int = 128
    supersample: int = 2
    camera: str = "street"
    max_depth: float = 120.0

    def __post_init__(self) -> None:
        if self.style not in (*STYLES, "mixed"):
            raise ConfigError(f"style: expected 'mixed' or one of {', '.join(STYLES)}, got {self.style!r}")
        if self.camera not in CAMERAS:
            raise ConfigError(f"camera: expected one of {', '.join(CAMERAS)}, got {self.camera!r}")
        if not (8 <= self.width <= 8192 and 8 <= self.height <= 8192):
            raise ConfigError(f"width, height: expected 8 to 8192 pixels, got {self.width} x {self.height}")
        if not 1 <= self.supersample <= 4:
            raise ConfigError(f"supersample: expected 1 to 4, got {self.supersample}")
        if not 20 <= self.max_depth <= 250:
            raise ConfigError(f"max_depth: expected 20 to 250 metres, got {self.max_depth}")
