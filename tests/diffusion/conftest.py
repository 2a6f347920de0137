"""Fixtures: the toy data set, and real models of a few hundred thousand parameters."""

from pathlib import Path

import pytest
from diffusers import ControlNetModel
from diffusion.toy import CAPTIONS, TINY, base_config, write_toy

from alberti.data.manifest import Dataset
from alberti.diffusion.base import BaseConfig, DepthDiffusion, build_small_base, train_base


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_toy(tmp_path_factory.mktemp("toy") / "data")


@pytest.fixture(scope="session")
def points(toy: Dataset) -> dict:
    return {sample.id: sample.vanishing_points for sample in toy}


@pytest.fixture
def base() -> DepthDiffusion:
    return build_small_base(BaseConfig.smoke(**TINY), CAPTIONS)


@pytest.fixture
def controlnet_base() -> DepthDiffusion:
    model = build_small_base(BaseConfig.smoke(**TINY), CAPTIONS)
    settings = dict(model.unet.config) | {"in_channels": 4}
    model.unet = type(model.unet).from_config(settings)
    model.controlnet = ControlNetModel.from_unet(
        model.unet, conditioning_channels=3, conditioning_embedding_out_channels=(16, 32)
    )
    return model


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    build_small_base(BaseConfig.smoke(**TINY), CAPTIONS).save(folder)
    return folder


@pytest.fixture(scope="session")
def trained(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A briefly trained base and what its training returned."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    return folder, train_base(toy, folder, base_config(), checkpoints=None, device="cpu")
