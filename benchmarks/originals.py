"""Train the depth models that the project ships in pretrained/{dpt,pixelformer}: decoders on a frozen backbone with ImageNet
weights, on rendered streets, in parts that resume where they were stopped. Prints JSON.

    python benchmarks/originals.py pixelformer runs/pixelformer --device cuda
    python benchmarks/originals.py dpt runs/dpt --device cuda --width 640 --height 192 --streets 8000 --steps 4000

With --frames, an .npz of real frames, the error on them is measured every --every steps under Eigen's protocol with Garg's
crop. It holds, for each frame, `<id>/<width>`, a picture (h, w, 3) uint8 of the size of training, and the ground truth as
`<id>/shape`, `<id>/index`, `<id>/depth` (places of the pixels with LiDAR in the full picture, and metres).
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from alberti.data.scenes import SceneConfig
from alberti.depth.config import Augmentation, DepthTrainConfig
from alberti.depth.models import DepthModel, build_depth_model
from alberti.depth.predict import predict_batch
from alberti.depth.rendered import train_on_streets
from alberti.diffusion.sources import SceneSource
from alberti.files import write_json
from alberti.metrics.depth import GroundTruth, get_protocol, score_image
from alberti.training.settings import Optimisation
from alberti.training.step_graph import convolution_search

ALIGNMENTS = {"pixelformer": "median", "dpt": "affine_disparity"}
COLUMNS = ("abs_rel", "sq_rel", "rmse", "d1")


@dataclass
class RealFrames:
    """Pictures of one size and their ground truth."""

    pictures: list[np.ndarray]
    truths: list[GroundTruth]

    @classmethod
    def read(cls, path: Path, width: int) -> "RealFrames":
        with np.load(path) as stored:
            ids = sorted({name.rsplit("/", 1)[0] for name in stored})
            pictures, truths = [], []
            for frame in ids:
                depth = np.zeros(stored[f"{frame}/shape"], np.float32)
                depth.ravel()[stored[f"{frame}/index"]] = stored[f"{frame}/depth"]
                pictures.append(stored[f"{frame}/{width}"])
                truths.append(GroundTruth(depth, "lidar_forward"))
        return cls(pictures, truths)

    def score(self, model: DepthModel) -> dict[str, float]:
        """Means over the frames; predictions are enlarged to the ground truth's size."""
        rows = []
        for picture, truth in zip(self.pictures, self.truths, strict=True):
            height, width = truth.depth.shape
            prediction = cv2.resize(predict_batch(model, [picture])[0], (width, height), interpolation=cv2.INTER_LINEAR)
            rows.append(score_image(prediction, truth, get_protocol("eigen_garg"), ALIGNMENTS[model.name]))
        return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in COLUMNS}


def rendered_error(model: DepthModel, config: SceneConfig, count: int, device: torch.device) -> float:
    """Mean AbsRel on streets of the test's style and KITTI's camera, aligned as on real frames, depth up to 80 m."""
    from alberti.metrics.depth import align, depth_metrics

    source = SceneSource(count, 4242, config)
    errors = []
    for start in range(0, count, 16):
        data = source.batch(range(start, min(start + 16, count)), [0] * min(16, count - start), device)
        pictures = (data["image"] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        for prediction, depth in zip(predict_batch(model, list(pictures)), data["depth"].cpu().numpy(), strict=True):
            mask = (depth > 1e-3) & (depth <= 80)
            aligned = align(prediction, depth, mask, ALIGNMENTS[model.name])
            errors.append(depth_metrics(aligned.depth.clip(1e-3, 80), depth, mask)["abs_rel"])
    return round(float(np.mean(errors)), 4)


def main() -> None:
    args = arguments()
    device = torch.device(args.device)
    started = time.monotonic()
    streets = SceneConfig("mixed", args.width, args.height, args.supersample, args.camera)
    model = build_depth_model(args.model, args.size, backbone_weights=args.backbone_weights, seed=args.seed)
    training = Optimisation(
        steps=args.steps, batch_size=args.batch_size, lr=args.lr, lr_schedule="cosine", lr_final=1e-6, warmup_steps=100,
        precision=args.precision, checkpoint_every=args.checkpoint_every, keep=1, log_every=100, seed=args.seed,
        cuda_graph=device.type == "cuda",
    )  # fmt: skip
    config = DepthTrainConfig(training=training, augmentation=Augmentation(crop=(args.height, args.width)))
    frames = RealFrames.read(args.frames, args.width) if args.frames else None
    rows: list[dict[str, Any]] = []

    def on_step(done: int, current: nn.Module) -> None:
        if frames is not None and (done % args.every == 0 or done == args.steps):
            assert isinstance(current, DepthModel)
            with convolution_search(False):
                rows.append({"step": done, **frames.score(current)})
            print(json.dumps({"model": args.model, **rows[-1]}), flush=True)
            current.save(args.out, dtype=torch.float16)  # what there is if the run is stopped
            write_json(args.out / "provenance.json", {"real_frames": rows})

    source = SceneSource(args.streets, args.seed + 2000, streets, fresh=False)
    source.render_all(device)
    rendered = time.monotonic()
    result = train_on_streets(
        model, source, config,
        strength=args.strength, checkpoints=args.out / "checkpoints", device=device, on_step=on_step, description=args.model,
    )  # fmt: skip
    trained = result.model
    assert isinstance(trained, DepthModel)
    trained.save(args.out, dtype=torch.float16)
    test = SceneConfig("kitti", args.width, args.height, args.supersample, "kitti")
    outcome = {
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
        "loss": result.history[-1]["loss"],
        "real_frames": rows,
        "rendered_abs_rel": rendered_error(trained.to(device), test, args.test_streets, device),
        "minutes": {
            "rendering": round((rendered - started) / 60, 2),
            "whole": round((time.monotonic() - started) / 60, 2),
        },
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    write_json(args.out / "provenance.json", outcome)
    result.discard()
    print(json.dumps(outcome))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(ALIGNMENTS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", default="lite")
    parser.add_argument("--backbone-weights", default="package", help="'package', 'none', or a file of timm's weights")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--camera", default="driving")
    parser.add_argument("--supersample", type=int, default=2)
    parser.add_argument("--streets", type=int, default=24000)
    parser.add_argument("--strength", type=float, default=1.0, help="of the changes of appearance")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--precision", default="bf16", choices=("no", "bf16"))
    parser.add_argument("--checkpoint-every", type=int, default=1000)
    parser.add_argument("--frames", type=Path, help=".npz of real frames to measure on")
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--test-streets", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
