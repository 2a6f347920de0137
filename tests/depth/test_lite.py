"""Depth models whose backbone has seen photographs: its weights are the package's, they stay, and folders hold them."""

import numpy as np
import pytest
import torch
from torch import nn

from alberti.data.scenes import SceneConfig
from alberti.depth.appearance import COUNT, change_appearance, draw_appearance
from alberti.depth.config import Augmentation, DepthTrainConfig
from alberti.depth.efficientnet import CHANNELS, MEAN, STD, EfficientNetBackbone, imagenet_state_dict
from alberti.depth.models import DepthModel, build_depth_model
from alberti.depth.rendered import train_on_streets
from alberti.diffusion.sources import SceneSource
from alberti.errors import CheckpointError, ConfigError
from alberti.metrics.features import load_efficientnet_lite0
from alberti.training.settings import Optimisation


def trunk(model: DepthModel) -> nn.Module:
    name = "backbone.network" if model.name == "pixelformer" else "dpt.embeddings.backbone._backbone"
    return model.network.get_submodule(name)


def test_features_are_those_of_the_whole_network_whatever_the_statistics():
    random = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 64, 96, generator=random)
    mean, std = torch.tensor([0.1, 0.4, 0.7])[:, None, None], torch.tensor([0.2, 0.3, 0.5])[:, None, None]
    backbone = EfficientNetBackbone(mean.flatten().tolist(), std.flatten().tolist())
    backbone.network.load_state_dict(imagenet_state_dict(), strict=False)
    maps = backbone((images - mean) / std)
    assert [(feature.shape[1], 64 // feature.shape[2]) for feature in maps] == list(zip(CHANNELS, (4, 8, 16, 32), strict=True))
    whole = load_efficientnet_lite0().eval()
    expected = whole.forward_intermediates((images - MEAN) / STD, intermediates_only=True)[-4:]
    for feature, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(feature, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["pixelformer", "dpt"])
def test_the_backbone_stays_and_the_rest_learns_and_a_folder_gives_it_all_back(name, tmp_path):
    model = build_depth_model(name, "lite", backbone_weights="package")
    before = {key: value.clone() for key, value in trunk(model).state_dict().items()}
    torch.testing.assert_close(before["conv_stem.weight"], imagenet_state_dict()["conv_stem.weight"])
    config = DepthTrainConfig(training=Optimisation(steps=2, batch_size=2, lr=1e-3), augmentation=Augmentation(crop=(32, 64)))
    source = SceneSource(2, 0, SceneConfig("mixed", 64, 32, 1, "driving"), fresh=False)
    decoder = next(key for key, value in model.named_parameters() if value.requires_grad)
    start = model.get_parameter(decoder).clone()
    trained = train_on_streets(model, source, config, device="cpu").model
    assert isinstance(trained, DepthModel)
    assert not torch.equal(trained.get_parameter(decoder), start)
    for key, value in trunk(trained).state_dict().items():
        assert torch.equal(value, before[key]), key
    trained.save(tmp_path, dtype=torch.float16)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 12e6
    loaded = DepthModel.load(tmp_path)
    images = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loaded(images), trained.eval()(images), rtol=0.05, atol=0.5)
    loaded.train()
    assert not any(module.training for module in trunk(loaded).modules() if isinstance(module, nn.BatchNorm2d))
    assert not any(value.requires_grad for value in trunk(loaded).parameters())
    assert any(value.requires_grad for value in loaded.parameters())


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"conv_stem.weight": torch.zeros(3)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"conv_stem\.weight has shape \(3,\)"):
        build_depth_model("pixelformer", "lite", backbone_weights=str(tmp_path / "weights.pth"))
    with pytest.raises(ConfigError, match="for size lite, not for pixelformer small"):
        build_depth_model("pixelformer", "small", backbone_weights="package")


def test_a_run_resumes_as_if_it_had_not_been_interrupted(tmp_path):
    source = SceneSource(3, 0, SceneConfig("mixed", 64, 32, 1, "kitti"), fresh=False)
    training = Optimisation(steps=3, batch_size=2, lr=1e-3, checkpoint_every=2)
    config = DepthTrainConfig(training=training, augmentation=Augmentation(crop=(32, 64)))

    def stop(done, model):
        if done == 3:
            raise KeyboardInterrupt

    whole = train_on_streets(build_depth_model("dpt", "lite", seed=1), source, config, device="cpu").model
    with pytest.raises(KeyboardInterrupt):
        start = build_depth_model("dpt", "lite", seed=1)
        train_on_streets(start, source, config, checkpoints=tmp_path, device="cpu", on_step=stop)
    start = build_depth_model("dpt", "lite", seed=1)
    resumed = train_on_streets(start, source, config, checkpoints=tmp_path, device="cpu").model
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_no_strength_changes_nothing_and_channels_turn_as_drawn():
    random = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 24, 40, generator=random)
    none = torch.from_numpy(np.stack([draw_appearance(0.0, np.random.default_rng(k)) for k in range(2)]))
    torch.testing.assert_close(change_appearance(images, none), images, rtol=1e-5, atol=1e-5)
    change = torch.zeros(1, COUNT)
    change[0, [1, 5, 6]] = 1.0  # red takes green, green takes blue, blue takes red
    turned = change_appearance(images[:1], change)
    torch.testing.assert_close(turned, images[:1][:, [1, 2, 0]])
    change[0, -2] = -1.0  # fully blurred: a flat picture stays flat, an edge does not
    flat = torch.full((1, 3, 24, 40), 0.25)
    torch.testing.assert_close(change_appearance(flat, change), flat)
    edge = flat.clone()
    edge[..., 20:] = 0.75
    assert 0.3 < change_appearance(edge, change)[0, 0, 12, 20] < 0.7
    drawn = torch.from_numpy(draw_appearance(1.0, np.random.default_rng(3)))[None]
    made = change_appearance(images[:1], drawn)
    assert made.min() >= 0
    assert made.max() <= 1
    assert (made - images[:1]).abs().mean() > 0.02
