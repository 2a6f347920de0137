"""How fast streets are rendered: prints JSON with images a second, by batches of ``render_batch`` on one device.

python benchmarks/scenes.py [--device cpu] [--size 128] [--count 96] [--threads 2]
"""

import argparse
import json
import statistics
import time

import torch

from alberti.data.scenes import SceneConfig, render_batch, render_scenes
from alberti.data.scenes.generate import default_batch_size


def stream(count: int, config: SceneConfig, device: str, workers: int) -> float:
    """Seconds to render ``count`` scenes to arrays, as a data set is."""
    start = time.perf_counter()
    for _ in render_scenes((f"bench-{i}" for i in range(count)), 0, config, device=device, workers=workers):
        pass
    return time.perf_counter() - start


def batches(count: int, batch_size: int, config: SceneConfig, device: str) -> float:
    """Seconds to render ``count`` scenes to tensors that stay on the device, as a training loop would."""
    start = time.perf_counter()
    for first in range(0, count, batch_size):
        render_batch([f"bench-{i}" for i in range(first, min(first + batch_size, count))], 0, config, device)
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--supersample", type=int, default=2)
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="processes, for the stream of scenes; their start counts")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = SceneConfig(width=options.size, height=options.size, supersample=options.supersample)
    batch_size = options.batch_size or default_batch_size(config, options.device)
    batches(batch_size, batch_size, config, options.device)
    streamed = [options.count / stream(options.count, config, options.device, options.workers) for _ in range(options.repeats)]
    batched = [options.count / batches(options.count, batch_size, config, options.device) for _ in range(options.repeats)]
    result = {
        "device": torch.cuda.get_device_name() if options.device != "cpu" else "cpu",
        "threads": options.threads,
        "workers": options.workers,
        "size": [config.width, config.height],
        "supersample": config.supersample,
        "batch_size": batch_size,
        "count": options.count,
        "render_scenes_images_per_second": round(statistics.median(streamed), 1),
        "render_batch_images_per_second": round(statistics.median(batched), 1),
    }
    if options.device != "cpu":
        result["peak_gpu_mib"] = torch.cuda.max_memory_allocated() // 2**20
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
