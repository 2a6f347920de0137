"""A workspace as the other stages leave it, at toy size: real data sets, metrics and curves in their real formats."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.files import read_json, write_json
from alberti.geometry.camera import Camera, directions_to_vanishing_points
from alberti.images import write_depth, write_image
from alberti.metrics.depth import METRICS
from alberti.metrics.evaluation import Evaluation
from alberti.metrics.features import FeatureExtractor, RandomConvolutions
from alberti.metrics.images import evaluate_pictures
from alberti.report.inputs import CEILING, RENDERS, Arm, ReportInputs, Result

ARMS = {"base": 3.0, "unconstrained": 1.6, "constrained": 0.8}
"""Arm -> how far its edges are bent, in pixels."""
GUIDED, GUIDED_BEND = "guided", 0.4
"""A variant of `unconstrained`."""
DEPTH_ARMS = ("original", "kitti", *ARMS, GUIDED)
TEST_SETS = {"test": (40, None), "kitti": (12, 5)}
"""Test set -> frames, and how many KITTI drives they are of (None: each of its own); `kitti` plays the real one."""
NOTED = {
    "base": Arm("base", "the base model, not fine-tuned"),
    "unconstrained": Arm("plain", "fine-tuned for 600 steps with the denoising loss alone", "base"),
    "constrained": Arm("constraint", "fine-tuned with the published perspective loss", "unconstrained"),
    "guided": Arm("guidance", "the weights of “unconstrained”, guided while sampling", "unconstrained"),
    "kitti": Arm("reference", "trained on the role kitti"),
    "original": Arm("reference", "the depth model before any fine-tuning"),
}
SIZE = 96
CAMERA = Camera.from_fov(80, SIZE, SIZE)


def vanishing_points(rng: np.random.Generator) -> np.ndarray:
    """(3, 3): those of a camera turned by up to 20 degrees about the vertical."""
    angle = np.radians(rng.uniform(-20, 20))
    forward, right = [np.sin(angle), 0, np.cos(angle)], [np.cos(angle), 0, -np.sin(angle)]
    return directions_to_vanishing_points(np.array([forward, right, [0, 1, 0]]), CAMERA)


def draw_street(points: np.ndarray, rng: np.random.Generator, bend: float) -> np.ndarray:
    """Facades, road and sky whose edges lead to the first point, every corner moved by ``bend`` pixels at random."""
    x0, y0 = points[0, :2] / points[0, 2]
    image = np.full((SIZE, SIZE, 3), (176, 201, 226), np.uint8)
    cv2.rectangle(image, (0, int(y0)), (SIZE, SIZE), (92, 90, 96), -1)
    for side in (-1, 1):
        for index, (near, far) in enumerate(zip(np.linspace(1.0, 0.25, 5)[:-1], np.linspace(1.0, 0.25, 5)[1:], strict=True)):
            reach, height = side * 1.1 * SIZE, 0.95 * SIZE
            corners = [(near, -height), (far, -height), (far, height * 0.3), (near, height * 0.3)]
            quad = np.array([(x0 + reach * scale, y0 + scale * offset) for scale, offset in corners])
            quad += rng.normal(0, bend, quad.shape)
            colour = [int(value) for value in np.array((150, 110, 84)) + 22 * (index % 3) - 14 * (side > 0)]
            cv2.fillPoly(image, [np.round(quad * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)
            cv2.polylines(image, [np.round(quad * 16).astype(np.int32)], True, (58, 44, 38), 1, cv2.LINE_AA, 4)
    return image


def write_pictures(folder: Path, role: str, bend: float, count: int, seed: int) -> Dataset:
    """A data set of ``count`` streets; ids, depth and vanishing points are the same whatever the bend."""
    (folder / "images").mkdir(parents=True)
    (folder / "depth").mkdir()
    samples = []
    for index in range(count):
        scene = np.random.default_rng(index)
        points = vanishing_points(scene)
        name = f"{index:06d}"
        write_image(folder / "images" / f"{name}.png", draw_street(points, np.random.default_rng((seed, index)), bend))
        rows = np.arange(SIZE, dtype=np.float32)[:, None] - CAMERA.cy
        depth = np.where(rows > 2, 1.5 * CAMERA.fy / np.maximum(rows, 1), 12.0) + np.zeros((SIZE, SIZE))
        write_depth(folder / "depth" / f"{name}.png", np.clip(depth, 1, 80))
        samples.append(
            Sample(
                id=name,
                image=f"images/{name}.png",
                depth=f"depth/{name}.png",
                width=SIZE,
                height=SIZE,
                intrinsics=CAMERA.intrinsics,
                vanishing_points=[tuple(point) for point in points.tolist()],
                vanishing_points_source="true",
                caption=f"a street, number {index}",
                split=role,
            )
        )
    return write_dataset(folder, samples, name="drawn", role=role)


def write_image_results(path: Path, pictures: Dataset, reference: Dataset, extractor: FeatureExtractor) -> None:
    """An evaluation as ``evaluate_images`` writes it."""
    summary, rows = evaluate_pictures(pictures, reference, extractor=extractor, resamples=200, num_lines=200)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, summary)
    rows.to_csv(path.with_suffix(".csv"), index=False)


def write_depth_results(path: Path, error: float, count: int, seed: int, drives: int | None = None) -> None:
    """An evaluation as ``evaluate_depth`` writes it, with errors around ``error``; ``drives``: so many KITTI drives."""
    rng = np.random.default_rng(seed)
    hard = np.random.default_rng(7).uniform(0.7, 1.3, count)  # the same images are hard for every model
    rows = pd.DataFrame({name: error * hard * rng.uniform(0.95, 1.05, count) for name in METRICS})
    rows[["d1", "d2", "d3"]] = 1 - rows[["d1", "d2", "d3"]]
    rows.insert(0, "id", [f"2011_09_26_drive_{index % (drives or count):04d}_sync_{index:010d}" for index in range(count)])
    labels = {"protocol": "eigen_garg", "ground_truth": "lidar_forward", "alignment": "median"}
    means = {name: float(rows[name].mean()) for name in METRICS}
    intervals = {name: [means[name] * 0.97, means[name] * 1.03] for name in METRICS}
    notes = [f"{count} images; published numbers of eigen_garg have 697"]
    summary = {
        **means,
        "n": count,
        **labels,
        "split": "test",
        "split_hash": "0123456789abcdef" * 4,
        "intervals": intervals,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    Evaluation(rows.assign(**labels), {**summary, "interval_level": 0.95, "notes": notes}).write(path)


def write_curve(folder: Path, start: float, seed: int, columns: tuple[str, ...]) -> None:
    """Curves as the training stages leave them: a file a quantity."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = np.arange(10, 610, 10)
    rng = np.random.default_rng(seed)
    values = {name: start * (0.4 + np.exp(-steps / 150)) * rng.uniform(0.85, 1.15, len(steps)) for name in columns}
    for name, column in (values | {"lr": np.full(len(steps), 1e-5)}).items():
        pd.DataFrame({"step": steps, name: column}).to_csv(folder / f"{name}.tsv", sep="\t", index=False)


def read_curve(folder: Path) -> pd.DataFrame:
    """The curves of a folder as one table."""
    tables = [pd.read_csv(path, sep="\t").set_index("step") for path in sorted(folder.glob("*.tsv"))]
    return pd.concat(tables, axis=1).reset_index()


def seeds_of(arm: str, seeds: tuple[int, ...]) -> tuple[str, ...]:
    """Names of an arm's results: what no seed changes has one, `all`."""
    return ("all",) if arm == "original" else tuple(map(str, seeds))


def write_workspace(root: Path, count: int = 6, seeds: tuple[int, ...] = (0,)) -> None:
    """Everything that the stage ``report`` reads, below ``root``."""
    reference = write_pictures(root / "data" / "condition", "condition", 0.0, count, seed=0)
    for role in ("train", "test"):
        write_pictures(root / "data" / role, role, 0.0, 2, seed=1)
    extractor = RandomConvolutions()
    for place, (arm, bend) in enumerate([*ARMS.items(), (GUIDED, GUIDED_BEND)]):
        for seed in seeds:
            folder = root / "data" / "generated" / arm / str(seed)
            generated = write_pictures(folder, "generated", bend, count, seed=10 + place + 100 * seed)
            write_image_results(root / "metrics" / "images" / arm / f"{seed}.json", generated, reference, extractor)
            columns = ("loss", "mse", "mse_t0", "constraint") if arm == "constrained" else ("loss", "mse", "mse_t0")
            if arm in ("unconstrained", "constrained"):
                curve = root / "plots" / "finetune" / arm / str(seed)
                write_curve(curve, 0.2 + 0.1 * place, place + 100 * seed, columns)
    through = write_pictures(root / "data" / "references", "generated", 0.3, count, seed=20)
    for name, pictures in (("renders", reference), ("reconstructions", through)):
        write_image_results(root / "metrics" / "references" / f"{name}.json", pictures, reference, extractor)
    for network in ("vae", "unet"):
        write_curve(root / "plots" / "base" / network, 0.5, 5, ("loss",))
    _write_depth_models(root, seeds)
    write_json(root / "metrics" / "annotate" / "train.json", {"n": 2, "median_error": 0.42, "failures": 0})
    write_json(
        root / "models" / "base" / "provenance.json",
        {"git_revision": "0" * 40, "python": "3.11.9", "packages": {"torch": "2.14.1", "diffusers": "0.42.0"}},
    )


def _write_depth_models(root: Path, seeds: tuple[int, ...]) -> None:
    for order, model in enumerate(("dpt", "pixelformer")):
        for place, arm in enumerate(DEPTH_ARMS):
            error = 0.12 + 0.02 * order + (0.0, -0.04, 0.01, 0.004, 0.0035, 0.004)[place]
            for number, seed in enumerate(seeds_of(arm, seeds)):
                for name, (frames, drives) in TEST_SETS.items():
                    path = root / "metrics" / "depth" / model / arm / seed / f"{name}.json"
                    write_depth_results(path, error, frames, 100 * order + place + 1000 * number, drives)
                curve = root / "plots" / "finetune_depth" / model / arm / seed
                write_curve(curve, 0.3, place, ("loss",))


def report_inputs(root: Path, seeds: tuple[int, ...] = (0,), **changes: Any) -> ReportInputs:
    """The workspace as the stage gathers it."""

    def read(folder: Path, arm: str, file: str) -> dict[int | None, Result]:
        names = seeds_of(arm, seeds)
        return {None if name == "all" else int(name): Result.read(folder / arm / file.format(seed=name)) for name in names}

    metrics, arms = root / "metrics", (*ARMS, GUIDED)
    tuned = {
        f"{arm}-{seed}": read_curve(root / "plots" / "finetune" / arm / str(seed))
        for arm in ("unconstrained", "constrained")
        for seed in seeds
    }
    values: dict[str, Any] = {
        "seeds": seeds,
        "images": {arm: read(metrics / "images", arm, "{seed}.json") for arm in arms},
        "depth": {
            name: {
                model: {arm: read(metrics / "depth" / model, arm, f"{{seed}}/{name}.json") for arm in DEPTH_ARMS}
                for model in ("dpt", "pixelformer")
            }
            for name in TEST_SETS
        },
        "arms": NOTED,
        "references": {name: Result.read(metrics / "references" / f"{name}.json") for name in (RENDERS, CEILING)},
        "real_test_sets": ("kitti",),
        "generated": {arm: Dataset.open(root / "data" / "generated" / arm / str(seeds[0])) for arm in arms},
        "condition": Dataset.open(root / "data" / "condition"),
        "reconstructions": Dataset.open(root / "data" / "references"),
        "curves": {"Fine-tuning the diffusion model": tuned},
        "annotation": read_json(metrics / "annotate" / "train.json"),
        "facts": {"profile": "default", "git revision": None},
        "params": "seeds: [0]\n",
        "stand_ins": ("train", "condition"),
        "pictures": 3,
        "resamples": 400,
    }
    return ReportInputs(**values | changes)
