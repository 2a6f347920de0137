"""Params of a profile, composed by Hydra from `conf/` as `dvc exp run -S profile=NAME` composes them.

    python -m pipeline.profiles                   # `make params`: conf/section/, params.yaml and dvc.yaml in step with the code
    python -m pipeline.profiles --complete FILE   # write out defaults and graph of a params file that was edited by hand

`conf/section/` holds the defaults of the schema, which profiles begin from, so that a default in code is a value in
params.yaml.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel

from alberti.data.config import CaptionConfig, DepthEstimateConfig, Fit
from alberti.data.sources import check_options
from alberti.depth.config import DepthTrainConfig
from alberti.diffusion.config import BaseConfig, ConstraintSettings, VanishingGuidance
from alberti.errors import AlbertiError, ConfigError
from alberti.files import write_text
from pipeline.code_deps import add_code, check_seen, update_dvc_yaml
from stages.shared import params as schema
from stages.shared.graph import derive
from stages.shared.layout import Layout
from stages.shared.params import check_params, plain
from stages.shared.source_params import SceneParams, SourceParams

if TYPE_CHECKING:
    from omegaconf import DictConfig

PROJECT = Path(__file__).resolve().parent.parent
_HEADER = "# The default profile, composed from conf/ by `make params`. Change conf/, or a run: `dvc exp run -S KEY=VALUE`.\n"
_SECTION_HEADER = "# Defaults of the schema, written by `make params`.\n"
_RESOLVER = "graph"


def profiles(project: str | Path = PROJECT) -> list[str]:
    """Names of the profiles that can be run."""
    return sorted(path.stem for path in (Path(project) / "conf" / "profile").glob("*.yaml") if path.stem != "shared")


def compose(project: str | Path, profile: str, overrides: Sequence[str] = (), experiment: str | None = None) -> dict[str, Any]:
    """The params of ``profile`` with Hydra ``overrides`` (`key=value`), as plain dicts and lists, `graph` among them.

    Raises:
        ConfigError: an unknown profile, an override that Hydra refuses, values that the schema refuses.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    project = Path(project).resolve()
    known = profiles(project)
    if profile not in known:
        raise ConfigError(f"profile {profile!r}: not in {project / 'conf' / 'profile'}; there are {', '.join(known) or 'none'}")
    chosen = [f"profile={profile}", *([f"experiment={experiment}"] if experiment else []), *overrides]
    register_graph(project)
    try:
        with initialize_config_dir(str(project / "conf"), version_base=None):
            config = hydra_compose("config", overrides=chosen)
        values = {str(key): value for key, value in _without_graph(config).items()}
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"profile {profile!r} with overrides {list(overrides)}: {error}") from error
    assert not OmegaConf.is_missing(config, "graph")
    return with_graph(values, project, f"profile {profile}: ")


def with_graph(values: Mapping[str, Any], project: str | Path = PROJECT, where: str = "") -> dict[str, Any]:
    """Values as params.yaml has them: every default written out, and the stages' instances in `graph`."""
    params = check_params({key: value for key, value in values.items() if key != "graph"}, where)
    for role, source in params.prepare.roles().items():
        for native in source.natives():
            try:
                check_options(native.source, native.options)
            except ConfigError as error:
                raise ConfigError(f"{where}prepare.{role}: {error}") from None
    graph = derive(params, Layout(project=Path(project)))
    check_seen(graph, project, where)
    return {**plain(params), "graph": add_code(graph, params, project)}


def register_graph(project: str | Path = PROJECT) -> None:
    """Let Hydra, DVC's as well, compute `graph: ${graph:}` from the values around it."""
    from omegaconf import OmegaConf

    def graph(*, _root_: "DictConfig") -> Any:
        return OmegaConf.create(with_graph(_without_graph(_root_), project)["graph"])

    OmegaConf.register_new_resolver(_RESOLVER, graph, replace=True)


def _without_graph(config: "DictConfig") -> dict[Any, Any]:
    from omegaconf import OmegaConf

    masked = OmegaConf.masked_copy(config, [str(key) for key in config if key != "graph"])
    values = OmegaConf.to_container(masked, resolve=True)
    assert isinstance(values, dict)
    return values


def dump(values: Mapping[str, Any], header: str = "") -> str:
    """Params as YAML text, in the order that the schema gives them."""
    return header + yaml.safe_dump(dict(values), sort_keys=False, width=120, allow_unicode=True, default_flow_style=None)


def sections() -> dict[str, dict[str, Any]]:
    """Name -> content of each file of `conf/section/`."""
    finetune = {**_defaults(schema.ArmParams), **plain(ConstraintSettings())}
    arm = _references(_all_keys(schema.ArmParams), "finetune")
    sampling = _references(_all_keys(schema.GenerateParams), "generate")
    return {
        "source": _defaults(SourceParams),
        "scenes": _defaults(SceneParams),
        "captions": _defaults(CaptionConfig),
        "estimate_depth": _defaults(DepthEstimateConfig),
        "fit": _defaults(Fit),
        "annotate": _defaults(schema.AnnotateParams),
        "base": _defaults(schema.BaseParams),
        "base_train": _defaults(BaseConfig),
        "finetune": finetune,
        "arm": arm,
        "arm_without_constraint": {**arm, "constraint": None, **dict.fromkeys(ConstraintSettings.model_fields)},
        "generate": _defaults(schema.GenerateParams),
        "variant": {"generate": sampling},
        "vanishing_guidance": _defaults(VanishingGuidance),
        "depth_start": _defaults(schema.DepthStartParams),
        "depth_start_train": _defaults(DepthTrainConfig),
        "depth_train": _defaults(schema.DepthTrainParams),
        "finetune_depth": _defaults(schema.FinetuneDepthParams),
        "test_set": _defaults(schema.TestSetParams),
        "references": _defaults(schema.ReferencesParams),
        "report": _defaults(schema.ReportParams),
    }


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Every default of a model, those of sections in it too; what has none is left out."""
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        nested = field.annotation
        if field.is_required():
            if isinstance(nested, type) and issubclass(nested, BaseModel) and (inner := _defaults(nested)):
                values[name] = inner
        else:
            default = field.get_default(call_default_factory=True)
            values[name] = plain(default) if isinstance(default, BaseModel) else default
    return _as_yaml(values)


def _as_yaml(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_yaml(inner) for key, inner in value.items()}
    return [_as_yaml(inner) for inner in value] if isinstance(value, list | tuple) else value


def _all_keys(model: type[BaseModel]) -> dict[str, Any]:
    """The keys of a model, as deep as sections are always there."""
    return {
        name: _all_keys(field.annotation)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        else None
        for name, field in model.model_fields.items()
    }


def _references(keys: Mapping[str, Any], place: str) -> dict[str, Any]:
    return {name: _references(inner, f"{place}.{name}") if inner else f"${{{place}.{name}}}" for name, inner in keys.items()}


def write(project: Path) -> list[Path]:
    """Bring conf/section/, params.yaml and dvc.yaml in step with the code; the files that changed."""
    texts = {
        project / "conf" / "section" / f"{name}.yaml": dump(values, _SECTION_HEADER) for name, values in sections().items()
    }
    changed = [path for path, text in texts.items() if _write_if_new(path, text)]
    for path in (project / "conf" / "section").glob("*.yaml"):
        if path not in texts:
            path.unlink()
            changed.append(path)
    for name, text in (("dvc.yaml", update_dvc_yaml(project)), ("params.yaml", dump(compose(project, "default"), _HEADER))):
        if _write_if_new(project / name, text):
            changed.append(project / name)
    return changed


def _write_if_new(path: Path, text: str) -> bool:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    write_text(path, text)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what is generated, or complete one params file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--complete", type=Path, metavar="FILE", help="write a params file's defaults and graph out, in place")
    options = parser.parse_args(arguments)
    try:
        if options.complete is not None:
            values = yaml.safe_load(options.complete.read_text(encoding="utf-8"))
            write_text(options.complete, dump(with_graph(values, PROJECT, f"{options.complete}: ")))
        else:
            for path in write(Path.cwd()):
                print(path.relative_to(Path.cwd()))
    except AlbertiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
