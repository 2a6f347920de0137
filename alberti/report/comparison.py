"""Differences between arms, and what can be said of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alberti.metrics.bootstrap import crossed_bootstrap, paired_bootstrap
from alberti.report.inputs import Result

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Change:
    """Mean difference of one metric over the pictures that both arms have, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int
    higher_is_better: bool | None = None
    """None: neither direction is better by itself."""

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        """ "better", "worse", "up", "down" or "unclear"."""
        if not self.clear:
            return "unclear"
        if self.higher_is_better is None:
            return "up" if self.value > 0 else "down"
        return "better" if (self.value > 0) == self.higher_is_better else "worse"


def paired_change(
    rows: "pd.DataFrame", other: "pd.DataFrame", column: str, higher_is_better: bool | None, *, seed: int = 0
) -> Change | None:
    """``rows - other`` in ``column`` over the ids that both tables have a number for; None with fewer than 2."""
    if column not in rows.columns or column not in other.columns:
        return None
    both = rows[["id", column]].merge(other[["id", column]], on="id", suffixes=("", "_other")).dropna()
    if len(both) < 2:
        return None
    mean, low, high = paired_bootstrap(
        both[column].to_numpy(float), both[f"{column}_other"].to_numpy(float), resamples=4000, seed=seed
    )
    return Change(float(mean), float(low), float(high), len(both), higher_is_better)


def gap_closed(arm: Result, control: Result, ceiling: Result, column: str) -> Change | None:
    """(arm - control) / (ceiling - control) of the means of ``column`` over the ids for which all three have a number.

    None with fewer than 2, or where some resample has no gap to close.
    """
    tables = [result.rows.set_index("id")[column] for result in (arm, control, ceiling)]
    ids = tables[0].index.intersection(tables[1].index).intersection(tables[2].index)
    values = np.array([table.loc[ids].to_numpy(float) for table in tables])
    values = values[:, None, np.isfinite(values).all(axis=0)]
    if values.shape[2] < 2:
        return None
    crossed = crossed_bootstrap(values, resamples=4000)
    if not (crossed.draws[:, 2] > crossed.draws[:, 1]).all():
        return None
    means, draws = crossed.means, crossed.draws
    shares = (draws[:, 0] - draws[:, 1]) / (draws[:, 2] - draws[:, 1])
    low, high = crossed.interval(shares)
    return Change(float((means[0] - means[1]) / (means[2] - means[1])), float(low), float(high), values.shape[2], True)
