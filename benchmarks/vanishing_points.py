"""Vanishing points against known ones, side by side with lu-vp-detect where that is installed.

    python benchmarks/vanishing_points.py --york DIR [--split FILE]   # York Urban's layout; --distort -0.1 bends it as well
    python benchmarks/vanishing_points.py --scenes 48 --size 256      # rendered streets
    python benchmarks/vanishing_points.py --eurasian DIR              # Eurasian Cities' layout: horizons, unknown cameras
    python benchmarks/vanishing_points.py --junctions 40              # rendered streets that meet at odd angles, 640 x 480
    python benchmarks/vanishing_points.py --kitti DIR --holicity DIR  # forward points of KITTI raw; HoliCity's own points
    python benchmarks/vanishing_points.py --throughput 200            # images a second of `alberti annotate`, 512 x 512

Prints JSON: AUC@3/5/10 degrees per point, the share of pictures with all points within 3 degrees, horizon and focal error,
milliseconds a picture on one core (median; run it alone), and what each stage costs. FILE names York Urban's
pictures, one a line.

Eurasian Cities' layout is NNN.jpg with NNNhor.mat (horizon, a x + b y + c = 0) and NNN.mat (labelled lines, pixels). Pictures
whose labelled lines reach outside of them are counted as ``labels_outside``: their labels are another picture's, and figures
on them mean nothing.

York Urban's principal point counts pixels from 1; 1 is taken off here. lu-vp-detect expects OpenCV 4's shape of segments;
it is given that under OpenCV 5 too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import permutations
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from alberti.geometry import distortion
from alberti.geometry.camera import Camera, vanishing_points_to_directions
from alberti.geometry.line_segments import detect_line_segments, detect_segments_and_edges
from alberti.geometry.vanishing_points import VanishingPointEstimate, estimate_vanishing_points
from alberti.images import read_image, write_image
from alberti.metrics.perspective import angular_accuracy

Found = tuple[np.ndarray, tuple[float, float, float] | None, float | None]
"""Directions (K, 3) in camera axes, horizon, focal length."""


@dataclass(frozen=True)
class Picture:
    """A picture with its true directions, rows of (K, 3)."""

    name: str
    image: np.ndarray
    camera: Camera
    directions: np.ndarray
    upright: bool = False
    """Whether the upright direction is among them, however few they are."""


def york_urban(root: Path, split: Path | None) -> list[Picture]:
    """York Urban: a folder a picture, orthogonal directions as columns with y up."""
    from scipy.io import loadmat

    parameters = loadmat(str(root / "cameraParameters.mat"))
    focal = parameters["focal"].item() / parameters["pixelSize"].item()
    cx, cy = parameters["pp"].ravel() - 1
    names = sorted(path.name for path in root.iterdir() if path.is_dir())
    if split is not None:
        wanted = split.read_text().split()
        names = [name for name in names if name in wanted]
    pictures = []
    for name in names:
        image = read_image(root / name / f"{name}.jpg")
        truth = loadmat(str(root / name / f"{name}GroundTruthVP_Orthogonal_CamParams.mat"))["vp_orthogonal"]
        camera = Camera(focal, focal, cx, cy, image.shape[1], image.shape[0])
        pictures.append(Picture(name, image, camera, truth.T * [1, -1, 1]))
    return pictures


def rendered(count: int, size: int, seed: int) -> list[Picture]:
    """Rendered streets; where two directions have visible structure, the third counts too."""
    from alberti.data.scenes import SceneConfig, render_batch

    pictures = []
    for start in range(0, count, 8):
        ids = [f"b{index}" for index in range(start, min(start + 8, count))]
        batch = render_batch(ids, seed, SceneConfig(width=size, height=size))
        for name, image, intrinsics, points in zip(
            ids, batch["image"], batch["intrinsics"], batch["vanishing_points"].numpy(), strict=True
        ):
            camera = Camera.from_intrinsics(intrinsics.tolist(), size, size)
            directions = vanishing_points_to_directions(points[np.abs(points).max(axis=1) > 0], camera)
            if len(directions) == 2:
                directions = np.concatenate([directions, np.cross(directions[:1], directions[1:])])
            if len(directions):
                pictures.append(Picture(name, np.ascontiguousarray(image.permute(1, 2, 0).numpy()), camera, directions))
    return pictures


def kitti(root: Path) -> list[Picture]:
    """KITTI raw: the car's forward axis (that of its IMU) in the left colour camera."""
    pictures = []
    for path in sorted(root.rglob("image_02/data/*.png")):
        date = next(folder for folder in path.parents if (folder / "calib_cam_to_cam.txt").is_file())
        cam, velo, imu = (_calibration(date / f"calib_{name}.txt") for name in ("cam_to_cam", "velo_to_cam", "imu_to_velo"))
        projection = cam["P_rect_02"].reshape(3, 4)
        turn = cam["R_rect_00"].reshape(3, 3) @ velo["R"].reshape(3, 3) @ imu["R"].reshape(3, 3)
        image = read_image(path)
        camera = Camera(projection[0, 0], projection[1, 1], projection[0, 2], projection[1, 2], image.shape[1], image.shape[0])
        pictures.append(Picture(path.relative_to(root).as_posix(), image, camera, turn[:, :1].T))
    return pictures


def _calibration(path: Path) -> dict[str, np.ndarray]:
    values = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        try:
            values[name] = np.array([float(word) for word in rest.split()])
        except ValueError:
            continue
    return values


def holicity(root: Path) -> list[Picture]:
    """HoliCity's perspective crops: focal length 256, directions in OpenGL's axes."""
    pictures = []
    for path in sorted(root.rglob("*_vpts.npz")):
        stem = path.name.removesuffix("_vpts.npz")
        source = next(p for p in path.parent.iterdir() if p.name.startswith(f"{stem}_imag."))
        image = read_image(source)
        camera = Camera(256.0, 256.0, 255.5, 255.5, image.shape[1], image.shape[0])
        with np.load(path) as stored:
            pictures.append(Picture(stem, image, camera, stored["vpts"] * [1, -1, -1]))
    return pictures


def junctions(count: int) -> list[Picture]:
    """Rendered streets that meet at 20 to 70 degrees; the upright direction and those of both streets with much to see."""
    from alberti.data.scenes import SceneConfig, render_junctions

    pictures = []
    for start in range(0, count, 4):
        ids = [f"j{index}" for index in range(start, min(start + 4, count))]
        batch = render_junctions(ids, 7, SceneConfig(width=640, height=480, supersample=1))
        for row, name in enumerate(ids):
            camera = Camera.from_intrinsics(batch["intrinsics"][row].tolist(), 640, 480)
            points = batch["vanishing_points"][row].numpy()
            directions = vanishing_points_to_directions(points[np.abs(points).max(axis=1) > 0], camera)
            # The upright direction of both streets is the same: once, and first.
            down = batch["down"][row].numpy()
            level = directions[np.abs(directions @ down) < 0.5]
            image = np.ascontiguousarray(batch["image"][row].permute(1, 2, 0).numpy())
            pictures.append(Picture(name, image, camera, np.concatenate([down[None], level]), upright=True))
    return pictures


def eurasian_cities(root: Path) -> dict[str, Any]:
    """Horizon errors by the height, and how many pictures' labels reach outside of the picture."""
    from scipy.io import loadmat

    errors, outside, without = [], 0, 0
    for path in sorted(root.glob("[0-9][0-9][0-9].jpg")):
        image = read_image(path)
        height, width = image.shape[:2]
        true = loadmat(str(root / f"{path.stem}hor.mat"))["horizon"].ravel()
        lines = loadmat(str(root / f"{path.stem}.mat"))["lines"].reshape(-1, 2)
        outside += bool((lines.max(axis=0) > [width + 1, height + 1]).any())
        found = estimate(image)
        without += found.horizon is None
        errors.append(horizon_gap(true, found.horizon, width, height))
    return {
        "pictures": len(errors),
        "labels_outside": outside,
        "without_horizon": without,
        "horizon_auc": angular_accuracy(errors, 0.25),
        "horizon_median": float(np.median(errors)),
    }


STAGES = {
    "segments (LSD)": ("line_segments", "_lsd"),
    "merging": ("line_segments", "merge_line_segments"),
    "edge refinement": ("line_segments", "move_onto_edges"),
    "distortion": ("distortion", "distortion_of_edges"),
    "hypotheses: candidates": ("vanishing_points", "find_candidates_twice"),
    "hypotheses: triad": ("vanishing_points", "find_triad"),
    "hypotheses and polishing: worlds": ("vanishing_points", "find_upright"),
    "polishing: each direction by itself (in triad)": ("manhattan", "balance"),
    "presence: triad": ("vanishing_points", "check_triad"),
    "presence: worlds": ("vanishing_points", "check_upright"),
    "further points": ("vanishing_points", "further_points"),
}
"""What a stage is called, and the function of alberti.geometry that is timed for it."""


def stage_costs(pictures: list[Picture], *, known: bool) -> dict[str, float]:
    """Milliseconds of processor time a picture, median, of each stage."""
    spent = dict.fromkeys(STAGES, 0.0)
    places = {stage: (import_module(f"alberti.geometry.{module}"), name) for stage, (module, name) in STAGES.items()}
    real = {stage: getattr(*place) for stage, place in places.items()}

    def timed(stage: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return real[stage](*arguments, **options)
            finally:
                spent[stage] += time.process_time() - start

        return call

    rows: list[dict[str, float]] = []
    try:
        for stage, place in places.items():
            setattr(*place, timed(stage))
        for picture in pictures:
            spent.update(dict.fromkeys(STAGES, 0.0))
            start = time.process_time()
            ours(picture, known=known)
            rows.append({**spent, "all": time.process_time() - start})
    finally:
        for stage, place in places.items():
            setattr(*place, real[stage])
    return {name: round(float(np.median([row[name] for row in rows]) * 1e3), 2) for name in rows[0]}


def calibration(pictures: list[Picture], *, known: bool) -> dict[str, Any]:
    """Confidence against the share of points within 2 degrees of a true direction, in thirds by confidence."""
    confidence, near = [], []
    for picture in pictures:
        found = estimate(picture.image, picture.camera if known else None)
        directions = vanishing_points_to_directions(found.points, picture.camera)
        for direction, sure in zip(directions, found.confidence, strict=True):
            confidence.append(sure)
            near.append(point_errors(direction[None], picture.directions)[0] < 2)
    thirds = np.array_split(np.argsort(confidence), 3)
    said = [float(np.mean(np.array(confidence)[third])) for third in thirds]
    true = [float(np.mean(np.array(near)[third])) for third in thirds]
    return {"points": len(near), "confidence": said, "share_within_2_degrees": true}


def bent(picture: Picture, k: float) -> Picture:
    """The picture as a lens with the distortion ``k`` (:mod:`alberti.geometry.distortion`) takes it."""
    height, width = picture.image.shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    y, x = np.mgrid[:height, :width]
    away = np.stack([x, y], axis=2) - centre
    source = away / (1 + k * 4 * (away**2).sum(axis=2, keepdims=True) / (width**2 + height**2)) + centre
    maps = source.astype(np.float32)
    image = cv2.remap(picture.image, maps[..., 0], maps[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return replace(picture, image=image)


def distorted(pictures: list[Picture], k: float) -> dict[str, Any]:
    """The pictures bent by ``k``: what is measured, and errors with the distortion left in and taken out (camera known)."""
    pictures = [bent(picture, k) for picture in pictures]
    found = []
    for picture in pictures:
        height, width = picture.image.shape[:2]
        found.append(distortion.distortion_of_edges(detect_segments_and_edges(picture.image)[1], width, height))
    measured = np.array([value.measured for value in found if value.measured is not None])
    return {
        "k": k,
        "measured_median": float(np.median(measured)),
        "measured_error_median": float(np.median(np.abs(measured - k))),
        "share_taken_out": float(np.mean([value.k != 0 for value in found])),
        "left in": judge(pictures, lambda picture: ours(picture, known=True, straightened=False)),
        "taken out": judge(pictures, lambda picture: ours(picture, known=True)),
    }


def estimate(image: np.ndarray, camera: Camera | None = None, *, straightened: bool = True) -> VanishingPointEstimate:
    """As `annotate` does it, with the lens distortion taken out; or left in."""
    height, width = image.shape[:2]
    if straightened:
        segments, edges = detect_segments_and_edges(image)
        segments = distortion.straighten(segments, width, height, distortion.distortion_of_edges(edges, width, height).likely)
    else:
        segments = detect_line_segments(image)
    return estimate_vanishing_points(segments, width, height, camera=camera)


def ours(picture: Picture, *, known: bool, straightened: bool = True) -> Found:
    """alberti, with the picture's intrinsics or without."""
    found = estimate(picture.image, picture.camera if known else None, straightened=straightened)
    return vanishing_points_to_directions(found.points, picture.camera), found.horizon, found.focal


def lu_vp_detect(picture: Picture) -> Found:
    """lu-vp-detect with the picture's intrinsics and its own defaults."""
    from lu_vp_detect import VPDetection

    camera = picture.camera
    detector = VPDetection(principal_point=(camera.cx, camera.cy), focal_length=camera.fx, seed=0)
    with segments_as_opencv_4():
        directions = detector.find_vps(cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR))
    down = directions[np.abs(directions[:, 1]).argmax()]
    return np.asarray(directions, dtype=np.float64), tuple(np.linalg.inv(camera.matrix()).T @ down), None


@contextmanager
def segments_as_opencv_4() -> Iterator[None]:
    """Give LSD's segments the shape (N, 1, 4) for code written for OpenCV 4."""
    create = cv2.createLineSegmentDetector

    class Detector:
        def __init__(self, *arguments: Any):
            self._real = create(*arguments)

        def detect(self, image: np.ndarray) -> tuple[np.ndarray]:
            return (np.asarray(self._real.detect(image)[0]).reshape(-1, 1, 4),)

    cv2.createLineSegmentDetector = Detector  # type: ignore[assignment]
    try:
        yield
    finally:
        cv2.createLineSegmentDetector = create


def point_errors(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(K,) degrees from each true direction to its own found one: the best assignment for three, else the nearest."""
    if len(found) == 0:
        return np.full(len(true), 90.0)
    sine = np.linalg.norm(np.cross(true[:, None], found[None]), axis=2)
    length = np.linalg.norm(true, axis=1)[:, None] * np.linalg.norm(found, axis=1)
    angles = np.degrees(np.arcsin(np.clip(sine / length, 0, 1)))
    if len(true) == 3 and len(found) >= 3:
        best = min(permutations(range(len(found)), 3), key=lambda order: angles[range(3), list(order)].sum())
        return np.asarray(angles[range(3), list(best)])
    return np.asarray(angles.min(axis=1))


def horizon_error(picture: Picture, horizon: tuple[float, float, float] | None) -> float:
    """The larger vertical gap at the picture's left and right edge by its height; 1 where there is no horizon."""
    down = picture.directions[np.abs(picture.directions[:, 1]).argmax()]
    return horizon_gap(np.linalg.inv(picture.camera.matrix()).T @ down, horizon, picture.camera.width, picture.camera.height)


def horizon_gap(true: np.ndarray, found: tuple[float, float, float] | None, width: int, height: int) -> float:
    """The larger vertical gap of two horizons at a picture's left and right edge by its height, at most 1; 1 without one."""
    if found is None or found[1] == 0:
        return 1.0
    gaps = [abs((true[0] * x + true[2]) / true[1] - (found[0] * x + found[2]) / found[1]) for x in (0, width - 1)]
    return min(1.0, max(gaps) / height)


def judge(pictures: list[Picture], method: Callable[[Picture], Found]) -> dict[str, Any]:
    """Errors and time of one method."""
    errors, horizons, focals, times, failures = [], [], [], [], 0
    for picture in pictures:
        start = time.perf_counter()
        try:
            directions, horizon, focal = method(picture)
        except Exception as error:  # a method that raises on a picture has not found its points
            failures += 1
            print(f"{picture.name}: {error!r}", file=sys.stderr)
            directions, horizon, focal = np.zeros((0, 3)), None, None
        times.append(time.perf_counter() - start)
        errors.append(point_errors(picture.directions, directions))
        if len(picture.directions) >= 3 or picture.upright:
            horizons.append(horizon_error(picture, horizon))
        if focal is not None:
            focals.append(abs(focal / picture.camera.fx - 1))
    flat = np.concatenate(errors)
    result: dict[str, Any] = {
        "pictures": len(pictures),
        "points": len(flat),
        "median_degrees": float(np.median(flat)),
        **{f"auc_{limit}": angular_accuracy(flat, limit) for limit in (3, 5, 10)},
        "all_within_3_degrees": float(np.mean([error.max() < 3 for error in errors])),
        "worst_point_median_degrees": float(np.median([error.max() for error in errors])),
        "ms_a_picture": float(np.median(times) * 1e3),
        "failures": failures,
    }
    if horizons:
        result |= {"horizon_auc": angular_accuracy(horizons, 0.25), "horizon_median": float(np.median(horizons))}
    if focals and max(focals) > 1e-9:
        result |= {"focal_error_median": float(np.median(focals)), "without_focal": len(pictures) - len(focals)}
    return result


def compare(pictures: list[Picture]) -> dict[str, Any]:
    """All methods on the same pictures, one after the other."""
    methods: dict[str, Callable[[Picture], Found]] = {
        "alberti, known intrinsics": lambda picture: ours(picture, known=True),
        "alberti, unknown": lambda picture: ours(picture, known=False),
    }
    try:
        import lu_vp_detect as _installed

        methods["lu-vp-detect, known intrinsics"] = lu_vp_detect
        del _installed
    except ImportError:
        print("lu-vp-detect is not installed: pip install --no-deps lu-vp-detect", file=sys.stderr)
    ours(pictures[0], known=True)  # the first call loads libraries
    return {name: judge(pictures, method) for name, method in methods.items()}


def forward_errors(pictures: list[Picture]) -> dict[str, Any]:
    """Degrees from each true direction to the nearest found one, picture by picture."""
    result = {}
    for picture in pictures:
        result[picture.name] = {
            name: np.round(point_errors(picture.directions, ours(picture, known=known)[0]), 2).tolist()
            for name, known in (("known", True), ("unknown", False))
        }
    return result


def throughput(count: int) -> dict[str, float]:
    """Images a second of the whole command on 512 x 512 renders, a process a core, start-up included and not."""
    images = [picture.image for picture in rendered(8, 512, seed=5)]
    with tempfile.TemporaryDirectory() as folder:
        for index in range(count):
            write_image(Path(folder) / "images" / f"{index}.jpg", images[index % len(images)])
        seconds = {}
        for number, part in (("all", "images"), ("one", "images/0.jpg")):
            command = [
                sys.executable,
                "-m",
                "alberti.cli",
                "annotate",
                f"{folder}/{part}",
                "--out",
                f"{folder}/{number}.jsonl",
            ]
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[number] = time.perf_counter() - start
    rate = (count - 1) / (seconds["all"] - seconds["one"])
    return {"images": count, "images_a_second": count / seconds["all"], "without_start_up": rate}


def main() -> None:
    """Run what was asked for and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--york", type=Path)
    parser.add_argument("--split", type=Path)
    parser.add_argument("--distort", type=float, action="append", default=[], help="bend York Urban's pictures by this k")
    parser.add_argument("--scenes", type=int, default=0)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--eurasian", type=Path)
    parser.add_argument("--junctions", type=int, default=0)
    parser.add_argument("--kitti", type=Path)
    parser.add_argument("--holicity", type=Path)
    parser.add_argument("--throughput", type=int, default=0)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    result: dict[str, Any] = {}
    if options.york:
        pictures = york_urban(options.york, options.split)
        result["york_urban"] = compare(pictures)
        for known, name in ((True, "known"), (False, "unknown")):
            result[f"york_urban_stages_ms, {name}"] = stage_costs(pictures, known=known)
            result[f"york_urban_calibration, {name}"] = calibration(pictures, known=known)
        for k in options.distort:
            result[f"york_urban_distorted, {k:g}"] = distorted(pictures, k)
    if options.eurasian:
        result["eurasian_cities"] = eurasian_cities(options.eurasian)
    if options.junctions:
        result["junctions_640"] = compare(junctions(options.junctions))
    if options.scenes:
        result[f"scenes_{options.size}"] = compare(rendered(options.scenes, options.size, seed=3))
    if options.kitti:
        result["kitti_forward_degrees"] = forward_errors(kitti(options.kitti))
    if options.holicity:
        result["holicity_degrees"] = forward_errors(holicity(options.holicity))
    if options.throughput:
        result["throughput"] = throughput(options.throughput)
    if not result:
        parser.error(
            "name something to measure: --york, --scenes, --eurasian, --junctions, --kitti, --holicity or --throughput"
        )
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
