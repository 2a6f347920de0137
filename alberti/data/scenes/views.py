"""Where the camera stands and how the street is lit."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alberti.data.scenes.layout import Draws, Plan

KITTI_SIZE = (1242, 375)
KITTI_FOCAL = 721.5377
KITTI_CENTRE = (609.5593, 172.8540)
KITTI_HEIGHT = 1.65


@dataclass
class View:
    """Cameras of B scenes: ``eye`` (B, 3) and ``axes`` (B, 3, 3), whose rows are the camera's right, down and forward
    axes in street axes; ``intrinsics`` (B, 4) fx fy cx cy in pixels."""

    eye: Tensor
    axes: Tensor
    intrinsics: Tensor


@dataclass
class Light:
    """Light of B scenes, linear: ``sun`` (B, 3) towards the main light, ``sun_colour``, ``ambient``, ``zenith``,
    ``horizon`` (B, 3), ``haze`` (B,) per metre, ``clouds`` (B,) cover, ``lit`` and ``lamps`` (B,) strength of windows
    and street lamps, ``weather`` (B,) an index into WEATHERS."""

    sun: Tensor
    sun_colour: Tensor
    ambient: Tensor
    zenith: Tensor
    horizon: Tensor
    haze: Tensor
    clouds: Tensor
    cloud_shift: Tensor
    lit: Tensor
    lamps: Tensor
    weather: Tensor


def draw_view(draws: Draws, plan: Plan, camera: str, width: int, height: int) -> View:
    """A pedestrian's or a window's view for ``street``; KITTI's colour camera on a car for ``kitti``; either for ``mixed``;
    other cars' cameras for ``driving``."""
    draw = draws.take(10)
    if camera == "kitti":
        return _kitti_view(draw, plan, width, height)
    if camera == "driving":
        return _driving_view(draw, draws.take(4), plan, width, height)
    street = _street_view(draw, plan, width, height)
    if camera == "street":
        return street
    other = draws.take(2)
    focal = 0.55 * width * 3 ** other[:, 0]
    car = _car_view(draw, plan, _square_pixels(focal, width, height))
    on_car = other[:, 1] < 0.5
    return View(
        torch.where(on_car[:, None], car.eye, street.eye),
        torch.where(on_car[:, None, None], car.axes, street.axes),
        torch.where(on_car[:, None], car.intrinsics, street.intrinsics),
    )


def _street_view(draw: Tensor, plan: Plan, width: int, height: int) -> View:
    field = (45 + 38 * draw[:, 0]) * (math.pi / 180)
    half = field * 0.5
    focal = 0.5 * width * half.cos() / half.sin()
    wide_yaw = (draw[:, 1] - 0.5) * 2
    yaw = torch.where(draw[:, 2] < 0.5, 0.30 * wide_yaw, 0.85 * wide_yaw)
    pitch = -0.07 + 0.30 * draw[:, 3]
    roll = (draw[:, 4] - 0.5) * (0.10 * draw[:, 5])
    level = torch.where(draw[:, 6] < 0.75, 1.3 + 1.2 * draw[:, 7], 2.5 + (0.5 * plan.front).clamp(max=5.0) * draw[:, 7])
    # Far enough from the building line for eaves and cornices to pass.
    x = (draw[:, 8] - 0.5) * 2 * torch.minimum(plan.road + 0.8 * plan.pavement, plan.front - 0.9)
    return View(
        torch.stack([x, level, torch.zeros_like(x)], dim=1), _axes(yaw, pitch, roll), _square_pixels(focal, width, height)
    )


def _square_pixels(focal: Tensor, width: int, height: int) -> Tensor:
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=focal.device).expand(len(focal), 2)
    return torch.cat([focal[:, None], focal[:, None], centre], dim=1)


def _kitti_view(draw: Tensor, plan: Plan, width: int, height: int) -> View:
    focal = KITTI_FOCAL * width / KITTI_SIZE[0]
    x_scale, y_scale = width / KITTI_SIZE[0], height / KITTI_SIZE[1]
    cx, cy = (KITTI_CENTRE[0] + 0.5) * x_scale - 0.5, (KITTI_CENTRE[1] + 0.5) * y_scale - 0.5
    intrinsics = torch.tensor([focal, KITTI_FOCAL * y_scale, cx, cy], device=draw.device).expand(len(draw), 4)
    return _car_view(draw, plan, intrinsics.contiguous())


def _car_view(draw: Tensor, plan: Plan, intrinsics: Tensor) -> View:
    """In a lane of the road, along it, as high above it as KITTI's cameras."""
    yaw, pitch, roll = (0.12 * (draw[:, 1] - 0.5), 0.03 * (draw[:, 3] - 0.5), 0.02 * (draw[:, 4] - 0.5))
    x = plan.road * (0.35 + 0.2 * draw[:, 8])
    level = KITTI_HEIGHT + 0.04 * (draw[:, 7] - 0.5)
    return View(torch.stack([x, level, torch.zeros_like(x)], dim=1), _axes(yaw, pitch, roll), intrinsics)


def _driving_view(draw: Tensor, more: Tensor, plan: Plan, width: int, height: int) -> View:
    """KITTI's camera with another focal length (0.7 to 1.5 of its), horizon, height, pitch and direction for each car."""
    car = _kitti_view(draw, plan, width, height)
    intrinsics = car.intrinsics.clone()
    intrinsics[:, 0:2] *= 0.7 * (1.5 / 0.7) ** more[:, 0:1]
    intrinsics[:, 3] += 0.2 * height * (more[:, 1] - 0.5)
    eye = car.eye.clone()
    eye[:, 1] += 0.8 * (draw[:, 9] - 0.5)
    # Half of the cars look along the road, the others wherever they turn.
    yaw = torch.where(more[:, 3] < 0.5, 0.12, 0.9) * (draw[:, 1] - 0.5)
    return View(eye, _axes(yaw, 0.12 * (more[:, 2] - 0.5), 0.06 * (draw[:, 4] - 0.5)), intrinsics)


def _axes(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """(B, 3, 3): right, down and forward in street axes; yaw to the right, pitch upwards, roll clockwise, radians."""
    cy, sy, cp, sp, cr, sr = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin(), roll.cos(), roll.sin()
    zero = torch.zeros_like(yaw)
    forward = torch.stack([sy * cp, sp, cy * cp], dim=1)
    right = torch.stack([cy, zero, -sy], dim=1)
    down = torch.stack([sy * sp, -cp, cy * sp], dim=1)
    cr, sr = cr[:, None], sr[:, None]
    return torch.stack([right * cr + down * sr, down * cr - right * sr, forward], dim=1)


def draw_light(draws: Draws, plan: Plan) -> Light:
    """Weather, time of day and their colours."""
    draw = draws.take(12)
    weather = plan.table.weather(draw[:, 0])
    device = draw.device

    def by_weather(values: list[list[float]]) -> Tensor:
        return torch.tensor(values, device=device)[weather]

    # Lowest and highest elevation of the main light: under clouds it is nearly overhead and only darkens recesses.
    elevation = by_weather([[0.45, 1.15], [1.25, 1.45], [0.16, 0.5], [0.9, 1.2]])
    angle = elevation[:, 0] + (elevation[:, 1] - elevation[:, 0]) * draw[:, 1]
    azimuth = 2 * math.pi * draw[:, 2]
    sun = torch.stack([angle.cos() * azimuth.cos(), angle.sin(), angle.cos() * azimuth.sin()], dim=1)
    sun_colour = by_weather([[1.45, 1.32, 1.1], [0.3, 0.3, 0.31], [1.5, 0.85, 0.42], [0.03, 0.035, 0.06]])
    ambient = by_weather([[0.36, 0.42, 0.52], [0.64, 0.66, 0.69], [0.34, 0.32, 0.40], [0.045, 0.05, 0.085]])
    zenith = by_weather([[0.10, 0.26, 0.62], [0.48, 0.51, 0.55], [0.16, 0.2, 0.42], [0.008, 0.01, 0.035]])
    horizon = by_weather([[0.62, 0.74, 0.86], [0.68, 0.7, 0.72], [0.95, 0.62, 0.38], [0.07, 0.055, 0.065]])
    strength = 0.85 + 0.3 * draw[:, 3:4]
    clouds = by_weather([[0.0, 0.55], [0.9, 1.0], [0.2, 0.7], [0.0, 0.5]])
    cover = clouds[:, 0] + (clouds[:, 1] - clouds[:, 0]) * draw[:, 4]
    haze = by_weather([[0.002], [0.005], [0.0045], [0.004]])[:, 0] * (0.5 + 1.5 * draw[:, 5])
    lit = by_weather([[0.0], [0.12], [0.55], [1.0]])[:, 0]
    lamps = by_weather([[0.0], [0.0], [0.06], [1.0]])[:, 0]
    return Light(
        sun,
        sun_colour * strength,
        ambient * strength,
        zenith * (0.8 + 0.4 * draw[:, 6:7]),
        horizon * (0.85 + 0.2 * draw[:, 7:8]),
        haze,
        cover,
        draw[:, 8:10] * 100,
        lit,
        lamps,
        weather,
    )
