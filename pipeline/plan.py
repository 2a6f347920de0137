"""What is to run, what each unit needs, and which waits for which."""

from collections.abc import Mapping, Sequence

from pipeline.graph import Unit
from pipeline.resources import needs_of, path_lengths


class Plan:
    """The units that are to run, and in which order they want to."""

    def __init__(self, units: Mapping[str, Unit], overrides: Sequence[str] = ()):
        self.units = dict(units)
        self.needs = {name: needs_of(unit.stage, overrides) for name, unit in units.items()}
        self.upstream = {name: [up for up in unit.upstream if up in units] for name, unit in units.items()}
        own = {name: _with_upstream(unit, self.upstream[name]) for name, unit in units.items()}
        self.length = path_lengths(own, {name: found.seconds for name, found in self.needs.items()})

    def downstream(self) -> dict[str, list[str]]:
        """Name -> the units that wait for it."""
        found: dict[str, list[str]] = {name: [] for name in self.units}
        for name, upstream in self.upstream.items():
            for other in upstream:
                found[other].append(name)
        return found


def _with_upstream(unit: Unit, upstream: Sequence[str]) -> Unit:
    return Unit(unit.name, unit.command, unit.deps, unit.outs, unit.params, tuple(upstream), unit.always)
