"""Where units run on Ray: the cluster at RAY_ADDRESS, else one of this machine's own, with a folder that all see or without."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from alberti.extras import extra
from pipeline import prefork
from pipeline.parcels import Parcel, bring, open_parcel, remote_of, revision_of, share
from pipeline.plan import Plan
from pipeline.tasks import run_unit, run_unit_elsewhere

_RETRIES = 5
"""How often Ray starts a unit again whose worker or machine was lost."""
_RESULTS = ("metrics", "plots", "report")
"""What people read: it comes back at the end where files are not shared."""
_LEFT_HERE = (".git", ".alberti", ".dvc/cache", ".dvc/tmp", "checkpoints", "logs", "runs")


class RayMachines:
    """A Ray cluster: units queue there, and each starts where its cores, GPUs and memory are free."""

    def __init__(self, workspace: Path, plan: Plan, force: bool, warm: bool, per_gpu: int, shared_files: bool):
        with extra("ray", "runner=ray"):
            import ray  # noqa: F401
            from prefect_ray import RayTaskRunner
        self._workspace, self._plan, self._force, self._warm = workspace, plan, force, warm
        self._per_gpu, self._shared = per_gpu, shared_files
        self._remote = {} if shared_files else remote_of(workspace)
        self._revision = "" if shared_files else revision_of(workspace)
        self._parcels: dict[str, Parcel] = {}
        environment: dict[str, Any] = {"env_vars": {"PYTHONPATH": str(Path.cwd())}}
        if not shared_files:
            outs = sorted({out.split("/")[0] for unit in plan.units.values() for out in unit.outs})
            environment = {"working_dir": str(workspace), "excludes": [f"/{name}" for name in (*_LEFT_HERE, *outs)]}
        options = {"runtime_env": environment, "log_to_driver": False}
        # "local": without an address Ray would take the cluster that this machine started last
        self._tasks: Any = RayTaskRunner(address=os.environ.get("RAY_ADDRESS", "local"), init_kwargs=options)

    def __enter__(self) -> Self:
        import ray

        if not self._shared:
            units = self._plan.units.values()
            share(self._workspace, sorted({up for unit in units for up in unit.upstream if up not in self._plan.units}))
        self._tasks.__enter__()
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._cores = max(int(machine.get("CPU", 1)) for machine in machines)
        self._memory = max(machine.get("memory", 0) for machine in machines)
        self._gpus = any(machine.get("GPU") for machine in machines)
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        nodes = [node["NodeID"] for node in ray.nodes()]
        self._tasks.__exit__(*error)  # units end with their workers
        for node in nodes:  # those of this machine; others end by themselves once nobody asks
            prefork.stop(self._workspace, node)
        if not self._shared and error[0] is None:
            outs = [out for name in self._parcels for out in self._plan.units[name].outs]
            bring(self._workspace, [out for out in outs if out.split("/")[0] in _RESULTS])

    def fits(self, name: str) -> bool:
        """Ray keeps what waits."""
        return True

    def start(self, name: str, upstream: Sequence[Any]) -> Any:
        from prefect_ray.context import remote_options

        needs = self._plan.needs[name]
        options: dict[str, Any] = {"num_cpus": min(needs.cores or self._cores, self._cores), "max_retries": _RETRIES}
        if needs.gpu and self._gpus:
            options["num_gpus"] = 1 / self._per_gpu
        if needs.memory * 1e9 <= self._memory:
            options["memory"] = int(needs.memory * 1e9)
        threads = options["num_cpus"]
        with remote_options(**options):
            if self._shared:
                values = {"name": name, "workspace": str(self._workspace), "force": self._force, "threads": threads}
                return self._tasks.submit(run_unit, {**values, "warm": self._warm})
            parcels = [self._parcels[up] for up in self._plan.upstream[name]]
            parcels += [Parcel.of(self._workspace, up) for up in self._unchanged(name)]
            values = {"name": name, "remote": self._remote, "parcels": parcels, "force": self._force, "threads": threads}
            return self._tasks.submit(run_unit_elsewhere, {**values, "revision": self._revision})

    def _unchanged(self, name: str) -> list[str]:
        """What the unit reads that does not run now: it lies here."""
        return [up for up in self._plan.units[name].upstream if up not in self._plan.units]

    def done(self, name: str, future: Any) -> None:
        if not self._shared and future.state.is_completed():
            self._parcels[name] = future.result()
            open_parcel(self._workspace, self._parcels[name])
            print(f"{name} is in the remote", file=sys.stderr)
