"""Depth metrics from their definitions, without any cleverness, to compare with."""

import math

import numpy as np


def plain_metrics(pred, target, mask):
    """The definitions, one pixel after the other."""
    pairs = [(float(p), float(g)) for p, g, m in zip(np.ravel(pred), np.ravel(target), np.ravel(mask), strict=True) if m]
    n = len(pairs)
    logs = [math.log(p) - math.log(g) for p, g in pairs]
    ratios = [max(p / g, g / p) for p, g in pairs]
    return {
        "abs_rel": sum(abs(p - g) / g for p, g in pairs) / n,
        "sq_rel": sum((p - g) ** 2 / g for p, g in pairs) / n,
        "rmse": math.sqrt(sum((p - g) ** 2 for p, g in pairs) / n),
        "rmse_log": math.sqrt(sum(e * e for e in logs) / n),
        "silog": 100 * math.sqrt(sum((e - sum(logs) / n) ** 2 for e in logs) / n),
        "log10": sum(abs(math.log10(p) - math.log10(g)) for p, g in pairs) / n,
        "d1": sum(r < 1.25 for r in ratios) / n,
        "d2": sum(r < 1.25**2 for r in ratios) / n,
        "d3": sum(r < 1.25**3 for r in ratios) / n,
    }
