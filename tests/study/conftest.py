"""A small study, made once, and a running server for it."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from alberti.images import write_image
from alberti.study.create import Options, create_study
from alberti.study.design import Study
from alberti.study.guard import Limits

GENEROUS = Limits(
    requests_per_second=1e9,
    burst=10**9,
    address_requests_per_second=1e9,
    address_burst=10**9,
    begins_per_minute=1e9,
    begins_burst=10**9,
)


def street(seed: int, wobble: float, size: int = 96) -> np.ndarray:
    """Lines to one point, their outer ends moved by ``wobble`` pixels at random."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 3), rng.integers(120, 230, 3), np.uint8)
    centre = rng.uniform(0.35, 0.65, 2) * size
    for angle in np.linspace(0, 2 * np.pi, 14, endpoint=False):
        end = centre + size * np.array([np.cos(angle), np.sin(angle)]) + rng.normal(0, wobble, 2)
        cv2.line(image, np.round(centre).astype(int).tolist(), np.round(end).astype(int).tolist(), (40, 40, 50), 1, cv2.LINE_AA)
    return image


def write_arm(folder: Path, wobble: float, count: int = 8) -> Path:
    """A folder of pictures 000.png, 001.png, ..."""
    folder.mkdir(parents=True)
    for index in range(count):
        write_image(folder / f"{index:03d}.png", street(index, wobble))
    return folder


@pytest.fixture(scope="session")
def arms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three arms and the renders that they were made from."""
    root = tmp_path_factory.mktemp("arms")
    wobbles = {"base": 9.0, "constrained": 2.0, "guided": 1.0, "renders": 0.0}
    return {name: write_arm(root / name, wobble) for name, wobble in wobbles.items()}


@pytest.fixture(scope="session")
def _made(arms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "study"
    two = {name: arms[name] for name in ("base", "constrained")}
    create_study(folder, two, arms["renders"], Options(per_comparison=4, catch=2, repeats=1, practice=1))
    return folder


@pytest.fixture
def folder(_made: Path, tmp_path: Path) -> Path:
    """A study folder of two arms, two blocks of 8 pairs each."""
    shutil.copytree(_made, tmp_path / "study")
    return tmp_path / "study"


@pytest.fixture
def study(folder: Path) -> Study:
    return Study.open(folder)


@pytest.fixture
def serving() -> Iterator[Callable[..., str]]:
    """Serve a study folder on a free port; returns the address."""
    import uvicorn

    from alberti.study.serve import _listen, addresses
    from alberti.study.server import create_app

    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def serve(folder: Path, limits: Limits = GENEROUS) -> str:
        listening = _listen("127.0.0.1", 0)
        hosts, url = addresses("127.0.0.1", listening.getsockname()[1], None)
        config = uvicorn.Config(create_app(folder, hosts=hosts, limits=limits), log_level="warning", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        running.append((server, thread))
        end = time.monotonic() + 20
        while not server.started and time.monotonic() < end:
            time.sleep(0.01)
        return url.rstrip("/")

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join(20)
