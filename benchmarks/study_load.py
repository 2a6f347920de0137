"""Load on `alberti study serve`: raters at once, then in a row, optionally with the server killed (SIGKILL) again and again.

python benchmarks/study_load.py STUDY --raters 1000 --at-once 10
python benchmarks/study_load.py STUDY --raters 100 --at-once 10 --kill-every 3
python benchmarks/study_load.py STUDY --raters 100 --at-once 100 --pause 1 --pictures

STUDY is a folder of `alberti study create`; a copy is used. Clients run on the same machine, so they take their share of it.
An answer is lost if it was acknowledged and is not in the database at the end.
"""

import argparse
import contextlib
import http.client
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np

from alberti.study.client import Client
from alberti.study.design import Study
from alberti.study.store import Store

PORT = 8790


class Server:
    """The real command in a process of its own."""

    def __init__(self, folder: Path):
        self._command = [sys.executable, "-m", "alberti.cli", "study", "serve", str(folder), "--port", str(PORT)]
        self._command += ["--rate", "1000000", "--begins", "1000000"]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        for _ in range(600):
            with contextlib.suppress(OSError):
                client = Client(f"http://127.0.0.1:{PORT}")
                client.request("GET", "/health")
                client.close()
                return
            time.sleep(0.05)
        raise RuntimeError("the server did not start")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


class Load:
    """What all raters did: how long requests took, and which answers were acknowledged."""

    def __init__(self, raters: int, pictures: bool, pause: float):
        self.waiting: Queue[int] = Queue()
        for number in range(raters):
            self.waiting.put(number)
        self.pictures, self.pause, self.lock = pictures, pause, threading.Lock()
        self.answer_s: list[float] = []
        self.requests = self.retries = 0
        self.acknowledged: set[tuple[str, int, str]] = set()
        self.finished = 0

    def work(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                self.rate(self.waiting.get_nowait())

    def rate(self, number: int) -> None:
        client, rng = Client(f"http://127.0.0.1:{PORT}"), np.random.default_rng(number)
        person = f"person{number}"
        self.call(lambda: client.begin(PROLIFIC_PID=person), (303,))
        state = self.call(lambda: client.request("GET", "/api/state"), (200,)).json()
        while state["phase"] == "trial":
            trial, chosen = state["trial"], "left" if rng.random() < 0.5 else "right"
            if self.pictures:
                for side in ("left", "right"):
                    self.call(lambda where=trial[side]: client.request("GET", where), (200,))
            time.sleep(self.pause * rng.uniform(0.5, 1.5))
            begun = time.perf_counter()
            state = self.call(lambda t=trial, c=chosen: client.answer(t, c), (200,)).json()
            with self.lock:
                self.answer_s.append(time.perf_counter() - begun)
                self.acknowledged.add((person, trial["index"], chosen))
        client.close()
        with self.lock:
            self.finished += 1

    def call(self, request: Any, expected: tuple[int, ...]) -> Any:
        while True:
            try:
                reply = request()
            except (OSError, http.client.HTTPException):
                self.retries += 1
                time.sleep(0.1)
                continue
            self.requests += 1
            if reply.status not in expected:
                raise RuntimeError(f"{reply.status}: {reply.body[:200]!r}")
            return reply


def stored(folder: Path) -> set[tuple[str, int, str]]:
    store = Store(folder, Study.open(folder))
    rows = store._connection().execute("SELECT external_id, trial, chosen FROM answers JOIN raters ON number = rater")
    return {tuple(row) for row in rows}


@contextlib.contextmanager
def copied(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "study"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("answers*", "imported", "results"))
        yield copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--raters", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=10)
    parser.add_argument("--pictures", action="store_true", help="fetch every picture as a browser does")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a rater looks at a pair")
    parser.add_argument("--kill-every", type=float, default=0.0, help="seconds between SIGKILLs of the server; 0: none")
    args = parser.parse_args()
    with copied(args.study) as folder:
        load, server, kills = Load(args.raters, args.pictures, args.pause), Server(folder), 0
        workers = [threading.Thread(target=load.work, daemon=True) for _ in range(args.at_once)]
        begun = time.perf_counter()
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            time.sleep(args.kill_every or 0.2)
            if args.kill_every and any(worker.is_alive() for worker in workers):
                server.kill()
                kills += 1
                server.start()
        seconds = time.perf_counter() - begun
        server.kill()
        there = stored(folder)
    lost = len(load.acknowledged - there)
    p50, p99 = (1000 * float(np.quantile(load.answer_s, q)) for q in (0.5, 0.99))
    print(f"{load.finished} of {args.raters} raters finished, {args.at_once} at once, {seconds:.0f} s, {kills} kills")
    print(f"{load.requests / seconds:.0f} requests/s, {len(load.answer_s) / seconds:.0f} answers/s")
    print(f"answers: p50 {p50:.1f} ms, p99 {p99:.1f} ms; {load.retries} requests tried again")
    print(f"{len(load.acknowledged)} answers acknowledged, {len(there)} stored, {lost} lost")
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
