"""What the flow itself costs: units that do nothing, through the real scheduler, on threads or on Ray.

python benchmarks/scheduler.py --units 500 --seeds 10
python benchmarks/scheduler.py --units 500 --seeds 10 --runner ray

Each seed has a tree of units: unit I waits for unit (I - 1) // 2. Nothing takes the place of `dvc repro`. Printed are the
wall seconds of a unit, and the processor time of the flow's process, also as a share of one core. Start a server before
(`prefect server start`, PREFECT_API_URL), else Prefect starts one. RAY_ADDRESS names a Ray cluster, else Ray is started here.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

import pipeline.flow
from pipeline.flow import Machines, Outcome, ThreadMachines, run_plan
from pipeline.graph import Unit
from pipeline.plan import Plan


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False, retries=2)
def nothing(name: str, workspace: str, force: bool, threads: int, warm: bool, gpu: str | None = None) -> None:
    """Take the place of a unit's `dvc repro`."""


def trees(units: int, seeds: int) -> Plan:
    """So many units in all, each after what it waits for."""
    found = {}
    for seed in range(seeds):
        for number in range(units // seeds):
            upstream = (f"nothing@{(number - 1) // 2}-{seed}",) if number else ()
            found[f"nothing@{number}-{seed}"] = Unit(f"nothing@{number}-{seed}", "true", (), (), (), upstream)
    return Plan(found)


def main() -> None:
    """Run the units and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=500, help="in all (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=10, help="trees that they are spread over (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=2, help="on threads, units side by side (default: %(default)s)")
    parser.add_argument("--runner", choices=["threads", "ray"], default="threads", help="(default: %(default)s)")
    options = parser.parse_args()
    plan = trees(options.units, options.seeds)

    @flow(name="scheduler")
    def scheduler(folder: str) -> Outcome:
        if options.runner == "ray":
            from pipeline import on_ray

            on_ray.run_unit = nothing  # type: ignore[assignment]
            machines: Machines = on_ray.RayMachines(Path(folder), plan, False, False, 1, True)
        else:
            pipeline.flow.run_unit = nothing  # type: ignore[assignment]
            machines = ThreadMachines(Path(folder), plan, False, False, options.parallel)
        with machines:
            before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
            outcome = run_plan(plan, machines)
            wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        count = len(outcome.done)
        print(json.dumps({"runner": options.runner, "units": count, "failed": len(outcome.failed),
                          "wall_seconds_a_unit": round(wall / count, 4), "cpu_seconds_a_unit": round(cpu / count, 4),
                          "cpu_share": round(cpu / wall, 3)}))  # fmt: skip
        return outcome

    with tempfile.TemporaryDirectory() as folder:
        scheduler(folder)


if __name__ == "__main__":
    main()
