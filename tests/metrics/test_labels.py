"""Names and formats of metrics: every metric that is computed has one, and numbers read as they should."""

from alberti.metrics import depth
from alberti.metrics.labels import DEPTH, METRICS, percent


def test_every_depth_metric_is_named_with_its_direction() -> None:
    assert tuple(metric.key for metric in DEPTH) == depth.METRICS
    assert {metric.key for metric in DEPTH if metric.higher_is_better} == depth.HIGHER_IS_BETTER


def test_numbers_as_people_read_them() -> None:
    share, error, distance = METRICS["consistency_2"], METRICS["abs_rel"], METRICS["frechet_distance"]
    assert share.text(0.7532) == "75.3 %"
    assert share.change(-0.0049) == "\N{MINUS SIGN}0.5 points"
    assert share.interval(0.1, 0.25) == "10.0 to 25.0"
    assert error.text(0.2514) == "0.251"
    assert error.interval(-0.01, 0.02, signed=True) == "\N{MINUS SIGN}0.010 to +0.020"
    assert distance.text(141.93) == "142"
    assert percent(-0.0336, signed=True) == "\N{MINUS SIGN}3.4 %"
    assert (error.direction, error.arrow) == ("lower is better", "↓")
    assert METRICS["line_length"].direction == ""
