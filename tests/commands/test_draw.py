"""`alberti draw` with tiny real bases."""

from pathlib import Path

import numpy as np
import pytest
from diffusion.toy import CAPTIONS, TINY
from families.tiny import build

from alberti.diffusion.base import BaseConfig, build_small_base
from alberti.geometry.camera import Camera
from alberti.images import read_image, write_depth, write_image

SIZE = 32
CAMERA = Camera(30, 30, (SIZE - 1) / 2, (SIZE - 1) / 2, SIZE, SIZE)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("draw") / "base"
    build_small_base(BaseConfig.smoke(**TINY), CAPTIONS).save(folder)
    return folder


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """Depth of a box of 4 x 3 x 12 metres, seen along it."""
    rays = CAMERA.rays()
    sides = np.stack([2 / np.maximum(abs(rays[..., 0]), 1e-6), 1.5 / np.maximum(abs(rays[..., 1]), 1e-6)])
    write_depth(tmp_path / "room.png", np.minimum(sides.min(axis=0), 12))
    return tmp_path / "room.png"


def test_a_depth_map_is_drawn_with_and_without_guidance(alberti, base, room, tmp_path, capsys):
    out = tmp_path / "drawn.png"
    common = ("draw", room, "--base", base, "--prompt", CAPTIONS[0], "--steps", 3, "--guidance-scale", 2, "--device", "cpu")
    assert alberti(*common, "--out", out, "--lines", "--focal", 30) == 0
    told = capsys.readouterr().out
    assert "guided by 3 vanishing points of the depth map's planes, focal length 30 pixels (given)" in told
    picture, both = read_image(out), read_image(tmp_path / "drawn.compare.png")
    assert picture.shape == (SIZE, SIZE, 3)
    assert both.shape == (2 * SIZE, 2 * SIZE, 3)
    assert np.array_equal(both[:SIZE, SIZE:], picture)
    assert not np.array_equal(both[:SIZE, :SIZE], picture)
    assert alberti(*common, "--out", tmp_path / "plain.png", "--no-compare", "--strength", 0) == 0
    assert np.array_equal(read_image(tmp_path / "plain.png"), both[:SIZE, :SIZE])
    assert not (tmp_path / "plain.compare.png").exists()


def test_what_is_drawn_from_is_never_overwritten(alberti, base, room, tmp_path, capsys):
    """Neither by the picture nor by the comparison that is written beside it."""
    beside = tmp_path / "room.compare.png"
    beside.write_bytes(room.read_bytes())
    for source, out in ((room, room), (beside, room)):
        before = source.read_bytes()
        code = alberti("draw", source, "--base", base, "--steps", 2, "--device", "cpu", "--focal", 30, "--out", out)
        assert code == 1
        assert "names an input" in capsys.readouterr().err
        assert source.read_bytes() == before


def test_a_depth_map_of_one_value_is_refused(alberti, base, tmp_path, capsys):
    flat = tmp_path / "flat.npy"
    np.save(flat, np.full((SIZE, SIZE), 5.0, np.float32))
    code = alberti("draw", flat, "--base", base, "--steps", 2, "--device", "cpu", "--focal", 30, "--out", tmp_path / "x.png")
    assert code == 1
    assert "one value everywhere" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_one_wall_that_faces_the_camera_is_not_guided_and_says_so(alberti, base, tmp_path, capsys):
    wall = np.full((SIZE, SIZE), 5.0, np.float32)
    wall[:2] = 0  # not one value everywhere, which no pipeline draws
    np.save(tmp_path / "wall.npy", wall)
    common = ("draw", tmp_path / "wall.npy", "--base", base, "--steps", 2, "--device", "cpu", "--focal", 30)
    assert alberti(*common, "--out", tmp_path / "x.png", "--no-compare") == 0
    assert (
        "no vanishing points in the depth map's planes that a surface runs along, so it is not guided"
        in capsys.readouterr().out
    )


def test_a_pickled_array_is_one_paragraph(alberti, base, tmp_path, capsys):
    bad = tmp_path / "object.npy"
    np.save(bad, np.array([{}, None], dtype=object), allow_pickle=True)
    assert alberti("draw", bad, "--base", base, "--device", "cpu", "--focal", 30, "--out", tmp_path / "x.png") == 1
    told = capsys.readouterr().err
    assert "object.npy" in told
    assert "Traceback" not in told


def test_a_size_that_the_model_cannot_make_becomes_the_nearest(alberti, base, room, tmp_path):
    out = tmp_path / "wide.png"
    arguments = ("--steps", 2, "--size", "61x33", "--no-compare", "--device", "cpu")
    assert alberti("draw", room, "--base", base, "--out", out, *arguments) == 0
    assert read_image(out).shape == (32, 60, 3)


def test_a_photo_is_drawn_by_the_depth_that_a_model_sees(alberti, base, tmp_path, capsys):
    from alberti.depth.models import build_depth_model

    build_depth_model("dpt", "tiny", kind="metric", max_depth=80.0, input_height=SIZE, seed=0).save(tmp_path / "dpt")
    rows, columns = np.mgrid[: 2 * SIZE, : 2 * SIZE]
    tiles = np.where(((rows // 8) + (columns // 8)) % 2, 220, 40).astype(np.uint8)
    write_image(tmp_path / "photo.png", np.repeat(tiles[..., None], 3, axis=2))
    common = ("draw", tmp_path / "photo.png", "--base", base, "--out", tmp_path / "out.png", "--steps", 2, "--device", "cpu")
    assert alberti(*common) == 1
    assert "--depth-model" in capsys.readouterr().err
    assert alberti(*common, "--depth-model", tmp_path / "dpt", "--focal", 60) == 0
    assert "photo's line segments" in capsys.readouterr().out


def test_a_base_with_a_controlnet_is_put_together(alberti, room, tmp_path):
    import diffusers

    pipe = build("sd-controlnet")
    pipe.controlnet.save_pretrained(tmp_path / "controlnet")
    parts = {name: part for name, part in pipe.components.items() if name not in ("controlnet",)}
    diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(tmp_path / "sd")
    out = tmp_path / "out.png"
    common = ("draw", room, "--base", tmp_path / "sd", "--out", out, "--steps", 2, "--no-compare", "--device", "cpu")
    assert alberti(*common, "--prompt", CAPTIONS[0], "--controlnet", tmp_path / "controlnet") == 0
    assert read_image(out).shape == (SIZE, SIZE, 3)


def test_a_base_that_takes_no_depth_is_one_paragraph(alberti, room, tmp_path, capsys):
    import diffusers

    parts = {name: part for name, part in build("sd-controlnet").components.items() if name != "controlnet"}
    diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(tmp_path / "sd")
    assert alberti("draw", room, "--base", tmp_path / "sd", "--out", tmp_path / "out.png", "--device", "cpu") == 1
    assert "takes no depth map" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "none.png"}, "no such depth map or photo"),
        ({"--size": "12"}, "WIDTHxHEIGHT"),
        ({"--out": "out.gif"}, ".png or .jpg"),
        ({"--base": "none"}, "no such model folder"),
    ],
)
def test_bad_input_is_one_paragraph(alberti, base, room, tmp_path, capsys, change, message):
    values = {"source": room, "--base": base, "--out": tmp_path / "out.png", "--device": "cpu"} | change
    source = values.pop("source")
    assert alberti("draw", source, *[each for pair in values.items() for each in pair]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()
