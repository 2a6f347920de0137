"""Readers on files in the exact layout of each data set."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from native_layouts import gray16, picture, synthia, vkitti2
from PIL import Image

from alberti.data.config import CaptionConfig, Fit
from alberti.data.fingerprint import FileIndex
from alberti.data.manifest import Dataset
from alberti.data.sources import READERS, evenly, limited, open_source, reader_of, write_fitted, write_source
from alberti.errors import AlbertiError, ConfigError, DataError
from alberti.files import sha256_file

VKITTI2_SHRUNK = (725.0087 * 124 / 1242, 725.0087 * 37 / 375, 621 * 124 / 1242 - 0.5, 187.5 * 37 / 375 - 0.5)
"""The release's camera at the size of the fixture's pictures."""


def prepare(name: str, root: Path, out: Path, **options: object) -> Dataset:
    out.mkdir()
    return write_source(open_source(name, root, **options), out, role="train")


# --- the registry -------------------------------------------------------------------------------------------------


def test_every_registered_reader_can_be_imported() -> None:
    for name in READERS:
        assert callable(reader_of(name))


def test_unknown_source_option_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there are .*holicity"):
        open_source("holly", tmp_path)
    with pytest.raises(ConfigError, match=r"splt.*it takes split"):
        open_source("holicity", tmp_path, splt="train")
    with pytest.raises(DataError, match="no such folder"):
        open_source("holicity", tmp_path / "nowhere")


def test_evenly_spreads_a_limit() -> None:
    assert evenly(list(range(10)), 4) == [0, 2, 5, 7]
    assert evenly([1, 2], 5) == [1, 2]
    with pytest.raises(ConfigError):
        evenly([1], 0)


def test_captions_are_filled_in_while_writing(tmp_path: Path) -> None:
    picture(tmp_path / "set" / "a.png")
    picture(tmp_path / "set" / "b.png")
    (tmp_path / "set" / "a.txt").write_text("a bridge")
    (tmp_path / "out").mkdir()
    source = open_source("folder", tmp_path / "set")
    dataset = write_source(source, tmp_path / "out", role="train", captions=CaptionConfig(template="a street"))
    assert [sample.caption for sample in dataset] == ["a bridge", "a street"]


def test_a_limit_and_a_cache_of_hashes(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for index in range(5):
        picture(root / f"{index}.png", seed=index)
    (tmp_path / "out").mkdir()
    with FileIndex(root, tmp_path / "cache.jsonl") as index:
        dataset = write_source(limited(open_source("folder", root, index=index), 2), tmp_path / "out", role="train")
    assert [sample.id for sample in dataset] == ["0.png", "2.png"]
    assert dataset[0].sha256 == {"image": sha256_file(root / "0.png")}
    assert (tmp_path / "cache.jsonl").is_file()
    Dataset.open(tmp_path / "out", check_files=True)


# --- HoliCity -----------------------------------------------------------------------------------------------------

VIEW = "2008-07/8heFyix0weuW7Kzd6A_BLg_LD_012_40"
OTHER = "2009-01/uU3o0nWEvcYBaZmAJ2XTtQ_HD_130_00"


def holicity(root: Path, view: str = VIEW, *, trees: bool = False, suffix: str = "jpg") -> None:
    """One view as HoliCity has it: all kinds in the month's folder, or a tree for each kind."""

    def place(tree: str) -> Path:
        folder = root / tree / view if trees else root / view
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder

    picture(Path(f"{place('image')}_imag.{suffix}"), 512, 512)
    depth = np.full((512, 512, 1), 7.5, np.float32)
    depth[:100] = 0
    np.savez_compressed(f"{place('depth')}_dpth.npz", depth=depth)
    np.savez(f"{place('camr')}_camr.npz", R=np.eye(4), fov=np.int64(90), yaw=np.int64(12), pitch=np.int64(40))
    pitch = np.radians(40)
    vertical = [0, np.cos(pitch), -np.sin(pitch)]
    vpts = np.array([vertical, [1.0, 0, 0], [0.6, 0, -0.8], [0, 0, -1.0]])
    np.savez(f"{place('vpts')}_vpts.npz", vpts=vpts, confidence=np.array([1000, 400, 200, 20]))


@pytest.mark.parametrize(("trees", "suffix"), [(False, "jpg"), (False, "png"), (True, "jpg")])
def test_holicity(tmp_path: Path, trees: bool, suffix: str) -> None:
    holicity(tmp_path / "root", trees=trees, suffix=suffix)
    dataset = prepare("holicity", tmp_path / "root", tmp_path / "out")
    (sample,) = dataset
    assert sample.id == "2008-07_8heFyix0weuW7Kzd6A_BLg_LD_012_40"
    assert sample.intrinsics == pytest.approx((256, 256, 255.5, 255.5))
    assert dataset.read_image(sample).shape == (512, 512, 3)
    depth = dataset.read_depth(sample)
    assert depth.shape == (512, 512)
    assert (depth[0, 0], depth[200, 0]) == (0, 7.5)
    assert set(sample.sha256) == {"image", "depth"}
    # OpenGL (x, y, z) -> ours (x, -y, -z), then focal 256 and centre 255.5; little support is left out.
    points = np.array(sample.vanishing_points)
    assert points.shape == (3, 3)
    assert sample.vanishing_points_source == "dataset"
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)
    tilt = np.tan(np.radians(40))
    np.testing.assert_allclose(points[0, :2] / points[0, 2], [255.5, 255.5 - 256 / tilt], rtol=1e-9)  # zenith, above
    assert points[1, 2] == pytest.approx(0, abs=1e-12)  # parallel to the image plane
    np.testing.assert_allclose(points[2, :2] / points[2, 2], [255.5 + 256 * 0.75, 255.5], rtol=1e-9)


def test_holicity_splits(tmp_path: Path) -> None:
    root = tmp_path / "root"
    holicity(root)
    holicity(root, OTHER)
    lists = root / "split-all-v1-bugfix"
    lists.mkdir()
    (lists / "filelist.txt").write_text(f"{VIEW}\n{OTHER}\n")
    (lists / "train-middlesplit.txt").write_text("2008-07/8heFyix0weuW7Kzd6A_BLg\n")
    (lists / "valid-middlesplit.txt").write_text("2009-01/uU3o0nWEvcYBaZmAJ2XTtQ\n")
    everything = prepare("holicity", root, tmp_path / "all")
    assert [sample.split for sample in everything] == ["train", "valid"]
    valid = prepare("holicity", root, tmp_path / "valid", split="valid")
    assert [sample.id for sample in valid] == [OTHER.replace("/", "_")]
    with pytest.raises(ConfigError, match="has train, valid"):
        open_source("holicity", root, split="test")
    holicity(tmp_path / "bare")
    with pytest.raises(DataError, match="no \\*-middlesplit"):
        open_source("holicity", tmp_path / "bare", split="train")


def test_holicity_with_the_papers_files(tmp_path: Path) -> None:
    root = tmp_path / "root"
    holicity(root, trees=True)
    holicity(root, OTHER, trees=True)
    (root / "captions_depth.json").write_text(json.dumps({f"image/{VIEW}_imag.jpg": "a bridge over a street"}))
    # Keys with or without suffix; [0, 0] is the paper's "absent".
    (root / "vpts_depth.json").write_text(json.dumps({f"image/{VIEW}_imag": [[300.0, 400.0], [0.0, 0.0]]}))
    dataset = prepare("holicity", root, tmp_path / "out", vanishing_points="paper")
    first, second = dataset
    assert (first.caption, second.caption) == ("a bridge over a street", None)
    (point,) = first.vanishing_points or []
    assert (point[0] / point[2], point[1] / point[2]) == pytest.approx((300, 400))
    assert second.vanishing_points is None, "a missing entry gets no invented points"
    assert prepare("holicity", root, tmp_path / "own")[0].vanishing_points != first.vanishing_points


def test_holicity_bad_input(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "rgb").mkdir(parents=True)
    with pytest.raises(DataError, match=r"_imag\.jpg.*found rgb/"):
        open_source("holicity", root)
    holicity(root)
    with pytest.raises(DataError, match="vpts_depth"):
        open_source("holicity", root, vanishing_points="paper")
    holicity(root / "copy")
    with pytest.raises(DataError, match="one copy"):
        open_source("holicity", root)
    damaged = tmp_path / "damaged"
    holicity(damaged)
    np.savez(f"{damaged / VIEW}_vpts.npz", points=np.eye(3))
    with pytest.raises(DataError, match="vpts"):
        prepare("holicity", damaged, tmp_path / "out")


def test_holicity_without_labels_of_a_test_view(tmp_path: Path) -> None:
    holicity(tmp_path / "root")
    for kind in ("dpth", "camr", "vpts"):
        Path(f"{tmp_path / 'root' / VIEW}_{kind}.npz").unlink()
    (sample,) = prepare("holicity", tmp_path / "root", tmp_path / "out")
    assert (sample.depth, sample.vanishing_points) == (None, None)
    assert sample.intrinsics == pytest.approx((256, 256, 255.5, 255.5))


# --- Virtual KITTI 2 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("archives", [False, True])
def test_vkitti2(tmp_path: Path, archives: bool) -> None:
    vkitti2(tmp_path / "root", archives=archives)
    dataset = prepare("vkitti2", tmp_path / "root", tmp_path / "out")
    assert len(dataset) == 9
    sample = dataset.by_id("Scene01_fog_0_00002")
    assert sample.intrinsics == pytest.approx(VKITTI2_SHRUNK)
    depth = dataset.read_depth(sample)
    assert (depth[0, 0], depth[5, 0]) == (0, pytest.approx(12.34))
    both = prepare("vkitti2", tmp_path / "root", tmp_path / "two", scenes=["Scene18"], cameras=[0, 1], every=2)
    assert [sample.id for sample in both] == [f"Scene18_clone_{camera}_{frame:05d}" for camera in (0, 1) for frame in (0, 2)]
    assert both.by_id("Scene18_clone_1_00000").intrinsics[2] == pytest.approx(622 * 124 / 1242 - 0.5)


def test_vkitti2_bad_input(tmp_path: Path) -> None:
    (tmp_path / "root" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match=r"SceneXX.*found images/"):
        open_source("vkitti2", tmp_path / "root")
    root = tmp_path / "vk"
    vkitti2(root)
    with pytest.raises(DataError, match="no scene 'Scene02'; there are Scene01, Scene18"):
        open_source("vkitti2", root, scenes=["Scene02"])
    for options in ({"cameras": [2]}, {"cameras": []}, {"every": 0}):
        with pytest.raises(ConfigError):
            open_source("vkitti2", root, **options)
    (root / "Scene01" / "clone" / "frames" / "depth" / "Camera_0" / "depth_00001.png").unlink()
    with pytest.raises(DataError, match=r"depth_00001\.png: missing"):
        prepare("vkitti2", root, tmp_path / "out")


def test_vkitti2_without_its_intrinsics(tmp_path: Path) -> None:
    for size, known in (((1242, 375), True), ((124, 37), False)):
        root = tmp_path / str(size[0])
        vkitti2(root, frames=1, size=size)
        for path in root.glob("*/*/intrinsic.txt"):
            path.unlink()
        if known:
            assert prepare("vkitti2", root, tmp_path / "out")[0].intrinsics == (725.0087, 725.0087, 620.5, 187.0)
        else:
            with pytest.raises(DataError, match=r"intrinsic\.txt: missing"):
                prepare("vkitti2", root, tmp_path / "none")


# --- SYNTHIA-AL ---------------------------------------------------------------------------------------------------


def test_synthia_al(tmp_path: Path) -> None:
    root = tmp_path / "root"
    synthia(root)
    synthia(root, "test", ("000001",))
    dataset = prepare("synthia_al", root, tmp_path / "out")
    assert [sample.split for sample in dataset] == ["train"] * 3 + ["test"]
    sample = dataset[0]
    assert sample.intrinsics == pytest.approx((89.5692, 89.5692, 31.5, 23.5))  # of 64 x 48 pixels, a tenth of the release
    assert dataset.read_image(sample).shape == (48, 64, 3)
    np.testing.assert_allclose(dataset.read_depth(sample), 131 * 256 * 5000 / (2**24 - 1), rtol=1e-6)
    every = prepare("synthia_al", root, tmp_path / "every", splits=["train"], every=2)
    assert [sample.id[-6:] for sample in every] == ["000101", "000103"]


def test_synthia_al_bad_input(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "RGB").mkdir(parents=True)
    with pytest.raises(DataError, match=r"train/<sequence>.*found RGB/"):
        open_source("synthia_al", root)
    take = synthia(root)
    with pytest.raises(DataError, match="test/"):
        open_source("synthia_al", root, splits=["test"])
    (take / "calib_kitti" / "000102.txt").write_text("P2: 1 2 3\n")
    with pytest.raises(DataError, match=r"000102\.txt: expected a line 'P2:'"):
        prepare("synthia_al", root, tmp_path / "a")
    (take / "Depth" / "000101.png").unlink()
    with pytest.raises(DataError, match="missing"):
        prepare("synthia_al", root, tmp_path / "b")


# --- a plain folder -----------------------------------------------------------------------------------------------


def test_folder_of_photos(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    picture(root / "b.png", 40, 30)
    picture(root / "trip" / "a.jpg")
    (root / "b.txt").write_text("a quiet street\n")
    (root / "readme.md").write_text("not a picture")
    dataset = prepare("folder", root, tmp_path / "out", fov=90)
    assert [(sample.id, sample.caption) for sample in dataset] == [("b.png", "a quiet street"), ("trip_a.jpg", None)]
    assert dataset.info.depth_kind is None
    assert dataset[0].intrinsics == pytest.approx((20, 20, 19.5, 14.5))


@pytest.mark.parametrize("format", ["png16", "npy", "npz:depth"])
def test_folder_with_depth_and_captions(tmp_path: Path, format: str) -> None:
    root = tmp_path / "set"
    picture(root / "images" / "x" / "a.jpg", 8, 6)
    values = np.full((6, 8), 512)
    (root / "depth" / "x").mkdir(parents=True)
    if format == "png16":
        gray16(root / "depth" / "x" / "a.png", values)
    elif format == "npy":
        np.save(root / "depth" / "x" / "a.npy", values)
    else:
        np.savez(root / "depth" / "x" / "a.npz", depth=values)
    (root / "captions.jsonl").write_text(json.dumps({"file_name": "x/a.jpg", "text": "a street"}) + "\n\n")
    dataset = prepare("folder", root, tmp_path / "out", depth_format=format)
    np.testing.assert_array_equal(dataset.read_depth(dataset[0]), 2.0)
    assert dataset[0].caption == "a street"


@pytest.mark.parametrize(
    ("stored", "scale", "said"),
    [(12_000.0, 1.0, "look like millimetres"), (1_200.0, 1.0, "look like centimetres"), (12.0, 256.0, "divided by too much")],
)
@pytest.mark.parametrize("fit", [None, Fit(width=8, height=8)])
def test_depth_in_another_unit_is_refused(tmp_path: Path, stored: float, scale: float, said: str, fit: Fit | None) -> None:
    root = tmp_path / "set"
    for name in "abc":
        picture(root / "images" / f"{name}.png", 16, 16)
        (root / "depth").mkdir(exist_ok=True)
        np.save(root / "depth" / f"{name}.npy", np.full((16, 16), stored, np.float32))

    def write(out: str, scale: float) -> Dataset:
        (tmp_path / out).mkdir()
        source = open_source("folder", root, depth_format="npy", depth_scale=scale)
        if fit is None:
            return write_source(source, tmp_path / out, role="train")
        return write_fitted([source], tmp_path / out, role="train", fit=fit)

    with pytest.raises(DataError, match=f"set: depth is .* m in the median over 3 maps.*{said}.*depth_scale"):
        write("bad", scale)
    dataset = write("good", stored / 12)
    np.testing.assert_allclose(dataset.read_depth(dataset[0]), 12, rtol=1e-6)


def test_a_limit_hashes_only_what_it_keeps(tmp_path: Path) -> None:
    vkitti2(tmp_path / "vk")
    cache = tmp_path / "cache.jsonl"
    with FileIndex(tmp_path / "vk", cache) as index:
        source = limited(open_source("vkitti2", tmp_path / "vk", index=index), 2, index)
        rows = list(source.samples)
    assert [set(row.sha256) for row in rows] == [{"image", "depth"}] * 2
    hashed = [json.loads(line)[4] for line in cache.read_text().splitlines()[1:]]
    assert sum(digest is not None for digest in hashed) == 4


def test_folder_bad_input(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    with pytest.raises(DataError, match="an empty folder"):
        open_source("folder", root)
    picture(root / "a.png")
    with pytest.raises(DataError, match="depth/"):
        open_source("folder", root, depth=True)
    (root / "depth").mkdir()
    with pytest.raises(DataError, match=r"depth/a\.png: no such depth map \(1 of 1"):
        open_source("folder", root)
    (root / "captions.json").write_text("[]")
    with pytest.raises(DataError, match=r"captions\.json"):
        open_source("folder", root, depth=False)
    (root / "captions.jsonl").write_text("{}")
    with pytest.raises(DataError, match="keep one"):
        open_source("folder", root, depth=False)
    (root / "captions.json").unlink()
    with pytest.raises(DataError, match="line 1"):
        open_source("folder", root, depth=False)
    for options in ({"depth_format": "exr"}, {"depth_kind": "disparity"}):
        with pytest.raises(AlbertiError):
            open_source("folder", root, depth=False, **options)


def test_two_files_of_one_id_are_an_error(tmp_path: Path) -> None:
    picture(tmp_path / "set" / "a_b.png")
    picture(tmp_path / "set" / "a" / "b.png")
    with pytest.raises(DataError, match="not unique"):
        prepare("folder", tmp_path / "set", tmp_path / "out")


# --- what must not be taken for something else --------------------------------------------------------------------


def test_resized_copies_get_a_camera_of_their_size_and_crops_are_refused(tmp_path: Path) -> None:
    vkitti2(tmp_path / "half", size=(621, 188))
    fx, fy, cx, cy = prepare("vkitti2", tmp_path / "half", tmp_path / "out")[0].intrinsics or ()
    assert (fx, cx) == pytest.approx((725.0087 / 2, 310.0))
    assert (fy, cy) == pytest.approx((725.0087 * 188 / 375, 187.5 * 188 / 375 - 0.5))
    vkitti2(tmp_path / "crop", size=(1216, 352))
    with pytest.raises(DataError, match=r"intrinsic\.txt: the camera is of pictures of 1242 x 375, these are 1216 x 352"):
        prepare("vkitti2", tmp_path / "crop", tmp_path / "none")
    for path in (tmp_path / "crop").rglob("intrinsic.txt"):
        path.write_bytes(
            path.read_text().replace("620.5", "607.5").replace("621.5", "607.5").replace("187", "164").encode("utf-16")
        )
    assert prepare("vkitti2", tmp_path / "crop", tmp_path / "own")[0].intrinsics == (725.0087, 725.0087, 607.5, 164.0)
    for path in (tmp_path / "crop").rglob("intrinsic.txt"):
        path.write_text(path.read_text("utf-16").replace("607.5", "10"))
    with pytest.raises(DataError, match="no camera of a picture of 1216 x 352"):
        prepare("vkitti2", tmp_path / "crop", tmp_path / "none2")


def test_suffixes_in_capitals_and_other_formats_are_the_same_pictures(tmp_path: Path) -> None:
    vkitti2(tmp_path / "vk")
    synthia(tmp_path / "sy")
    for path in [*(tmp_path / "vk").rglob("*.jpg"), *(tmp_path / "vk").rglob("depth_*.png")]:
        path.rename(path.with_suffix(path.suffix.upper()))
    for path in (tmp_path / "sy").rglob("RGB/*.png"):
        Image.open(path).convert("RGB").save(path.with_suffix(".jpg"))
        path.unlink()
    assert len(prepare("vkitti2", tmp_path / "vk", tmp_path / "out")) == 9
    assert len(prepare("synthia_al", tmp_path / "sy", tmp_path / "out2")) == 3


@pytest.mark.parametrize(
    ("image", "other"),
    [
        ("rgb/a.png", "depths/a.png"),
        ("a.png", "a_depth.png"),
        ("images/a.png", "images/a-mask.png"),
        ("x/a.jpg", "masks/x/a.png"),
    ],
)
@pytest.mark.parametrize("deep", [True, False])
def test_depth_maps_and_masks_are_no_photographs(tmp_path: Path, image: str, other: str, deep: bool) -> None:
    picture(tmp_path / image)
    if deep:
        gray16(tmp_path / other, np.full((30, 40), 2560))
    else:
        picture(tmp_path / other)
    with pytest.raises(DataError, match=rf"1 of the 2 pictures are .*{other}.*depth maps from depth/"):
        open_source("folder", tmp_path)


def test_depth_in_another_format_is_hinted_at(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth/a.npy", np.full((30, 40), 5.0))
    with pytest.raises(DataError, match=r"depth/ holds 1 \.npy: set options\.depth_format to npy"):
        open_source("folder", tmp_path)
    assert open_source("folder", tmp_path, depth_format="npy").depth_kind == "z"


def test_names_that_cannot_stand_in_a_manifest(tmp_path: Path) -> None:
    picture(tmp_path / "set/sub\\b.png")
    picture(tmp_path / "set" / ("deep" * 60) / "c.png")
    ids = [sample.id for sample in prepare("folder", tmp_path / "set", tmp_path / "out")]
    assert ids[1] == "sub_b.png"
    assert len(ids[0]) < 200
    (tmp_path / "set/sub\\b.png").rename(os.fsdecode(os.fsencode(tmp_path / "set") + b"/Stra\xdfe.png"))
    with pytest.raises(DataError, match=r"Stra.*is no UTF-8: rename the file"):
        prepare("folder", tmp_path / "set", tmp_path / "none")


def test_holicity_s_lists_tables_and_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_views(tmp_path / "h", ["placeA_HD_060_20", "placeB_HD_060_20"])
    listed = tmp_path / "h/train-middlesplit.txt"
    listed.write_bytes("2008-07/placeA\r\n2008-07\\placeB\r\n2008-07/placeC\r\n".encode("utf-16"))
    assert len(list(open_source("holicity", tmp_path / "h", split="train").samples)) == 2
    assert "1 of the 3 places in the lists of train have no view here: 2008-07/placeC" in capsys.readouterr().err
    (tmp_path / "h/captions_depth.json").write_text('{"2008-07/other_HD_000_00_imag": "a street"}')
    with pytest.raises(DataError, match=r"captions_depth\.json names none of the 2 views"):
        open_source("holicity", tmp_path / "h")
    (tmp_path / "h/captions_depth.json").write_text('{"2008-07/placeA_HD_060_20_imag": "a street"}')
    (tmp_path / "h/vpts_depth.json").write_text('{"2008-07/placeA_HD_060_20_imag": [[255.5, 511.5]]}')
    rows = list(open_source("holicity", tmp_path / "h", vanishing_points="paper").samples)
    assert "entries of 1 of the 2 views" in capsys.readouterr().err
    (point,) = rows[0].vanishing_points or ()
    # the paper counts 512 pixels, the fixture has 64: the middle stays the middle
    assert (point[0] / point[2], point[1] / point[2]) == pytest.approx((31.5, 63.5))


def two_views(root: Path, names: list[str]) -> None:
    for name in names:
        picture(root / "2008-07" / f"{name}_imag.JPG", 64, 64)
        np.savez(root / "2008-07" / f"{name}_dpth.npz", depth=np.full((64, 64), 9.0, np.float32))
