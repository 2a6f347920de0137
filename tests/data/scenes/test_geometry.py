"""Exact geometry: ground, boxes, hulls and vanishing points against plain references."""

import numpy as np
import pytest
import torch

from alberti.data.scenes import SceneConfig, render_scenes
from alberti.data.scenes.casting import Grid, cast
from alberti.data.scenes.render import build, render_batch
from alberti.data.scenes.scene import GROUND_SLOT, SKY_SLOT, Scenes
from alberti.data.scenes.shadows import shadowed
from alberti.data.scenes.visible import look, vanishing_points
from alberti.geometry.camera import Camera
from alberti.metrics.perspective import perspective_consistency

CPU = torch.device("cpu")
SMALL = SceneConfig(width=48, height=40, supersample=1)


def street_rays(scenes: Scenes, config: SceneConfig, index: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The eye and the (H, W, 3) rays through the pixels' centres in street axes, by the plain camera model."""
    camera = Camera.from_intrinsics(scenes.view.intrinsics[index].tolist(), config.width, config.height)
    return scenes.view.eye[index].double().numpy(), camera.rays() @ scenes.view.axes[index].double().numpy()


def only_box(scenes: Scenes, low: list[float], high: list[float]) -> None:
    """Leave a single box in the scene."""
    bodies = scenes.bodies
    bodies.high[:] = bodies.low - 1
    bodies.low[:, 0], bodies.high[:, 0] = torch.tensor(low), torch.tensor(high)
    bodies.centre[:, 0] = (bodies.low[:, 0] + bodies.high[:, 0]) / 2
    bodies.half[:, 0] = (bodies.high[:, 0] - bodies.low[:, 0]) / 2


def level_view(scenes: Scenes, height: float) -> None:
    """A camera over the middle of the street that looks straight along it."""
    scenes.view.axes[:] = torch.tensor([[1.0, 0, 0], [0, -1.0, 0], [0, 0, 1.0]])
    scenes.view.eye[:] = torch.tensor([0.0, height, 0.0])


def test_ground_depth_is_height_over_slope():
    scenes = build(["a"], 3, SMALL, CPU)
    level_view(scenes, 2.0)
    scenes.bodies.high[:] = scenes.bodies.low - 1
    depth = look(scenes, SMALL).depth[0].numpy()
    fy, cy = scenes.view.intrinsics[0, 1].item(), scenes.view.intrinsics[0, 3].item()
    for row in range(SMALL.height):
        below = (row - cy) / fy
        expected = 2.0 / below if below > 0 and 2.0 / below < SMALL.max_depth else 0.0
        np.testing.assert_allclose(depth[row], expected, rtol=1e-5)


def test_box_covers_its_projection_at_its_depth():
    scenes = build(["a"], 3, SMALL, CPU)
    level_view(scenes, 1.5)
    low, high = [-1.0, 1.0, 10.0], [2.0, 4.0, 12.0]
    only_box(scenes, low, high)
    depth = look(scenes, SMALL).depth[0].numpy()
    camera = Camera.from_intrinsics(scenes.view.intrinsics[0].tolist(), SMALL.width, SMALL.height)
    (left, bottom), (right, top) = camera.project(np.array([[low[0], 1.5 - low[1], 10.0], [high[0], 1.5 - high[1], 10.0]]))
    ys, xs = np.mgrid[: SMALL.height, : SMALL.width]
    inside = (xs > left + 1e-3) & (xs < right - 1e-3) & (ys > top + 1e-3) & (ys < bottom - 1e-3)
    assert inside.sum() > 20
    np.testing.assert_allclose(depth[inside], 10.0, rtol=1e-6)
    assert not np.any(np.abs(depth[~inside] - 10.0) < 1e-4)


def plain_hits(scenes: Scenes, config: SceneConfig, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest slot and depth by testing every ray against every box, half space by half space, in float64."""
    eye, rays = street_rays(scenes, config, index)
    bodies = scenes.bodies
    best = np.where(rays[..., 1] < 0, -eye[1] / np.minimum(rays[..., 1], -1e-12), np.inf)
    slot = np.where(best < np.inf, GROUND_SLOT, SKY_SLOT)
    for body in range(bodies.boxes + bodies.hulls):
        low, high = bodies.low[index, body].double().numpy(), bodies.high[index, body].double().numpy()
        if high[1] < low[1]:
            continue
        if body < bodies.boxes:
            planes = [(*row, b) for row, b in zip(np.eye(3), high, strict=True)]
            planes += [(*-row, -b) for row, b in zip(np.eye(3), low, strict=True)]
        else:
            planes = bodies.planes[index, body - bodies.boxes].double().numpy()
        enter, leave = np.full(best.shape, 0.05), np.full(best.shape, np.inf)
        for *normal, offset in planes:
            slope, gap = rays @ np.array(normal), offset - eye @ np.array(normal)
            with np.errstate(divide="ignore", invalid="ignore"):
                t = gap / slope
            enter = np.where(slope < 0, np.maximum(enter, t), enter)
            leave = np.where(slope > 0, np.minimum(leave, t), np.where((slope == 0) & (gap < 0), -1, leave))
        hit = (enter < leave) & (enter < best)
        best, slot = np.where(hit, enter, best), np.where(hit, body, slot)
    far = best >= config.max_depth
    return np.where(far, SKY_SLOT, slot), np.where(far, 0.0, best)


@pytest.mark.parametrize(("style", "camera"), [("mixed", "street"), ("kitti", "kitti"), ("oldtown", "street")])
def test_tiled_casting_agrees_with_trying_every_body(style: str, camera: str):
    config = SceneConfig(style=style, width=80, height=56, camera=camera)
    scenes = build([f"s{i}" for i in range(4)], 11, config, CPU)
    scenes.bodies.high[:, -scenes.bodies.blobs :] = scenes.bodies.low[:, -scenes.bodies.blobs :] - 1
    grid = Grid(config.width, config.height, 1)
    slots = grid.image(cast(scenes, grid, config.max_depth).slot, 4).numpy()
    depth = look(scenes, config).depth.numpy()
    for i in range(4):
        slot, expected = plain_hits(scenes, config, i)
        assert (slots[i] == slot).mean() > 0.995  # a ray along an edge may go either way
        same = slots[i] == slot
        np.testing.assert_allclose(depth[i][same], expected[same], rtol=2e-4, atol=1e-4)


def test_shadow_of_a_box():
    scenes = build(["a"], 3, SMALL, CPU)
    only_box(scenes, [0.0, 0.0, 0.0], [1.0, 2.0, 1.0])
    sun = torch.tensor([[0.6, 0.8, 0.0]])
    x = torch.tensor([[-2.0, -1.4, -0.5, -0.1, 1.2, 0.5]])
    zero = torch.zeros_like(x)
    shade = shadowed(scenes.bodies, sun, (x, zero, zero + 0.5), torch.ones_like(x), torch.zeros(1, dtype=torch.long))
    # The light comes from +x at a slope of 4/3: the shadow reaches 2 * 3/4 = 1.5 m before the box.
    assert shade[0, :5].tolist() == [0, 1, 1, 1, 0]
    beside = shadowed(scenes.bodies, sun, (x, zero, zero + 1.2), torch.ones_like(x), torch.zeros(1, dtype=torch.long))
    assert not beside.any()


def test_vanishing_points_are_images_of_far_points():
    config = SceneConfig(width=64, height=64)
    scenes = build([f"v{i}" for i in range(6)], 2, config, CPU)
    points = vanishing_points(scenes, look(scenes, config), config).numpy()
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1).round(9) % 1, 0, atol=1e-8)
    for i in range(6):
        camera = Camera.from_intrinsics(scenes.view.intrinsics[i].tolist(), 64, 64)
        axes = scenes.view.axes[i].double().numpy()
        for point in points[i][np.abs(points[i]).max(axis=1) > 0]:
            direction = np.linalg.solve(camera.matrix(), point)
            along = np.abs(axes.T @ direction / np.linalg.norm(direction))
            assert np.isclose(along.max(), 1, atol=1e-6)  # one of the street's three axes
            if abs(point[2]) > 1e-3:
                axis = axes[:, along.argmax()]
                far = camera.project(axis * np.sign(axis[2]) * 1e7)
                np.testing.assert_allclose(far, point[:2] / point[2], rtol=1e-4, atol=1e-3)


def test_depth_is_consistent_with_flat_walls():
    """Neighbouring pixels of one wall lie on a plane: inverse depth is linear along a row."""
    config = SceneConfig(style="europe", width=64, height=64)
    scene = next(render_scenes(["wall"], 1, config))
    inverse = np.where(scene.depth > 0, 1 / np.maximum(scene.depth, 1e-6), np.nan)
    second = inverse[:, 2:] - 2 * inverse[:, 1:-1] + inverse[:, :-2]
    assert np.nanmean(np.abs(second) < 1e-6) > 0.5


def test_edges_point_at_the_vanishing_points():
    scenes = list(render_scenes([f"e{i}" for i in range(12)], 4, SceneConfig(style="europe")))
    figures = [perspective_consistency(scene.image, scene.vanishing_points) for scene in scenes]
    assert np.mean([figure["consistency_2"] for figure in figures]) > 0.78
    assert np.mean([figure["line_length"] for figure in figures]) > 800
    wrong = [perspective_consistency(s.image, s.vanishing_points[:, [1, 0, 2]]) for s in scenes]
    assert np.mean([figure["consistency_2"] for figure in wrong]) < 0.6


def test_scene_beyond_max_depth_is_sky():
    near = render_batch(["a", "b"], 0, SceneConfig(width=64, height=64, max_depth=25.0))
    far = render_batch(["a", "b"], 0, SceneConfig(width=64, height=64, max_depth=120.0))
    assert near["depth"].max() <= 25
    kept = near["depth"] > 0
    assert torch.equal(near["depth"][kept], far["depth"][kept])
    assert (far["depth"] > 0).sum() > kept.sum()


@pytest.mark.parametrize(("style", "camera"), [("mixed", "street"), ("kitti", "kitti")])
def test_camera_stands_clear_of_everything(style: str, camera: str):
    config = SceneConfig(style=style, width=32, height=32, camera=camera)
    scenes = build([f"clear{i}" for i in range(200)], 0, config, CPU)
    eye, bodies = scenes.view.eye[:, None], scenes.bodies
    inside = ((eye > bodies.low - 0.05) & (eye < bodies.high + 0.05)).all(dim=2)
    assert not inside.any()
    seen = look(scenes, config)
    solid = torch.where(seen.depth > 0, seen.depth, torch.inf)
    assert solid.flatten(1).amin(1).min() > 0.1
    assert (seen.depth.flatten(1).median(1).values > 1.0).float().mean() > 0.6


def test_other_cars_cameras_differ_as_the_settings_say():
    config = SceneConfig(width=320, height=96, camera="driving")
    scenes = build([f"car-{index}" for index in range(200)], 0, config, torch.device("cpu"))
    kitti = build(["car-0"], 0, SceneConfig(width=320, height=96, camera="kitti"), torch.device("cpu")).view
    focal = scenes.view.intrinsics[:, :2] / kitti.intrinsics[0, :2]
    torch.testing.assert_close(focal[:, 0], focal[:, 1])
    assert 0.7 <= focal.min() < 0.8
    assert 1.35 < focal.max() <= 1.5
    height = scenes.view.eye[:, 1]
    assert 1.2 < height.min() < 1.4
    assert 1.9 < height.max() < 2.1
    assert scenes.view.intrinsics[:, 3].std() > 3
    assert (scenes.view.axes @ scenes.view.axes.mT - torch.eye(3)).abs().max() < 1e-5
