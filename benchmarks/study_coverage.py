"""Do the intervals of `alberti study analyse` cover? Simulated raters with a known preference, some of them careless.

python benchmarks/study_coverage.py --studies 1000 --raters 30
"""

import argparse

import numpy as np

from alberti.progress import track
from alberti.study.analysis import Design, rater_table
from alberti.study.design import Block
from alberti.study.plan import imagined_study, planned_study
from alberti.study.schedule import Schedule
from alberti.study.simulate import CARELESS, Raters, simulate
from alberti.study.statistics import clustered_share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--raters", type=int, default=30)
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--careless", type=float, default=0.1)
    parser.add_argument("--spread", type=float, default=0.5, help="of raters' and scenes' log odds")
    args = parser.parse_args()
    blocks = tuple(Block(key=key, question=key, per_comparison=args.pairs) for key in ("realism", "lines"))
    base = imagined_study(["base", "constrained"], blocks=blocks)
    print(f"{args.studies} studies, {args.raters} raters, {args.pairs} of {args.pictures} pictures, careless {args.careless:g}")
    heads = ["coverage", "half width", "mean, all", "mean, kept", "careless kept", "attentive lost"]
    print(f"{'preference':<12}" + "".join(f"{head:<14}" for head in heads))
    for preference in (0.5, 0.6, 0.7):
        raters = Raters(preference, careless=args.careless, rater_spread=args.spread, scene_spread=args.spread)
        covered, widths, before, after, let_in, lost = [], [], [], [], [], []
        for seed in track(range(args.studies), f"preference {preference}", unit="studies"):
            study = planned_study(base, args.pictures, seed)
            table = simulate(study, Schedule(study), raters, args.raters, seed)
            excluded = rater_table(table, Design.of(study).rules)["excluded"] != ""
            careless = excluded.index.str.startswith(CARELESS)
            pairs = table[(table["kind"] == "main") & (table["block"] == "realism")]
            kept = pairs[~pairs["rater"].map(excluded)]
            share = clustered_share(kept["winner"] == "constrained", kept["rater"], kept["scene"])
            assert share is not None
            covered.append(share.low <= preference <= share.high)
            widths.append((share.high - share.low) / 2)
            before.append((pairs["winner"] == "constrained").mean())
            after.append(share.share)
            let_in.append((~excluded[careless]).mean())
            lost.append(excluded[~careless].mean())
        figures = [np.mean(covered), np.mean(widths), np.mean(before), np.mean(after), np.mean(let_in), np.mean(lost)]
        print(f"{preference:<12}" + "".join(f"{figure:<14.4f}" for figure in figures))


if __name__ == "__main__":
    main()
