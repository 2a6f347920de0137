"""The whole experiment in one process: every stage of dvc.yaml for several seeds, without DVC, Hydra or Prefect.

    python -m stages.run --profile gpu --seeds 0 1 2 --out runs/first

Where starting a process costs as much as a stage, this is the way to run many of them; outs are those of `dvc repro` with the
same params. What does not depend on the seed runs once, in `RUNS/shared/`; each seed has a workspace `RUNS/seed<N>/` in which
the shared outs are linked and in which every stage also runs by hand. A unit whose params and inputs are those of its
last run is skipped, so the same command goes on after a kill. With `--workers N`, N processes share the units, the cores and
the GPUs. `pipeline.results` makes tables and figures from RUNS.
"""

import argparse
import gc
import sys
from pathlib import Path

import yaml

from alberti.errors import ConfigError
from stages.common import exit_code_of
from stages.experiment import TARGETS, Options, run_experiment
from stages.plan import PROJECT
from stages.profiles import compose_plain
from stages.workers import run_workers, work


def main() -> None:
    """Parse the command line, run, and end as a stage does."""
    gc.enable()  # `stages` switches it off while it is imported
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", help="a params file, instead of --profile")
    parser.add_argument("--profile", help="a profile of conf/profile/, composed without Hydra")
    parser.add_argument("--experiment", help="a set of arms from conf/experiment/, laid over the profile")
    parser.add_argument("-S", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="set a param")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="values of the param `seed` (default: 0)")
    parser.add_argument("--only", nargs="+", default=list(TARGETS), metavar="STAGE", help="these stages and what they need")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="these arms only")
    parser.add_argument("--out", default="runs", help="folder of all workspaces (default: runs)")
    parser.add_argument("--any-code", action="store_true", help="keep what other versions of the code made")
    parser.add_argument("--stop-after", type=float, metavar="MINUTES", help="start no further unit after so long")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="so many processes, each with its share of cores and GPUs"
    )
    parser.add_argument("--worker", metavar="I/N", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.exit(exit_code_of(lambda: _run(arguments)))


def _run(arguments: argparse.Namespace) -> None:
    if (arguments.params is None) == (arguments.profile is None):
        raise ConfigError("name either --profile or --params")
    if arguments.params is not None:
        values = yaml.safe_load(Path(arguments.params).read_text(encoding="utf-8"))
    else:
        values = compose_plain(PROJECT / "conf", arguments.profile, arguments.experiment, arguments.overrides)
    arms = tuple(arguments.arms) if arguments.arms is not None else None
    options = Options(
        Path(arguments.out), tuple(arguments.seeds), tuple(arguments.only), arms, arguments.any_code, arguments.stop_after
    )
    if arguments.worker is not None:
        work(values, options, arguments.worker)
    elif arguments.workers != 1:
        run_workers(values, options, [sys.executable, "-m", "stages.run", *sys.argv[1:]], arguments.workers)
    else:
        run_experiment(values, options)


if __name__ == "__main__":
    main()
