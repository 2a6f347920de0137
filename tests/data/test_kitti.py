"""KITTI's native layout, written by hand here, so that reader and writer are not only tested against each other."""

import numpy as np
import pytest
from PIL import Image

from alberti.data.kitti import (
    DEFAULT_VELO_TO_CAM,
    Calibration,
    Frame,
    KittiReader,
    KittiRecord,
    kitti_samples,
    lidar_depth,
    read_scan,
    read_split,
    split_hash,
    write_kitti,
    write_lidar_depth,
)
from alberti.data.manifest import Dataset, write_dataset
from alberti.errors import DataError
from alberti.geometry.camera import Camera

DATE, DRIVE = "2011_09_26", "2011_09_26_drive_0002_sync"
CAM_TO_CAM = """calib_time: 09-Jan-2012 13:57:47
corner_dist: 9.950000e-02
S_rect_02: 6.000000e+01 4.000000e+01
R_rect_00: 1 0 0 0 1 0 0 0 1
P_rect_02: 5.000000e+01 0 3.000000e+01 2.0e+00 0 5.000000e+01 2.000000e+01 0 0 0 1 0
P_rect_03: 5.000000e+01 0 3.000000e+01 -2.5e+01 0 5.000000e+01 2.000000e+01 0 0 0 1 0
"""
VELO_TO_CAM = """calib_time: 15-Mar-2012 11:37:16
R: 0 -1 0 0 0 -1 1 0 0
T: 0 0 -0.27
delta_f: 0 0
"""


@pytest.fixture
def kitti(tmp_path):
    """One drive with two frames of 60 x 40, the second a jpg; annotated depth of the first only."""
    date = tmp_path / "raw" / DATE
    images, scans = date / DRIVE / "image_02" / "data", date / DRIVE / "velodyne_points" / "data"
    annotated = tmp_path / "depth" / "val" / DRIVE / "proj_depth" / "groundtruth" / "image_02"
    for folder in (images, scans, annotated):
        folder.mkdir(parents=True)
    (date / "calib_cam_to_cam.txt").write_text(CAM_TO_CAM)
    (date / "calib_velo_to_cam.txt").write_text(VELO_TO_CAM)
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(picture).save(images / "0000000069.png")
    Image.fromarray(picture).save(images / "0000000070.jpg")
    points = np.array([[10.27, 0, 0, 0.5], [20.27, 0, 0, 0.5], [5.27, 1, 0.5, 0.1], [-5, 0, 0, 0.2]], dtype="<f4")
    points.tofile(scans / "0000000069.bin")
    points.tofile(scans / "0000000070.bin")
    depth = np.zeros((40, 60), dtype=np.uint16)
    depth[20, 30] = 2560
    Image.fromarray(depth).save(annotated / "0000000069.png")
    return tmp_path


FRAME = Frame(DATE, DRIVE, 69)


def split_file(tmp_path, text, name="list.txt"):
    path = tmp_path / name
    path.write_text(text)
    return path


# --- lists


@pytest.mark.parametrize(
    "line",
    [
        f"{DATE}/{DRIVE} 0000000069 l",
        f"{DATE}/{DRIVE} 69 l",
        f"{DATE}/{DRIVE} 69",
        f"{DATE}/{DRIVE}/image_02/data/0000000069.png {DRIVE}/proj_depth/groundtruth/image_02/0000000069.png 721.5377",
        f"{DATE}/{DRIVE}/image_02/data/0000000069.jpg {DATE}/{DRIVE}/image_03/data/0000000069.jpg",
        f"/{DATE}/{DRIVE}/image_02/data/0000000069.png",
    ],
)
def test_every_form_of_list_names_the_same_frame(tmp_path, line):
    frames = read_split(split_file(tmp_path, f"\n{line}\r\n\n"))
    assert frames == [FRAME]
    assert frames[0].id == "2011_09_26_drive_0002_sync_0000000069"
    assert (frames[0].side, frames[0].camera) == ("l", 2)


def test_right_camera_and_missing_annotation_are_read(tmp_path):
    lines = [
        f"{DATE}/{DRIVE} 5 r",
        f"{DATE}/{DRIVE}/image_02/data/0000000006.png None 721.5377",
        f"{DATE}/{DRIVE}/image_02/data/0000000007.png {DRIVE}/proj_depth/groundtruth/image_02/0000000007.png 721.5377",
    ]
    right, without, with_depth = read_split(split_file(tmp_path, "\n".join(lines)))
    assert (right.camera, right.id) == (3, f"{DRIVE}_0000000005_r")
    assert (right.annotated, without.annotated, with_depth.annotated) == (None, False, True)


def test_split_hash_is_of_the_set(tmp_path):
    padded = read_split(split_file(tmp_path, f"{DATE}/{DRIVE} 0000000001 l\n{DATE}/{DRIVE} 0000000002 l\n"))
    turned = read_split(split_file(tmp_path, f"{DATE}/{DRIVE} 2 l\n{DATE}/{DRIVE} 1 l\n"))
    other = read_split(split_file(tmp_path, f"{DATE}/{DRIVE} 2 l\n{DATE}/{DRIVE} 3 l\n"))
    digests = [split_hash(frame.id for frame in frames) for frames in (padded, turned, other)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no frame"),
        (f"{DATE}/{DRIVE} 1 l\n{DATE}/{DRIVE} 0000000001 l\n", "line 2.*already stands in line 1"),
        (f"{DATE}/{DRIVE} x l\n", "line 1: expected"),
        (f"{DATE}/{DRIVE} 1 q\n", "line 1: expected"),
        ("../../etc/passwd 1 l\n", "line 1: expected"),
        (f"{DATE}/.. 1 l\n", "line 1: expected"),
        (f"{DRIVE} 1 l\n", "line 1: expected"),
    ],
)
def test_bad_lists_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_split(split_file(tmp_path, text))


def test_a_missing_or_binary_list_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such split file"):
        read_split(tmp_path / "nowhere.txt")
    (tmp_path / "binary.txt").write_bytes(b"\x00\xff\x80")
    with pytest.raises(DataError, match="cannot read"):
        read_split(tmp_path / "binary.txt")


# --- LiDAR projection

PROJECTION = np.array([[50.0, 0, 30, 0], [0, 50, 20, 0], [0, 0, 1, 0]]) @ np.array(
    [[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, -0.25], [0, 0, 0, 1]]
)


def test_projection_by_hand():
    # camera coordinates are (-y, -z, x - 0.25): 10.25 m ahead and 2 m to the right lands at u = 30 + 50 * 2 / 10
    points = np.array([[10.25, -2, 0, 0]], dtype=np.float32)
    forward = lidar_depth(points, PROJECTION, (60, 40), "lidar_forward")
    z = lidar_depth(points, PROJECTION, (60, 40), "lidar_z")
    assert np.argwhere(forward).tolist() == [[19, 39]]  # one less than the rounded pixel, as monodepth2
    assert np.argwhere(z).tolist() == [[20, 40]]
    assert forward[19, 39] == 10.25
    assert z[20, 40] == 10.0


@pytest.mark.parametrize("kind", ["lidar_forward", "lidar_z"])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_the_nearest_point_wins_in_any_order(kind, order):
    points = np.array([[10.25, 0, 0, 0], [20.25, 0, 0, 0], [30.25, 0, 0, 0]], dtype=np.float32)[order]
    depth = lidar_depth(points, PROJECTION, (60, 40), kind)
    assert depth[depth > 0].tolist() == [10.25 if kind == "lidar_forward" else 10.0]


def test_points_behind_or_outside_are_left_out():
    points = np.array([[-10, 0, 0, 0], [10, 50, 0, 0], [10, 0, 50, 0], [10, 0, -50, 0]], dtype=np.float32)
    for kind in ("lidar_forward", "lidar_z"):
        assert not lidar_depth(points, PROJECTION, (60, 40), kind).any()
    between = np.array([[0.1, 0, 0, 0]], dtype=np.float32)  # ahead of the scanner, behind the camera
    assert not lidar_depth(between, PROJECTION, (60, 40), "lidar_z").any()


def plain_lidar_forward(points, projection, size):
    """The published rule with loops: monodepth2 numbers pixels by row * (width - 1) + column - 1."""
    width, height = size
    image, groups = np.zeros((height, width)), {}
    for x, y, z, _ in points.astype(np.float64):
        if x < 0:
            continue
        u, v, w = projection @ [x, y, z, 1]
        column, row = int(np.round(u / w)) - 1, int(np.round(v / w)) - 1
        if 0 <= column < width and 0 <= row < height:
            image[row, column] = x
            groups.setdefault(row * (width - 1) + column - 1, []).append((row, column, x))
    for members in groups.values():
        if len(members) > 1:
            image[members[0][0], members[0][1]] = min(x for _, _, x in members)
    return image.astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_projection_equals_the_published_rule(seed):
    random = np.random.default_rng(seed)
    points = random.uniform([-5, -20, -10, 0], [40, 20, 10, 1], (4000, 4)).astype(np.float32)
    expected = plain_lidar_forward(points, PROJECTION, (60, 40))
    assert np.array_equal(lidar_depth(points, PROJECTION, (60, 40), "lidar_forward"), expected)
    assert (expected > 0).mean() > 0.3


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="lidar_forward"):
        lidar_depth(np.zeros((1, 4)), PROJECTION, (60, 40), "depth")


# --- reader


@pytest.mark.parametrize("below", [".", "raw"])
def test_reads_the_native_layout(kitti, below):
    reader = KittiReader(kitti / below)
    assert reader.frames() == [FRAME, Frame(DATE, DRIVE, 70)]
    assert reader.read_image(FRAME).shape == (40, 60, 3)
    assert reader.image_path(Frame(DATE, DRIVE, 70)).suffix == ".jpg"
    assert reader.camera(FRAME) == Camera(50, 50, 30, 20, 60, 40)
    assert reader.read_scan(FRAME).shape == (4, 4)
    # P_rect_02 shifts by 2 pixels at 1 m: u = 30 + 2 / 10
    forward = reader.depth(FRAME, "lidar_forward")
    assert forward[19, 29] == np.float32(10.27)
    assert np.isclose(reader.depth(FRAME, "lidar_z")[20, 30], 10.0)
    assert reader.depth(FRAME, "annotated")[20, 30] == 10.0
    assert reader.has_annotated(FRAME)
    assert not reader.has_annotated(Frame(DATE, DRIVE, 70))
    reader.check([FRAME], image=True, kind="annotated")


@pytest.mark.parametrize("place", ["depth/train", "data_depth_annotated/val", "raw/depth", f"raw/{DATE}", "elsewhere"])
def test_annotated_depth_is_found_where_people_keep_it(kitti, place):
    target = kitti / place / DRIVE
    target.mkdir(parents=True, exist_ok=True)
    (kitti / "depth" / "val" / DRIVE / "proj_depth").rename(target / "proj_depth")
    for emptied in ("depth/val/" + DRIVE, "depth/val", "depth"):
        if not any((kitti / emptied).iterdir()):
            (kitti / emptied).rmdir()
    reader = KittiReader(kitti / "raw", kitti / place if place == "elsewhere" else None)
    assert reader.depth(FRAME, "annotated")[20, 30] == 10.0


def test_right_camera_uses_its_own_projection(kitti):
    frame = Frame(DATE, DRIVE, 69, "r")
    depth = KittiReader(kitti).depth(frame, "lidar_z")
    assert np.isclose(depth[20, 28], 10.0)  # u = 30 - 25 / 10 = 27.5, which rounds to the even 28


def test_another_layout_is_named(tmp_path, kitti):
    (tmp_path / "training" / "image_2").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found image_2/"):
        KittiReader(tmp_path / "training")
    with pytest.raises(DataError, match="found nothing"):
        KittiReader(tmp_path / "empty")
    with pytest.raises(DataError, match="looks like the root"):
        KittiReader(kitti / "raw" / DATE)
    with pytest.raises(DataError, match="no such folder"):
        KittiReader(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no such folder of annotated depth"):
        KittiReader(kitti, tmp_path / "nowhere")


def test_missing_files_are_listed(kitti):
    reader = KittiReader(kitti)
    absent = [Frame(DATE, DRIVE, index) for index in range(100, 108)]
    with pytest.raises(DataError, match=r"of the 8 listed frames.*0000000100.bin.*and 3 more"):
        reader.check(absent, kind="lidar_forward")
    with pytest.raises(DataError, match=r"0000000100.png"):
        reader.check(absent, image=True)
    with pytest.raises(DataError, match=r"0000000070.png.*holds 0000000069.png"):
        reader.check([Frame(DATE, DRIVE, 70)], kind="annotated")
    with pytest.raises(DataError, match="no such image"):
        reader.read_image(absent[0])
    with pytest.raises(DataError, match="no such velodyne scan"):
        reader.depth(absent[0], "lidar_z")
    with pytest.raises(DataError, match=r"calib_cam_to_cam.txt: no calibration"):
        reader.check([Frame("2011_09_27", "2011_09_27_drive_0001_sync", 1), FRAME], kind="lidar_forward")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("calib_velo_to_cam.txt", "T:", "X:", "no line `T: ...`"),
        ("calib_cam_to_cam.txt", "S_rect_02: 6.000000e+01 4", "S_rect_02: 4", "S_rect_02: expected 2 finite numbers"),
        ("calib_cam_to_cam.txt", "R_rect_00: 1", "R_rect_00: one", "R_rect_00: could not convert"),
        ("calib_velo_to_cam.txt", "T: 0", "T: nan", "T: expected 3 finite numbers"),
    ],
)
def test_damaged_calibration_is_named(kitti, name, old, new, message):
    path = kitti / "raw" / DATE / name
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message) as caught:
        KittiReader(kitti).camera(FRAME)
    assert name in str(caught.value)


def test_damaged_scans_are_named(tmp_path):
    path = tmp_path / "scan.bin"
    path.write_bytes(b"\0" * 40)
    with pytest.raises(DataError, match=r"40 bytes.*truncated"):
        read_scan(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="truncated"):
        read_scan(path)
    np.full((1, 4), np.nan, dtype="<f4").tofile(path)
    with pytest.raises(DataError, match="NaN"):
        read_scan(path)


# --- writer


def record(seed=0, camera=None, split="test", **changes):
    random = np.random.default_rng(seed)
    camera = camera or Camera(40.123456789, 41.5, 31.0, 19.7, 64, 40)
    shape = (camera.height, camera.width)
    values = {
        "image": random.integers(0, 256, (*shape, 3), dtype=np.uint8),
        "depth": np.rint(random.uniform(1, 80, shape) * 256).astype(np.float32) / 256,
        "points": random.uniform(-30, 30, (500, 4)).astype(np.float32),
    }
    return KittiRecord(camera=camera, split=split, **(values | changes))


def test_what_is_written_reads_back_the_same(tmp_path):
    wide = Camera(50, 50, 30, 20, 60, 44)
    records = [record(0), record(1, split="train"), record(2), record(3, wide), record(4, split="train")]
    frames = write_kitti(tmp_path, iter(records))
    reader = KittiReader(tmp_path)
    assert sorted(frames) == reader.frames()
    assert [frame.date for frame in frames] == ["2001_01_01"] * 3 + ["2001_01_02", "2001_01_01"]
    for frame, written in zip(frames, records, strict=True):
        assert reader.camera(frame) == written.camera
        assert np.array_equal(reader.read_image(frame), written.image)
        assert np.array_equal(reader.depth(frame, "annotated"), written.depth)
        assert np.array_equal(reader.read_scan(frame), written.points)
        assert np.array_equal(reader.calibration(frame).velo_to_cam, DEFAULT_VELO_TO_CAM)
        folder = "train" if written.split == "train" else "val"
        assert reader.annotated_path(frame).relative_to(tmp_path / "depth").parts[0] == folder
    assert read_split(tmp_path / "splits" / "train.txt") == [frames[1], frames[4]]
    assert read_split(tmp_path / "splits" / "test.txt") == [frames[0], frames[2], frames[3]]
    assert (tmp_path / "raw" / "2001_01_01" / "calib_imu_to_velo.txt").is_file()


def test_written_scans_land_on_the_pixels_they_came_from(tmp_path):
    camera = Camera(40, 40, 31.5, 19.5, 64, 40)
    depth = np.random.default_rng(0).uniform(2, 60, (40, 64)).astype(np.float32)
    in_camera = camera.unproject(depth).reshape(-1, 3)
    homogeneous = np.concatenate([in_camera, np.ones((len(in_camera), 1))], axis=1)
    points = homogeneous @ np.linalg.inv(DEFAULT_VELO_TO_CAM).T
    (frame,) = write_kitti(tmp_path, [record(camera=camera, depth=depth, points=points)])
    reader = KittiReader(tmp_path)
    assert np.allclose(reader.depth(frame, "lidar_z"), depth, rtol=1e-5)
    # the published rule puts a point one pixel up and left, and measures from the scanner, 0.27 m behind the camera
    assert np.allclose(reader.depth(frame, "lidar_forward")[:-1, :-1], depth[1:, 1:] + 0.27, rtol=1e-5)


def test_frames_without_depth_or_scan_can_be_written(tmp_path):
    frames = write_kitti(tmp_path, [record(0, depth=None), record(1, points=None)])
    reader = KittiReader(tmp_path)
    assert [reader.has_annotated(frame) for frame in frames] == [False, True]
    assert [reader.scan_path(frame).is_file() for frame in frames] == [True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((2, 2, 3), dtype=np.uint8)}, r"image: expected \(40, 64, 3\)"),
        ({"depth": np.ones((2, 2))}, r"depth: expected \(40, 64\)"),
        ({"depth": np.full((40, 64), np.nan)}, "finite"),
        ({"points": np.ones((5, 3))}, r"points: expected \(N, 4\)"),
        ({"points": np.zeros((0, 4))}, "at least one"),
        ({"split": "../x"}, "split: expected a name"),
    ],
)
def test_writer_refuses(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        write_kitti(tmp_path, [record(**changes)])


def test_calibration_forward_point_is_the_image_of_the_cars_direction():
    eye = np.eye(4)
    projection = np.array([[50.0, 0, 30, 0], [0, 50, 20, 0], [0, 0, 1, 0]])
    calibration = Calibration((60, 40), {2: projection}, eye, DEFAULT_VELO_TO_CAM)
    x, y, w = calibration.forward_vanishing_point()
    assert np.allclose([x / w, y / w], [30, 20])
    assert np.isclose(np.linalg.norm([x, y, w]), 1)


# --- manifest


def test_kitti_becomes_a_data_set_without_copies(kitti, tmp_path):
    reader = KittiReader(kitti)
    folder = tmp_path / "set"
    folder.mkdir()
    rows = kitti_samples(reader, [FRAME], split="train", forward_vanishing_point=True)
    dataset = write_dataset(folder, rows, name="kitti", role="train", root=str(reader.raw), depth_root=str(reader.depth_root))
    sample = Dataset.open(folder, check_files=True)[0]
    assert sorted(path.name for path in folder.iterdir()) == ["dataset.json", "manifest.jsonl"]
    assert sample.id == FRAME.id
    assert sample.split == "train"
    assert dataset.camera(sample) == reader.camera(FRAME)
    assert np.array_equal(dataset.read_image(sample), reader.read_image(FRAME))
    assert dataset.read_depth(sample)[20, 30] == 10.0
    assert sample.vanishing_points_source == "dataset"


def test_scans_become_depth_maps_of_a_data_set(kitti, tmp_path):
    reader = KittiReader(kitti)
    listed = split_file(tmp_path, f"{DATE}/{DRIVE} 69 l\n{DATE}/{DRIVE} 70 l\n")
    folder = tmp_path / "set"
    folder.mkdir()
    write_lidar_depth(reader, read_split(listed), folder / "depth")
    rows = kitti_samples(kitti, listed, depth="lidar")
    dataset = write_dataset(folder, rows, name="kitti", role="train", root=str(reader.raw), depth_root="depth")
    for sample, frame in zip(dataset, read_split(listed), strict=True):
        assert np.allclose(dataset.read_depth(sample), reader.depth(frame, "lidar_z"), atol=0.5 / 256)
        assert sample.vanishing_points is None


def test_samples_refuse_what_is_not_there(kitti):
    with pytest.raises(DataError, match=r"0000000070\.png"):
        list(kitti_samples(kitti, [FRAME, Frame(DATE, DRIVE, 70)]))
    with pytest.raises(ValueError, match="annotated"):
        list(kitti_samples(kitti, [FRAME], depth="scan"))
    path = kitti / "raw" / DATE / DRIVE / "image_02" / "data" / "0000000069.png"
    Image.new("RGB", (30, 20)).save(path)
    with pytest.raises(DataError, match="30 x 20 pixels, but the calibration"):
        list(kitti_samples(kitti, [FRAME]))
    path.write_bytes(b"not a picture")
    with pytest.raises(DataError, match="cannot read the image"):
        list(kitti_samples(kitti, [FRAME]))


@pytest.mark.parametrize(
    "line",
    [
        f"{DATE}/{DRIVE} 69 l",
        f"/my data/kitti/{DATE}/{DRIVE} 0000000069 l",
        f"/my data/kitti/{DATE}/{DRIVE}/image_02/data/0000000069.JPG",
        f"C:\\kitti\\{DATE}\\{DRIVE}\\image_02\\data\\0000000069.png",
        f"{DATE}/{DRIVE}/image_02/data/0000000069.png,None,721.5",
        f'"{DATE}/{DRIVE}/image_02/data/0000000069.png"',
        f"train/{DRIVE}/proj_depth/groundtruth/image_02/0000000069.png",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_in_clear_forms(tmp_path, line, encoding):
    (tmp_path / "list.txt").write_bytes(f"# a comment\r\n{line}\r\n".encode(encoding))
    assert read_split(tmp_path / "list.txt") == [Frame(DATE, DRIVE, 69)]


def test_pictures_in_capitals_and_depth_in_gts(kitti):
    path = kitti / "raw" / DATE / DRIVE / "image_02" / "data" / "0000000069.png"
    path.rename(path.with_suffix(".PNG"))
    (kitti / "depth").rename(kitti / "gts")
    reader = KittiReader(kitti)
    assert reader.image_path(FRAME).suffix == ".PNG"
    assert reader.has_annotated(FRAME)
    (kitti / "gts").rename(kitti / "elsewhere")
    with pytest.raises(DataError, match="--kitti-depth"):
        KittiReader(kitti).check([FRAME], kind="annotated")
