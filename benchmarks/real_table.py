"""Changes of depth errors between arms over seeds and scenes, as a Markdown table, from the metric files of a run.

    python benchmarks/real_table.py metrics/depth kitti [--against original unconstrained] [--columns abs_rel sq_rel rmse]
    python benchmarks/real_table.py metrics/depth kitti.weighted_disparity --models dpt

Reads `<folder>/<model>/<arm>/<seed>/<test set>.csv`; of arms that no seed changes the folder of the seed is `all`. An entry is
the change of the mean error in per cent with its 95 % interval; seeds and whole scenes are resampled together, the same ones in
both arms. Column `error` holds the mean error itself.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alberti.errors import DataError
from alberti.metrics.bootstrap import Crossed, crossed_bootstrap
from alberti.report.inputs import Result


def read_model(folder: Path, test_set: str) -> tuple[dict[str, list[Result]], list[str]]:
    """Arm -> its evaluations in the order of the seeds, and the seeds. Seedless arms stand once for each seed."""
    found: dict[str, dict[str, Result]] = {}
    for path in sorted(folder.glob(f"*/*/{test_set}.json")):
        found.setdefault(path.parts[-3], {})[path.parts[-2]] = Result.read(path)
    seeds = sorted({seed for runs in found.values() for seed in runs if seed != "all"}, key=int)
    arms = {arm: [runs.get(seed) or runs.get("all") for seed in seeds or ["all"]] for arm, runs in found.items()}
    lacking = [arm for arm, runs in arms.items() if None in runs]
    if lacking or not arms:
        raise DataError(f"{folder}: {test_set}: " + (f"seeds are missing of {', '.join(lacking)}" if lacking else "no files"))
    return {arm: [run for run in runs if run is not None] for arm, runs in arms.items()}, seeds


def crossed(arms: dict[str, list[Result]], column: str) -> tuple[Crossed, int, int]:
    """Means and draws by arm, in their order; frames and scenes."""
    tables = [[run.rows.set_index("id")[column] for run in runs] for runs in arms.values()]
    ids = sorted(tables[0][0].index)
    if any(sorted(table.index) != ids for runs in tables for table in runs):
        raise DataError("the evaluations are not of the same frames")
    values = np.array([[table.loc[ids].to_numpy(float) for table in runs] for runs in tables])
    scenes = next(iter(arms.values()))[0].scenes(np.array(ids), real=True)
    count = len(set(scenes))
    return crossed_bootstrap(values, groups=scenes if 1 < count < len(ids) else None), len(ids), count


def change(result: Crossed, arm: int, other: int) -> str:
    """The change of the mean in per cent, with its interval."""
    draws = 100 * (result.draws[:, arm] / result.draws[:, other] - 1)
    low, high = result.interval(draws)
    mean = 100 * (result.means[arm] / result.means[other] - 1)
    mark = "**" if low > 0 or high < 0 else ""
    return f"{mark}{mean:+.1f} %{mark} ({low:+.1f} to {high:+.1f})"


def table(
    model: str, arms: dict[str, list[Result]], seeds: Sequence[str], against: Sequence[str], columns: Sequence[str]
) -> str:
    """A row an arm: errors, and changes against each of ``against`` that is there."""
    others = [arm for arm in against if arm in arms]
    names, results = list(arms), {column: crossed(arms, column) for column in columns}
    _, frames, scenes = results[columns[0]]
    summary = next(iter(arms.values()))[0].summary
    head = ["arm"] + [f"{column} error" for column in columns]
    head += [f"{column} against {other}" for other in others for column in columns]
    held = f"{summary['protocol']}, {summary['alignment']}, {frames} frames of {scenes} scenes, seeds: {len(seeds) or 1}"
    lines = [
        f"**{model}** ({held})",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for place, arm in enumerate(names):
        cells = [arm] + [f"{results[column][0].means[place]:.4f}" for column in columns]
        for other in others:
            at = names.index(other)
            cells += ["" if arm == other else change(results[column][0], place, at) for column in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="metrics/depth of a run")
    parser.add_argument("test_set")
    parser.add_argument("--models", nargs="+", default=["pixelformer", "dpt"])
    parser.add_argument("--against", nargs="+", default=["original", "unconstrained", "condition"])
    parser.add_argument("--columns", nargs="+", default=["abs_rel", "sq_rel", "rmse"])
    args = parser.parse_args()
    for model in args.models:
        arms, seeds = read_model(args.folder / model, args.test_set)
        print(table(model, arms, seeds, args.against, args.columns), end="\n\n")


if __name__ == "__main__":
    main()
