"""Stage prepare@<role>: one role's data set in `data/<role>/`.

For your own data it writes only a list of the files, and copies nothing, unless the params ask for another size (`fit`) or
for depth that your data lack (`estimate_depth`). Rendered streets of `kitti` and the test sets are written in KITTI's layout,
so that the reader for KITTI reads them too.
"""

import importlib

from alberti.errors import ConfigError
from alberti.files import atomic_folder
from stages.shared.graph import Instance
from stages.shared.layout import Layout
from stages.shared.params import Params
from stages.shared.running import run_stage
from stages.shared.source_params import KITTI_ROLE, TRAINING_ROLES, SourceParams

WAYS = {
    name: f"stages.shared.prepare_{name}" for name in ("streets", "kitti_streets", "kitti", "test_set", "native", "estimated")
}
"""Modules that prepare a role. They are imported by name, so that none is an input of what another made."""
_NATIVES = ("folder", "holicity", "vkitti2", "synthia_al", "several")
_WAYS_OF_PICTURES = {"scenes": "streets", **dict.fromkeys(_NATIVES, "native")}
_WAYS_OF_KITTI = {"scenes": "kitti_streets", "kitti": "kitti"}
_WAYS_OF_TESTS = {**_WAYS_OF_KITTI, **dict.fromkeys(("kitti_objects", "diode", "folder"), "test_set")}


def way_of(role: str, section: SourceParams) -> str:
    """The name of the way in which a role is prepared from its source.

    Raises:
        ConfigError: a source that does not fit the role.
    """
    known = _WAYS_OF_PICTURES if role in TRAINING_ROLES else _WAYS_OF_KITTI if role == KITTI_ROLE else _WAYS_OF_TESTS
    if section.source not in known:
        raise ConfigError(f"prepare.{role}.source: {section.source} does not fit; {role} takes {', '.join(known)}")
    if section.estimate_depth is None:
        return known[section.source]
    if role not in TRAINING_ROLES:
        raise ConfigError(
            f"prepare.{role}.estimate_depth: depth models are tested on measured depth, not on another model's; set it to "
            f"null, or use the pictures for {' or '.join(TRAINING_ROLES)}"
        )
    return "estimated"


def prepare(layout: Layout, params: Params, instance: Instance) -> None:
    """Render, or index what `prepare.<role>` names."""
    role = instance["name"]
    section = params.prepare.roles()[role]
    way = importlib.import_module(WAYS[way_of(role, section)])
    with atomic_folder(layout.data(role)) as out:
        way.write(layout, out, role, section)


if __name__ == "__main__":
    run_stage(prepare)
