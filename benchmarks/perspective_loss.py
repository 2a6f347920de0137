"""The perspective loss against a plain implementation: agreement, time and memory, printed as JSON.

    python benchmarks/perspective_loss.py --device cuda --batch 8
    python benchmarks/perspective_loss.py --device cpu --batch 4 --threads 2
    python benchmarks/perspective_loss.py --device cuda --batch 8 --tune

Times are of forward + backward over ``n`` calls, each waited for; ``host`` is how long one call keeps Python busy until
all is launched. ``agreement`` holds loss / plain loss over the points of random and structured images; the plain
implementation computes in float64. On a GPU, ``definition`` compares the kernels with the form in plain PyTorch, and
``kernels`` lists what one call runs on the device. ``--tune`` times each kernel in other forms instead and prints a table.
"""

import argparse
import json
import math
import platform
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType

from alberti.losses import perspective_loss, perspective_profile
from alberti.losses.perspective import torch_loss


def plain_loss(pred: Tensor, target: Tensor, vanishing_points: Tensor, num_lines: int) -> Tensor:
    """The definition, written down with loops over images and (finite) points; autograd does the rest."""
    losses = []
    for pred_image, target_image, points in zip(pred, target, vanishing_points, strict=True):
        norms = []
        for point in points[points.any(dim=1)]:
            difference = plain_profile(pred_image, point, num_lines) - plain_profile(target_image, point, num_lines)
            norms.append(torch.linalg.vector_norm(difference))
        losses.append(torch.stack(norms).mean() if norms else pred_image.sum() * 0)
    return torch.stack(losses)


def plain_profile(image: Tensor, point: Tensor, num_lines: int) -> Tensor:
    gray = 0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    height, width = gray.shape
    padded = torch.nn.functional.pad(gray[None, None], (1, 1, 1, 1), mode="replicate")
    kernel = gray.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    gradient = torch.nn.functional.conv2d(padded, torch.stack([kernel, kernel.T])[:, None])[0]
    vx, vy, w = (float(value) for value in point)
    vx, vy = vx / w, vy / w
    angles = torch.tensor(plain_angles(vx, vy, width, height, num_lines), dtype=torch.float64, device=image.device)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    steep = (sin.abs() > cos.abs()).flatten()
    row, column = (torch.arange(n, dtype=torch.float64, device=image.device) for n in (height, width))
    x, y = (vx + (row - vy) * cos / sin + 0.5).floor(), (vy + (column - vx) * sin / cos + 0.5).floor()
    profile = gray.new_zeros(num_lines)
    for lines, at_x, at_y, position, limit in ((steep, x, row, x, width), (~steep, column, y, y, height)):
        seen = ((position >= 0) & (position < limit))[lines]
        at_x, at_y = (at.expand(position.shape)[lines].nan_to_num().long() for at in (at_x, at_y))
        at_x, at_y = at_x.clamp(0, width - 1), at_y.clamp(0, height - 1)
        normal_x, normal_y = -sin[lines].to(gray.dtype), cos[lines].to(gray.dtype)
        response = (gradient[0][at_y, at_x] * normal_x + gradient[1][at_y, at_x] * normal_y).abs() * seen
        profile = profile.index_put((lines,), response.sum(dim=1) / seen.sum(dim=1).clamp(min=1))
    return profile


def plain_angles(vx: float, vy: float, width: int, height: int, num_lines: int) -> list[float]:
    if 0 <= vx <= width - 1 and 0 <= vy <= height - 1:
        return [2 * math.pi * i / (num_lines - 1) for i in range(num_lines)]
    towards = math.atan2((height - 1) / 2 - vy, (width - 1) / 2 - vx)
    corners = [(x, y) for x in (0, width - 1) for y in (0, height - 1)]
    turns = [(math.atan2(y - vy, x - vx) - towards + math.pi) % (2 * math.pi) - math.pi for x, y in corners]
    low, high = min(turns), max(turns)
    return [towards + low + (high - low) * i / (num_lines - 1) for i in range(num_lines)]


def random_points(batch: int, points: int, size: int, generator: torch.Generator) -> Tensor:
    """As an upright camera in a street sees them: one in the image, one beside it, one far below; then anywhere."""
    kinds = [(0.5, 0.45, 0.2), (2.5, 0.5, 0.7), (0.6, 9.0, 2.0)]
    pixels = []
    for index in range(points):
        x, y, spread = kinds[index] if index < len(kinds) else (0.5, 0.5, 3.0)
        noise = torch.randn(batch, 2, generator=generator) * spread * 0.3
        pixels.append((torch.tensor([x, y]) + noise) * size)
    homogeneous = torch.cat([torch.stack(pixels, dim=1), torch.ones(batch, points, 1)], dim=2)
    return homogeneous / homogeneous.norm(dim=2, keepdim=True)


def structured_pair(batch: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Overlapping rectangles of flat colour with a little noise, and the same blurred and moved by a pixel."""
    images = torch.zeros(batch, 3, size, size)
    for image in images:
        for _ in range(60):
            corner = (torch.rand(2, generator=generator) * size * 0.9).int().tolist()
            extent = (torch.rand(2, generator=generator) * size * 0.3 + 2).int().tolist()
            colour = torch.rand(3, 1, 1, generator=generator)
            image[:, corner[0] : corner[0] + extent[0], corner[1] : corner[1] + extent[1]] = colour
    images = (images + 0.01 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    blurred = torch.nn.functional.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
    return blurred.roll((1, 1), dims=(2, 3)), images


def agreement(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    generator = torch.Generator().manual_seed(0)
    batch = min(args.batch, 4)
    points = random_points(batch, args.points, args.size, generator).to(args.device)
    random = torch.rand(2, batch, 3, args.size, args.size, generator=generator)
    report = {}
    for name, pair in (("random", tuple(random)), ("structured", structured_pair(batch, args.size, generator))):
        ratios, cosines = [], []
        for k in range(args.points):
            pred, target = (image.to(args.device) for image in pair)
            ours, plain = pred.clone().requires_grad_(), pred.double().requires_grad_()
            loss = perspective_loss(ours, target, points[:, k : k + 1], num_lines=args.lines)
            reference = plain_loss(plain, target.double(), points[:, k : k + 1].double(), args.lines)
            loss.sum().backward()
            reference.sum().backward()
            ratios += (loss.double() / reference).tolist()
            cosines.append(torch.cosine_similarity(ours.grad.double().flatten(), plain.grad.flatten(), dim=0).item())
        report[name] = {
            "n": len(ratios),
            "loss_ratio_min": min(ratios),
            "loss_ratio_median": statistics.median(ratios),
            "loss_ratio_max": max(ratios),
            "gradient_cosine_min": min(cosines),
        }
    return report


def against_definition(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The kernels against the PyTorch form on the same device; how often a repeated gradient differs; Euler's identity.

    Profiles grow in proportion with the image, so the image times its gradient must be the sum that was differentiated.
    """
    generator = torch.Generator().manual_seed(2)
    points = random_points(args.batch, args.points, args.size, generator).to(args.device)
    random = torch.rand(2, args.batch, 3, args.size, args.size, generator=generator)
    report = {}
    for name, pair in (("random", random), ("structured", structured_pair(args.batch, args.size, generator))):
        pred, target = (image.to(args.device) for image in pair)
        results = []
        for function in (torch_loss, perspective_loss, perspective_loss):
            leaf = pred.clone().requires_grad_()
            loss = function(leaf, target, points, num_lines=args.lines)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
            results.append((loss.detach(), gradient))
        (loss, gradient), (fused_loss, fused_gradient), (_, repeated) = results
        profiles = perspective_profile(leaf, points, num_lines=args.lines)
        total = (profiles * torch.linspace(-1, 1, args.lines, device=args.device)).double().sum()
        (slope,) = torch.autograd.grad(total, leaf)
        scale = profiles.detach().double().sum()
        report[name] = {
            "loss_relative_max": ((fused_loss - loss).abs() / loss).max().item(),
            "gradient_relative": ((fused_gradient - gradient).norm() / gradient.norm()).item(),
            "repeated_gradient_differs": (fused_gradient != repeated).double().mean().item(),
            "euler": (((slope * leaf).double().sum() - total).abs() / scale).item(),
        }
    return report


class Steps:
    """Calls of forward + backward, on a few input sets in turn so that no cache holds them all."""

    def __init__(self, args: argparse.Namespace) -> None:
        generator = torch.Generator().manual_seed(1)
        self.device, self.lines, self.turn = args.device, args.lines, 0
        shape = (args.batch, 3, args.size, args.size)
        self.sets = [
            (
                torch.rand(shape, generator=generator).to(args.device).requires_grad_(),
                torch.rand(shape, generator=generator).to(args.device),
                random_points(args.batch, args.points, args.size, generator).to(args.device),
            )
            for _ in range(3)
        ]

    def __call__(self, function: Callable[..., Tensor]) -> None:
        pred, target, points = self.sets[self.turn % len(self.sets)]
        self.turn += 1
        pred.grad = None
        function(pred, target, points).mean().backward()

    def timed(self, function: Callable[..., Tensor], repeats: int) -> dict[str, float]:
        for _ in range(min(repeats, 3)):
            self(function)
        return summary([self._time(lambda: self(function)) for _ in range(repeats)])

    def host(self, function: Callable[..., Tensor], repeats: int) -> dict[str, float]:
        """Until the call returns, while the device still works: it was idle at the start, so that no queue is full."""
        times = []
        for _ in range(repeats):
            self._wait()
            start = time.perf_counter()
            self(function)
            times.append(1e3 * (time.perf_counter() - start))
        self._wait()
        return summary(times)

    def kernels(self, function: Callable[..., Tensor], repeats: int = 10) -> dict[str, dict[str, float]]:
        """What one call runs on the device: how often, and microseconds in all."""
        with torch.profiler.profile() as profiler:
            for _ in range(repeats):
                self(function)
            self._wait()
        events = [event for event in profiler.key_averages() if event.device_type == DeviceType.CUDA]
        events.sort(key=lambda event: -event.self_device_time_total)
        return {
            event.key[:80]: {"calls": event.count / repeats, "us": round(event.self_device_time_total / repeats, 1)}
            for event in events
        }

    def _time(self, call: Callable[[], None]) -> float:
        self._wait()
        start = time.perf_counter()
        call()
        self._wait()
        return 1e3 * (time.perf_counter() - start)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def graph_replay(self, function: Callable[..., Tensor], repeats: int) -> dict[str, float]:
        """The same as one CUDA graph: the device's own time, without the host's launches."""
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                self(function)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        pred = self.sets[self.turn % len(self.sets)][0]
        pred.grad = None
        with torch.cuda.graph(graph):
            self(function)
        return summary([self._time(graph.replay) for _ in range(repeats)])


TILES = [{"BLOCK_Y": y, "BLOCK_X": x, "num_warps": warps} for y, x, warps in ((8, 32, 8), (4, 64, 8), (4, 32, 4), (32, 32, 8))]
GATHERS = [(4, 8, 1), (8, 8, 1), (8, 8, 2), (4, 16, 2), (8, 16, 4)]
FORMS: dict[str, tuple[str, list[dict[str, Any]]]] = {  # kernel: the table of its options in _fused, what to try
    "means_adjoint_kernel": (
        "_GATHER",
        [{"BLOCK_Y": y, "BLOCK_X": x, "UNROLL": unroll, "num_warps": warps} for y, x, warps in GATHERS for unroll in (1, 4)],
    ),
    "prepare_kernel": ("_TILE", [{}, *TILES, {"maxnreg": 128}]),
    "sobel_adjoint_kernel": ("_ADJOINT_TILE", [{}, *TILES[1:], {"BLOCK_Y": 16, "BLOCK_X": 64, "num_warps": 8}]),
    "means_kernel": (
        "_WALK",
        [
            {"BLOCK_T": t, "BLOCK_N": n, "num_warps": warps}
            for t, n, warps in ((32, 32, 8), (16, 32, 4), (32, 32, 4), (64, 32, 8), (32, 16, 4), (32, 64, 8), (8, 32, 4))
        ],
    ),
}


def tune(steps: Steps, args: argparse.Namespace) -> None:
    """A line for each form of each kernel: its microseconds a call, and how far the gradient is from PyTorch's form."""
    from alberti.losses import _fused

    def ours(pred: Tensor, target: Tensor, points: Tensor) -> Tensor:
        return perspective_loss(pred, target, points, num_lines=args.lines)

    pred, target, points = steps.sets[0]
    (expected,) = torch.autograd.grad(torch_loss(pred, target, points, num_lines=args.lines).sum(), pred)
    for kernel, (name, forms) in FORMS.items():
        table: dict[str, Any] = getattr(_fused, name)
        default = dict(table)
        for form in forms:
            table.update(form)
            (gradient,) = torch.autograd.grad(ours(pred, target, points).sum(), pred)
            relative = ((gradient - expected).norm() / expected.norm()).item()
            found = [times["us"] for key, times in steps.kernels(ours, 5).items() if key.startswith(kernel)]
            microseconds = f"{found[0]:8.1f} us" if found else "       -"  # on the CPU there is nothing to time
            print(f"{kernel:22s} {microseconds}  gradient off by {relative:.1e}  {table}", flush=True)
            table.clear()
            table.update(default)


def summary(times: list[float]) -> dict[str, float]:
    """Of milliseconds."""
    p90 = sorted(times)[math.ceil(0.9 * len(times)) - 1]
    return {"n": len(times), "median_ms": statistics.median(times), "min_ms": min(times), "p90_ms": p90}


def peak_mib(steps: Steps, function: Callable[..., Tensor]) -> dict[str, float]:
    """GPU: what forward + backward allocates beyond its inputs, the gradient of pred included. CPU: of the process."""
    if steps.device.type != "cuda":
        return {"process_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    steps(function)
    for pred, _, _ in steps.sets:
        pred.grad = None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    steps(function)
    return {"beyond_inputs_mib": (torch.cuda.max_memory_allocated() - before) / 2**20}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=512, help="height and width in pixels")
    parser.add_argument("--points", type=int, default=3)
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="threads of PyTorch on the CPU")
    parser.add_argument("--repeats", type=int, help="timed calls; 15 on the CPU, 100 on a GPU if not given")
    parser.add_argument("--tune", action="store_true", help="time other forms of the kernels instead")
    parser.add_argument("--compile", action="store_true", help="time it under torch.compile too")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.repeats = args.repeats or (100 if args.device.type == "cuda" else 15)
    return args


def main() -> None:
    args = parse_arguments()

    def ours(pred: Tensor, target: Tensor, points: Tensor) -> Tensor:
        return perspective_loss(pred, target, points, num_lines=args.lines)

    def plain(pred: Tensor, target: Tensor, points: Tensor) -> Tensor:
        return plain_loss(pred, target, points, args.lines)

    steps = Steps(args)
    if args.tune:
        tune(steps, args)
        return
    cuda = args.device.type == "cuda"
    report = {
        "device": torch.cuda.get_device_name(args.device) if cuda else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "batch": args.batch,
        "size": args.size,
        "points": args.points,
        "lines": args.lines,
        "agreement": agreement(args),
        "alberti": steps.timed(ours, args.repeats) | peak_mib(steps, ours),
    }
    if cuda:
        report["definition"] = against_definition(args)
        report["host"] = steps.host(ours, args.repeats)
        report["kernels"] = steps.kernels(ours)
        report["alberti_as_cuda_graph"] = steps.graph_replay(ours, args.repeats)
    if args.compile:
        report["alberti_compiled"] = steps.timed(torch.compile(ours), args.repeats)
    report["plain"] = steps.timed(plain, 3) | peak_mib(steps, plain)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
