"""The params of every stage: `params.yaml` as frozen, typed models that reject what they do not know.

One section a stage, plus `seed` (the experiment's), `arms` (each a set of overrides of `finetune`) and `variants` (each an
arm's weights sampled with overrides of `generate`). The library's own settings are used as they are, so that a new one is
an edit there and in `conf/`.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from alberti.depth.config import DepthTrainConfig
from alberti.diffusion.config import BaseConfig, ConstraintSettings, FinetuneConfig, SampleConfig
from alberti.errors import ConfigError
from alberti.training.settings import Optimisation
from stages.profiles import merge
from stages.source_params import ROLES as ROLES
from stages.source_params import PrepareParams, SceneParams, Section

M = TypeVar("M", bound=BaseModel)

BASE_ARM = "base"
"""The arm that stands for the unmodified base: its override is `training: {steps: 0}`."""
KITTI_ARM = "kitti"
"""The depth arm that trains on KITTI's own training split instead of generated pictures."""
CONDITION_ARM = "condition"
"""The depth arm that trains on the pictures which the depth maps came with: what flawless generation would give."""
ORIGINAL_ARM = "original"
"""The depth model before any fine-tuning."""


class AnnotateParams(Section):
    """Section `annotate`."""

    known_camera: bool = True
    """Whether the estimator is given the intrinsics that the data set has."""
    workers: int = Field(default=1, gt=0)


class BaseParams(Section):
    """Section `base`: where the diffusion model that all arms start from comes from."""

    source: Literal["pretrained", "train", "path", "hub"]
    """`pretrained`: `pretrained/base`; `path`: the folder `path`; `hub`: `id` at `revision`; `train`: from scratch."""
    path: str | None = None
    id: str | None = None
    revision: str | None = None
    train: BaseConfig | None = None
    scenes: SceneParams | None = None
    """Train on these streets, rendered on the training device and kept there, instead of on `data/train`."""

    @model_validator(mode="after")
    def _has_what_the_source_needs(self) -> "BaseParams":
        needed = {"pretrained": None, "train": "train", "path": "path", "hub": "id"}[self.source]
        if needed and getattr(self, needed) is None:
            raise ValueError(f"{needed}: needed with source {self.source!r}")
        if self.train is not None and self.scenes is not None:
            sizes = [(value.width, value.height) for value in (self.train, self.scenes)]
            if sizes[0] != sizes[1]:
                raise ValueError(f"scenes: have {sizes[1]} pixels, train says {sizes[0]}")
        return self


class ArmOptimisation(Optimisation):
    """`training` of an arm. `steps: 0` stands for the base as it is."""

    steps: int = Field(ge=0)


class FinetuneParams(FinetuneConfig):
    """Section `finetune`, and each arm after its overrides."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    training: ArmOptimisation

    def library_config(self) -> FinetuneConfig:
        """What the library takes; only for arms that train."""
        return FinetuneConfig.model_validate(self.model_dump())


class GenerateParams(SampleConfig):
    """Section `generate`."""


class VariantParams(Section):
    """One of `variants`: pictures of an arm's weights, sampled in another way."""

    arm: str
    """Whose weights; one of `arms`."""
    generate: dict[str, Any] = Field(default_factory=dict)
    """Overrides of `generate`."""


class DepthStartParams(Section):
    """The original of one depth model: given weights, or random ones, then trained on `data/train` if `train` says how."""

    size: str
    kind: Literal["metric", "inverse_relative"] | None = None
    max_depth: float = Field(default=80.0, gt=0)
    weights: str | None = None
    """A model folder such as `pretrained/dpt`, a hub id, or a published PixelFormer checkpoint; null: random weights."""
    revision: str | None = None
    backbone_weights: str = "none"
    """`none`, `timm` (ImageNet weights, which needs a network) or a path."""
    input_height: int | None = None
    seed: int = 0
    train: DepthTrainConfig | None = None

    @model_validator(mode="after")
    def _starts_somewhere(self) -> "DepthStartParams":
        if self.weights is None and self.train is None:
            raise ValueError("weights: needed where `train` is null, or the model would stay random")
        return self


class BaseDepthParams(Section):
    """Section `base_depth`: the original depth models, one entry a model."""

    dpt: DepthStartParams
    pixelformer: DepthStartParams


class FinetuneDepthRecipes(Section):
    """One recipe a model."""

    dpt: DepthTrainConfig
    pixelformer: DepthTrainConfig


class FinetuneDepthParams(Section):
    """Section `finetune_depth`: which models are fine-tuned on which arms' pictures, and how."""

    models: list[Literal["dpt", "pixelformer"]] = Field(min_length=1)
    arms: list[str] = Field(min_length=1)
    """Names of `arms` and `variants`."""
    references: list[Literal["kitti", "condition"]] = Field(default=["kitti"])
    """Roles of `prepare` whose own pictures train one more copy each, an arm named as the role."""
    train: FinetuneDepthRecipes


class EvaluateImagesParams(Section):
    """Section `evaluate_images`."""

    extractor: str
    """Feature extractor of the Frechet and kernel distances; a name of `alberti.metrics.images.EXTRACTORS`."""


class ReferencesParams(Section):
    """Section `references`."""

    batch_size: int = Field(default=32, gt=0)


class EvaluateDepthParams(Section):
    """Section `evaluate_depth`."""

    arms: list[str] = Field(min_length=1)
    """Of `original`, `finetune_depth.references` and `finetune_depth.arms`."""
    protocol: str
    alignment: dict[str, str]
    """Alignment of each model's predictions with the ground truth: `none`, `median` or `affine_disparity`."""


class ReportParams(Section):
    """Section `report`."""

    pictures: int = Field(default=6, gt=0)
    over_seeds: str | None = None
    """A JSON file of `python -m pipeline.results`, whose tables the report shows as well."""
    over_seeds_figures: str | None = None
    """A folder of its figures."""


class Params(Section):
    """All of params.yaml."""

    profile: str
    """Which of `conf/profile/` the rest was composed from; only shown."""
    seed: int = 0
    """The experiment's seed: that of every section which has none of its own."""
    watch: list[Literal["train", "condition", "kitti", "test"]] = Field(default_factory=list)
    """Roles whose data, read where they lie, are looked at in every `dvc repro`: a changed file makes `prepare` run again."""
    prepare: PrepareParams
    annotate: AnnotateParams
    base: BaseParams
    finetune: FinetuneParams
    arms: dict[str, dict[str, Any]]
    generate: GenerateParams
    variants: dict[str, VariantParams] = Field(default_factory=dict)
    base_depth: BaseDepthParams
    finetune_depth: FinetuneDepthParams
    evaluate_images: EvaluateImagesParams
    references: ReferencesParams
    evaluate_depth: EvaluateDepthParams
    report: ReportParams

    def arm(self, name: str) -> FinetuneParams:
        """The arm's fine-tuning: `finetune` with the arm's overrides and, where neither has a seed, the experiment's."""
        finetune, overrides = self.finetune.model_dump(exclude_unset=True), self.arms[name]
        if overrides.get("constraint", self.finetune.constraint) is None:
            finetune = {key: value for key, value in finetune.items() if key not in ConstraintSettings.model_fields}
        values = merge(merge({"training": {"seed": self.seed}}, finetune), overrides)
        return _validate(FinetuneParams, values, f"arms.{name}.")

    @property
    def picture_arms(self) -> list[str]:
        """Every name that has pictures of its own: the arms, then the variants."""
        return [*self.arms, *self.variants]

    def weights_of(self, name: str) -> str:
        """The arm whose weights draw the pictures of an arm or variant."""
        return self.variants[name].arm if name in self.variants else name

    def sampling(self, name: str) -> GenerateParams:
        """How an arm or variant is sampled: `generate` with the variant's overrides and, without its own, the experiment's
        seed.
        """
        overrides = self.variants[name].generate if name in self.variants else {}
        values = {"seed": self.seed, **self.generate.model_dump(exclude_unset=True), **overrides}
        return _validate(GenerateParams, values, f"variants.{name}.generate.")

    def depth_instances(self) -> list[str]:
        """`<model>-<arm>` of every fine-tuned depth model."""
        arms = [*self.finetune_depth.references, *self.finetune_depth.arms]
        return [f"{model}-{arm}" for model in self.finetune_depth.models for arm in arms]

    def evaluation_instances(self) -> list[str]:
        """`<model>-<arm>` of every evaluated depth model."""
        return [f"{model}-{arm}" for model in self.finetune_depth.models for arm in self.evaluate_depth.arms]


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check params.yaml.

    Raises:
        ConfigError: no such file, malformed YAML, an unknown or misspelled key (the nearest known one is suggested), a value of
            the wrong type or range, or arms that contradict each other. Every problem found is in the message.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such params file; run the stage from the project's folder or name it") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(values).__name__}")
    return check_params(values, f"{path}: ")


def check_params(values: Mapping[str, Any], where: str = "") -> Params:
    """Params from plain values; ConfigError as :func:`load_params`, with ``where`` in front of every message."""
    params = _validate(Params, values, where)
    _check_arms(params, where)
    for check, names in ((params.arm, params.arms), (params.sampling, params.variants)):
        for name in names:
            try:
                check(name)
            except ConfigError as error:
                raise ConfigError(f"{where}{error}") from None
    return params


def _check_arms(params: Params, where: str) -> None:
    if params.arms.get(BASE_ARM) != {"training": {"steps": 0}}:
        raise ConfigError(
            f"{where}arms.{BASE_ARM}: must be {{training: {{steps: 0}}}}, the unmodified base that others are compared with"
        )
    for section in ("arms", "variants"):
        for name in getattr(params, section):
            if name in (KITTI_ARM, CONDITION_ARM, ORIGINAL_ARM) or not name.replace("_", "").isalnum():
                raise ConfigError(
                    f"{where}{section}.{name}: not a name for an arm: use letters, digits and _; not kitti, condition, original"
                )
    if both := sorted(set(params.arms) & set(params.variants)):
        raise ConfigError(f"{where}variants.{both[0]}: an arm of that name exists already")
    depth = params.finetune_depth
    checks = [
        *((f"variants.{name}.arm", [variant.arm], list(params.arms)) for name, variant in params.variants.items()),
        ("finetune_depth.arms", depth.arms, params.picture_arms),
        ("evaluate_depth.arms", params.evaluate_depth.arms, [ORIGINAL_ARM, *depth.references, *depth.arms]),
        ("evaluate_depth.alignment", params.evaluate_depth.alignment, ["dpt", "pixelformer"]),
    ]
    for key, names, allowed in checks:
        for name in names:
            if name not in allowed:
                raise ConfigError(f"{where}{key}: {name!r} is not among {', '.join(allowed)}{_nearest(name, allowed)}")
        if len(set(names)) != len(names):
            raise ConfigError(f"{where}{key}: a name stands twice in {', '.join(names)}")


def _validate(model: type[M], values: Any, where: str) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_problems(model, error, where))) from None


def _problems(model: type[BaseModel], error: ValidationError, where: str) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        loc = [str(part) for part in problem["loc"]]
        key = where + ".".join(loc)
        if problem["type"] == "extra_forbidden":
            known = list(_fields_at(model, loc[:-1]))
            yield f"{key}: no such parameter{_nearest(loc[-1], known)}; known here: {', '.join(known)}"
        elif problem["type"] == "missing":
            yield f"{key}: missing"
        else:
            yield f"{key}: {problem['msg'].removeprefix('Value error, ')} (got {problem['input']!r:.80})"


def _fields_at(model: type[BaseModel], loc: list[str]) -> Iterable[str]:
    """The known keys of the (nested) model at ``loc``."""
    for name in loc:
        if name.isdigit():  # an item of a list of sections: its own are the keys
            continue
        field = model.model_fields.get(name)
        candidates = [field.annotation, *get_args(field.annotation)] if field is not None else []
        nested = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return model.model_fields


def _nearest(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""
