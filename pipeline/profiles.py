"""Params of a profile, composed by Hydra from `conf/` as `dvc exp run -S profile=NAME` composes them.

`python -m pipeline.profiles` writes the composed default to params.yaml; `make params` calls it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from alberti.errors import ConfigError
from alberti.files import write_text

PROFILES = ("default", "smoke", "gpu", "paper")
_HEADER = "# The default profile, composed from conf/ by `make params`; conf/profile/shared.yaml says what the values mean.\n"


def compose(project: str | Path, profile: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The params of ``profile`` with Hydra ``overrides`` (`key=value`), as plain dicts and lists.

    Raises:
        ConfigError: an unknown profile, or an override that Hydra refuses.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    conf = Path(project).resolve() / "conf"
    known = sorted(path.stem for path in (conf / "profile").glob("*.yaml"))
    if profile not in known:
        raise ConfigError(f"profile {profile!r}: not in {conf / 'profile'}; there are {', '.join(known) or 'none'}")
    try:
        with initialize_config_dir(str(conf), version_base=None):
            config = hydra_compose("config", overrides=[f"profile={profile}", *overrides])
            values = OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"profile {profile!r} with overrides {list(overrides)}: {error}") from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def dump(values: dict[str, Any], header: str = "") -> str:
    """Params as YAML text, in the order that the profile gives them."""
    return header + yaml.safe_dump(values, sort_keys=False, width=120, allow_unicode=True, default_flow_style=None)


def main() -> None:
    """Write the composed default profile to params.yaml."""
    write_text("params.yaml", dump(compose(".", "default"), _HEADER))


if __name__ == "__main__":
    main()
