"""Pictures: the same bytes however they are made, styles, captions, errors."""

import re

import numpy as np
import pytest
import torch

from alberti.data.scenes import STYLES, TRAINING_STYLES, SceneConfig, casting, render_batch, render_junctions, render_scenes
from alberti.data.scenes.captions import write_captions
from alberti.data.scenes.render import build
from alberti.data.scenes.styles import MATERIALS, WEATHERS
from alberti.data.scenes.visible import look
from alberti.errors import ConfigError
from alberti.geometry.camera import Camera, vanishing_points_to_directions

CPU = torch.device("cpu")
CONFIG = SceneConfig(width=72, height=60)
IDS = [f"id{i}" for i in range(7)]


@pytest.fixture(scope="module")
def alone() -> list:
    return [next(render_scenes([sample_id], 5, CONFIG)) for sample_id in IDS]


def assert_same(a, b) -> None:
    assert a.id == b.id
    assert a.caption == b.caption
    assert a.camera == b.camera
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.depth, b.depth)
    np.testing.assert_array_equal(a.vanishing_points, b.vanishing_points)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_bytes_do_not_depend_on_the_batch(alone, batch_size: int):
    for a, b in zip(alone, render_scenes(IDS, 5, CONFIG, batch_size=batch_size), strict=True):
        assert_same(a, b)


def test_bytes_do_not_depend_on_threads(alone):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for a, b in zip(alone, render_scenes(IDS, 5, CONFIG, batch_size=2), strict=True):
            assert_same(a, b)
        together = render_batch(IDS, 5, CONFIG)  # threads within each operation
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    for i, scene in enumerate(alone):
        np.testing.assert_array_equal(scene.image, together["image"][i].permute(1, 2, 0).numpy())


def test_bytes_do_not_depend_on_bands(alone, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(casting, "_CPU_SAMPLES", 3000)
    for a, b in zip(alone[:3], render_scenes(IDS[:3], 5, CONFIG), strict=True):
        assert_same(a, b)


def test_seed_and_id_both_matter(alone):
    other_seed = next(render_scenes([IDS[0]], 6, CONFIG))
    assert (other_seed.image != alone[0].image).mean() > 0.3
    assert (alone[1].image != alone[0].image).mean() > 0.3


def test_iteration_is_lazy():
    ids = iter(IDS)
    scenes = render_scenes(ids, 5, CONFIG, batch_size=1)
    next(scenes)
    scenes.close()
    assert len(list(ids)) >= 1


def test_sky_has_no_depth_and_solid_things_do(alone):
    for scene in alone:
        assert scene.depth.dtype == np.float32
        assert np.isfinite(scene.depth).all()
        assert (scene.depth >= 0).all()
        assert scene.depth.max() <= CONFIG.max_depth
        assert (scene.depth[-1] > 0).mean() > 0.9  # the bottom row shows ground or walls
    assert any((scene.depth == 0).any() for scene in alone)


@pytest.mark.parametrize("supersample", [1, 3, 4])
def test_supersampling_changes_edges_only(alone, supersample: int):
    config = SceneConfig(width=72, height=60, supersample=supersample)
    scene = next(render_scenes([IDS[1]], 5, config))
    difference = np.abs(scene.image.astype(int) - alone[1].image).max(axis=2)
    assert np.median(difference) <= 8
    np.testing.assert_array_equal(scene.depth, alone[1].depth)


def test_without_images_the_rest_is_the_same(alone):
    scene = next(render_scenes([IDS[2]], 5, CONFIG, with_images=False))
    assert not scene.image.any()
    np.testing.assert_array_equal(scene.depth, alone[2].depth)
    assert scene.caption == alone[2].caption


def test_kitti_camera_has_kitti_intrinsics():
    config = SceneConfig(style="kitti", width=1242, height=375, supersample=1, camera="kitti")
    scene = next(render_scenes(["k"], 0, config, with_images=False))
    np.testing.assert_allclose(scene.camera.intrinsics, (721.5377, 721.5377, 609.5593, 172.854), rtol=1e-6)
    half = SceneConfig(style="kitti", width=621, height=188, camera="kitti")
    camera = next(render_scenes(["k"], 0, half, with_images=False)).camera
    assert camera.fx == pytest.approx(721.5377 / 2)
    assert camera.cx == pytest.approx((609.5593 + 0.5) / 2 - 0.5)
    # Looking forward: the street's vanishing point lies near the principal point.
    along = max(scene.vanishing_points, key=lambda v: abs(v[2]))
    assert np.hypot(*(along[:2] / along[2] - (609.6, 172.9))) < 100


def test_mixed_cameras_stand_in_streets_and_on_cars():
    ids = [f"c{i}" for i in range(60)]
    config = SceneConfig(style="mixed", width=64, height=64, supersample=1, camera="mixed")
    focal = np.array([scene.camera.intrinsics for scene in render_scenes(ids, 3, config, with_images=False)])
    np.testing.assert_array_equal(focal[:, 0], focal[:, 1])
    np.testing.assert_array_equal(focal[:, 2:], 31.5)
    # 83 degrees is the widest that a street's camera sees, 45 the narrowest; a car's go from 85 to 34.
    widths = 2 * np.degrees(np.arctan(32 / focal[:, 0]))
    assert 33 < widths.min() < 45
    assert 83 > np.median(widths) > 45
    view = build(ids, 3, config, CPU).view
    on_car = np.abs(view.eye[:, 1].numpy() - 1.65) < 0.021
    assert 15 < on_car.sum() < 45


def test_mixed_draws_training_styles_only():
    scenes = build([f"m{i}" for i in range(80)], 0, CONFIG, CPU)
    drawn = {STYLES[i] for i in scenes.plan.style.tolist()}
    assert drawn == set(TRAINING_STYLES)
    assert "kitti" not in drawn


def test_styles_differ_in_proportions():
    ids = [f"m{i}" for i in range(40)]
    floors, materials = {}, {}
    for style in STYLES:
        scenes = build(ids, 0, SceneConfig(style=style, width=32, height=32), CPU)
        floors[style] = scenes.buildings.floors.mean().item()
        counts = torch.bincount(scenes.buildings.material.flatten(), minlength=len(MATERIALS)).double()
        materials[style] = counts / counts.sum()
    assert floors["modern"] > floors["europe"] > floors["suburb"]
    for a in STYLES:
        for b in STYLES:
            if a < b:
                assert (materials[a] - materials[b]).abs().sum() > 0.2


def test_captions_name_visible_things_only():
    config = SceneConfig(width=64, height=64, supersample=1)
    scenes = build([f"c{i}" for i in range(60)], 1, config, CPU)
    seen = look(scenes, config)
    captions = write_captions(scenes, seen, config)
    parts = {
        "car": ("cars", "cabins"),
        "tree": ("trunks", "crowns"),
        "street lamp": ("lamps",),
        "road sign": ("signs",),
    }
    for word, names in parts.items():
        visible = sum(seen.slots[:, scenes.slots[name]].sum(1) for name in names)
        mentions = torch.tensor([re.search(rf"\b{word}s?\b", caption) is not None for caption in captions])
        assert mentions.any()
        assert not (mentions & (visible == 0)).any()
        assert mentions[visible > 0.06 * 64 * 64].all()
    for i, caption in enumerate(captions):
        if "zebra" in caption:
            assert seen.ground[i, 1] > 0
        if "clear sky" in caption:
            assert (seen.depth[i] == 0).any()
        named = [name for name in MATERIALS if f"{name} " in caption.split(",")[0]]
        assert named or "open ground" in caption


def test_removed_things_leave_the_caption():
    config = SceneConfig(width=64, height=64, supersample=1)
    scenes = build([f"c{i}" for i in range(30)], 1, config, CPU)
    for name in ("cars", "cabins"):
        scenes.bodies.high[:, scenes.slots[name]] = scenes.bodies.low[:, scenes.slots[name]] - 1
    assert not any("car" in caption for caption in write_captions(scenes, look(scenes, config), config))


def test_captions_follow_the_weather():
    config = SceneConfig(width=32, height=32, supersample=1)
    scenes = build([f"c{i}" for i in range(60)], 1, config, CPU)
    captions = write_captions(scenes, look(scenes, config), config)
    for caption, index in zip(captions, scenes.light.weather.tolist(), strict=True):
        weather = WEATHERS[index]
        assert ("night" in caption) == (weather == "night")
        assert ("overcast" in caption) == (weather == "overcast")


@pytest.mark.parametrize(
    "options",
    [{"style": "gothic"}, {"camera": "drone"}, {"width": 4}, {"supersample": 0}, {"max_depth": 1000.0}],
)
def test_bad_settings_are_named(options: dict):
    with pytest.raises(ConfigError, match=next(iter(options))):
        SceneConfig(**options)


def test_bad_batches_are_refused():
    with pytest.raises(ConfigError, match="batch_size"):
        list(render_scenes(["a"], 0, CONFIG, batch_size=0))
    with pytest.raises(ConfigError, match="ids"):
        render_batch([], 0, CONFIG)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees_but_for_rounding():
    cpu, gpu = (render_batch(IDS, 5, CONFIG, device) for device in ("cpu", "cuda"))
    close = (cpu["depth"] - gpu["depth"].cpu()).abs() < 1e-3
    assert close.float().mean() > 0.995
    difference = (cpu["image"].int() - gpu["image"].cpu().int()).abs()
    assert (difference <= 2).float().mean() > 0.99


def test_streets_that_meet_share_the_upright_direction_and_not_the_others() -> None:
    batch = render_junctions(["a", "b"], 1, SceneConfig(width=48, height=32, supersample=1))
    assert batch["image"].shape == (2, 3, 32, 48)
    for row in range(2):
        camera = Camera.from_intrinsics(batch["intrinsics"][row].tolist(), 48, 32)
        points = batch["vanishing_points"][row].numpy()
        rays = vanishing_points_to_directions(points[np.abs(points).max(axis=1) > 0], camera)
        upright = np.abs(rays @ batch["down"][row].numpy())
        assert ((upright < 1e-5) | (upright > 1 - 1e-5)).all()
        assert 20 <= abs(np.degrees(batch["angle"][row].item())) <= 70
