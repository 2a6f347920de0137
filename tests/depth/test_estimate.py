"""Depth for pictures without any, by tiny real models: ours, and transformers' own classes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alberti.data.config import DepthEstimateConfig
from alberti.data.manifest import Dataset
from alberti.data.scenes import SceneConfig, render_dataset
from alberti.data.sources import open_source, write_source
from alberti.depth.estimate import DepthEstimator, estimate_depth, load_estimator
from alberti.depth.models import DepthModel, build_depth_model
from alberti.depth.predict import predict_batch
from alberti.diffusion.depth_estimator import write_untrained_estimator
from alberti.errors import CheckpointError, ConfigError, DataError

SIZE = 32


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of streets and nothing else."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "streets").mkdir()
    config = SceneConfig(width=SIZE, height=SIZE)
    render_dataset(folder / "streets", name="streets", role="train", count=3, seed=1, config=config)
    shutil.move(folder / "streets" / "images", folder / "images")
    shutil.rmtree(folder / "streets")
    return folder


@pytest.fixture
def dataset(photos: Path, tmp_path: Path) -> Dataset:
    folder = tmp_path / "data"
    folder.mkdir()
    return write_source(open_source("folder", photos), folder, role="train")


@pytest.fixture(scope="module")
def relative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DPT as transformers saves one: it does not say what it gives."""
    folder = tmp_path_factory.mktemp("dpt")
    write_untrained_estimator(folder)
    shutil.copy(folder / "feature_extractor" / "preprocessor_config.json", folder / "depth_estimator")
    return folder / "depth_estimator"


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Depth Anything for metres, which says so."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8, head_hidden_size=8, depth_estimation_type="metric", max_depth=80,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("anything")
    torch.manual_seed(0)
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def _config(model: Path, **changes: Any) -> DepthEstimateConfig:
    return DepthEstimateConfig.model_validate({"model": str(model), "batch_size": 2} | changes)


def test_a_model_of_ours_gives_metres(dataset, tmp_path):
    build_depth_model("pixelformer", "tiny", input_height=SIZE).save(tmp_path / "model")
    estimator = load_estimator(_config(tmp_path / "model"))
    assert estimator.kind == "z"
    found = estimate_depth(dataset, estimator, 2, tmp_path / "work")
    assert (found.info.depth_kind, found.metric_depth) == ("z", True)
    again = Dataset.open(dataset.folder, check_files=True)
    pictures = [again.read_image(sample) for sample in again]
    for sample, wanted in zip(again, predict_batch(DepthModel.load(tmp_path / "model"), pictures), strict=True):
        np.testing.assert_allclose(again.read_depth(sample), wanted, rtol=1e-4)
    assert again.image_path(again[0]).parent != again.depth_path(again[0]).parent  # pictures stay where they lie
    assert not list((tmp_path / "work").iterdir())


def test_a_model_of_transformers_gives_inverse_depth_to_condition_on(dataset, relative, tmp_path):
    found = estimate_depth(dataset, load_estimator(_config(relative)), 2, tmp_path / "work")
    assert found.info.depth_kind == "inverse"
    stored, condition = found.read_depth(found[0]), found.read_condition(found[0])
    near = stored == stored.max()
    assert (condition[near] == condition[condition > 0].min()).all()
    with pytest.raises(DataError, match="metres along the optical axis"):
        found.require_metric_depth()


def test_the_kind_is_what_the_model_says_or_what_is_said_of_it(metric, relative):
    assert load_estimator(_config(metric)).kind == "z"
    assert load_estimator(_config(relative, kind="z")).kind == "z"
    with pytest.raises(ConfigError, match=r"estimate_depth\.kind: inverse.*set it to z or null"):
        load_estimator(_config(metric, kind="inverse"))


def test_depth_does_not_depend_on_the_batch(dataset, metric, tmp_path):
    estimator = load_estimator(_config(metric))
    pictures = [dataset.read_image(sample) for sample in dataset]
    for alone, together in zip([estimator.predict([each])[0] for each in pictures], estimator.predict(pictures), strict=True):
        assert alone.shape == (SIZE, SIZE)
        np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


def test_an_interrupted_estimate_goes_on(dataset, relative, tmp_path):
    whole = load_estimator(_config(relative))
    seen: list[int] = []

    def interrupted(pictures: Any) -> list[np.ndarray]:
        if seen:
            raise KeyboardInterrupt
        seen.append(len(pictures))
        return whole.predict(pictures)

    with pytest.raises(KeyboardInterrupt):
        estimate_depth(dataset, DepthEstimator("a", whole.kind, whole.weights, interrupted), 2, tmp_path / "work")
    assert Dataset.open(dataset.folder).info.depth_kind is None  # nothing half done
    rest: list[int] = []

    def counted(pictures: Any) -> list[np.ndarray]:
        rest.append(len(pictures))
        return whole.predict(pictures)

    found = estimate_depth(dataset, DepthEstimator("a", whole.kind, whole.weights, counted), 2, tmp_path / "work")
    assert (seen, rest) == ([2], [1])
    for sample in found:
        np.testing.assert_allclose(found.read_depth(sample), whole.predict([found.read_image(sample)])[0], rtol=1e-4, atol=1e-6)


def test_what_cannot_be_is_refused(dataset, relative, tmp_path):
    def made(values: np.ndarray) -> DepthEstimator:
        return DepthEstimator("made", "z", str(values[0, 0]), lambda pictures: [values] * len(pictures))

    for values, message in (
        (np.full((SIZE, SIZE), np.nan), r"images/.*\.png: the depth that made gives is not finite"),
        (np.full((SIZE, SIZE), 4.0), "the same depth everywhere"),
        (np.linspace(1e4, 2e4, SIZE * SIZE).reshape(SIZE, SIZE), "millimetres"),
    ):
        folder = tmp_path / str(values[0, 0])
        shutil.copytree(dataset.folder, folder)
        with pytest.raises(DataError, match=message):
            estimate_depth(Dataset.open(folder), made(values), 2, tmp_path / "work")
    found = estimate_depth(dataset, load_estimator(_config(relative)), 2, tmp_path / "work")
    with pytest.raises(DataError, match="have depth maps"):
        estimate_depth(found, load_estimator(_config(relative)), 2, tmp_path / "work")


def test_a_model_that_is_none_of_depth_is_refused(relative, tmp_path):
    with pytest.raises(CheckpointError, match="neither a local folder nor a hub model"):
        load_estimator(_config(tmp_path / "nowhere"))
    broken = tmp_path / "broken"
    shutil.copytree(relative, broken)
    from safetensors.torch import load_file, save_file

    state = load_file(broken / "model.safetensors")
    lost = next(name for name in state if name.startswith("head."))
    save_file({name: value for name, value in state.items() if name != lost}, broken / "model.safetensors")
    with pytest.raises(CheckpointError, match="has no weights for head"):
        load_estimator(_config(broken))
