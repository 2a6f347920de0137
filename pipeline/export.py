"""The graph as a makefile or a Slurm script, for a machine that has neither DVC nor Prefect nor Hydra.

    python -m pipeline.export --profile gpu > gpu.mk
    make -j12 -f gpu.mk                    # on that machine: every unit, 12 at once, spread over the GPUs
    make -j12 -f gpu.mk RUN=/scratch/gpu   # in another folder than runs/gpu

    python -m pipeline.export --profile gpu --slurm > gpu.sh && bash gpu.sh      # a job array for each wave of the graph

A unit is one stage instance, such as finetune@constrained-0. A finished unit is not run again. An interrupted one goes on from
its checkpoint. After a failure `make -k` goes on with all units that do not depend on the failed one. After a new export only
units run whose params, code or inputs changed. RUN holds the same outs as `dvc repro` with the same params.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from alberti.errors import AlbertiError
from alberti.files import sha256_json
from pipeline.profiles import PROJECT, compose
from pipeline.units import Unit, chosen, levels, longest_first, read_units


def makefile(units: Sequence[Unit], values: dict[str, Any], title: str) -> str:
    """The makefile's text."""
    plain = {key: value for key, value in values.items() if key != "graph"}
    text = json.dumps(plain, separators=(",", ":")).replace("$", "$$")
    order = longest_first(units)
    lines = [
        f"# {title}. Written by `python -m pipeline.export`; `make -j12 -f THIS`.",
        f"RUN ?= runs/{values['profile']}",
        "PYTHON ?= python3",
        f"UNITS := {len(units)}",
        "SECONDS := " + f"{sum(unit.seconds for unit in units):g}",
        f"PARAMS_FILE = $(RUN)/params-{sha256_json(plain)[:12]}.yaml",
        'DO = @"$(PYTHON)" -m pipeline.prefork --run $(RUN) --params $(PARAMS_FILE) --units $(UNITS) --seconds $(SECONDS)',
        "",
        ".PHONY: all params always",
        "# What looks at data that lie elsewhere does so every time; what follows from it runs again only if they changed.",
        "ALWAYS ?= always",
        "all: " + " ".join(_stamp(unit) for unit in order),
        '\t@"$(PYTHON)" -m pipeline.prefork --run $(RUN) --stop',
        "",
        "params: $(PARAMS_FILE)",
        "",
        "# JSON is YAML.",
        "$(PARAMS_FILE): export PARAMS = " + text,
        "$(PARAMS_FILE):",
        "\t@mkdir -p $(RUN)/.done $(RUN)/logs && printf '%s\\n' \"$$PARAMS\" > $@",
        "",
    ]
    stamps = {unit.id: _stamp(unit) for unit in units}
    for unit in units:
        waits = " ".join(stamps[name] for name in unit.waits_for if name in stamps)
        kept = f" --keep-for {' '.join(unit.outs)}" if unit.always else ""
        waits = f"$(ALWAYS) {waits}".strip() if unit.always else waits
        lines += [f"{stamps[unit.id]}: {waits} | $(PARAMS_FILE)".replace(":  |", ": |")]
        command = unit.command.removeprefix("python -m ")
        lines += [f"\t$(DO) --stamp $@ --expected {unit.seconds:g}{kept} -- {unit.id} {command}", ""]
    return "\n".join(lines)


def stamp_of(unit: Unit) -> str:
    """The file, in the run's folder, that says that a unit is done."""
    return f".done/{unit.id}.{unit.key[:12]}"


def _stamp(unit: Unit) -> str:
    return f"$(RUN)/{stamp_of(unit)}"


def slurm(units: Sequence[Unit], values: dict[str, Any], title: str) -> str:
    """A script that submits a job array for each wave, each after the wave before. Its makefile is written beside it."""
    waves = levels(units)
    lines = [
        "#!/bin/bash",
        f"# {title}. Written by `python -m pipeline.export --slurm`; run it on the login node, in the project's folder.",
        "# OPTIONS are sbatch's, such as: OPTIONS='--partition=gpu --gres=gpu:1 --cpus-per-task=8 --time=4:00:00' bash THIS",
        "set -euo pipefail",
        f"export RUN=${{RUN:-runs/{values['profile']}}} OPTIONS=${{OPTIONS:-}}",
        'mkdir -p "$RUN/logs"',
        "cat > \"$RUN/plan.mk\" <<'MAKEFILE'",
        makefile(units, values, title),
        "MAKEFILE",
        'make -s -f "$RUN/plan.mk" RUN="$RUN" params',
        "after=",
    ]
    for number, wave in enumerate(waves):
        stamps = " ".join(stamp_of(unit) for unit in wave)
        again = "ALWAYS= " if number else ""  # what the first wave looked at is not looked at by every later job
        lines += [
            f"wave=({stamps})",
            f"after=$(sbatch --parsable --job-name=alberti-{number} --array=0-{len(wave) - 1} $OPTIONS \\",
            '  ${after:+--dependency=afterok:$after} --output="$RUN/logs/slurm-%A_%a.log" \\',
            f'  --wrap "stamps=(${{wave[*]}}); make -f \\"$RUN/plan.mk\\" RUN=\\"$RUN\\" {again}'
            '\\"$RUN/\\${stamps[\\$SLURM_ARRAY_TASK_ID]}\\"")',
            f'echo "wave {number + 1} of {len(waves)}: {len(wave)} units, job $after"',
        ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compose a profile and print its plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="default", help="a profile of conf/profile/ (default: %(default)s)")
    parser.add_argument("--experiment", help="an experiment of conf/experiment/, laid over the profile")
    parser.add_argument("-S", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="set a param")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="STAGE", help="only these stages or instances, and their inputs"
    )
    parser.add_argument("--slurm", action="store_true", help="a script for Slurm instead of a makefile")
    options = parser.parse_args(arguments)
    try:
        values = compose(PROJECT, options.profile, options.overrides, options.experiment)
        units = chosen(read_units(PROJECT, values), options.only)
        title = f"alberti: profile {options.profile}, seeds {', '.join(map(str, values['seeds']))}, {len(units)} units"
        print((slurm if options.slurm else makefile)(units, values, title))
    except AlbertiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
