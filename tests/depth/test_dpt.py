from functools import partial
from pathlib import Path

import pytest
import torch
from timm.layers import GroupNormAct, StdConv2dSame
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import HybridEmbed
from torch import nn
from transformers import DPTForDepthEstimation
from transformers.models.dpt.configuration_dpt import DPTConfig
from transformers.models.dpt.modeling_dpt import DPTModel

from alberti.depth.backbones import vit_state_dict
from alberti.depth.dpt import SIZES, build_dpt, dpt_config, dpt_forward, load_dpt, save_dpt
from alberti.errors import CheckpointError, ConfigError


@pytest.fixture
def network() -> DPTForDepthEstimation:
    torch.manual_seed(0)
    return build_dpt("tiny").eval()


def plain_vit() -> DPTConfig:
    return DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=128,
        image_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 32, 32],
        fusion_hidden_size=16,
        layer_norm_eps=1e-6,
    )


def test_forward_equals_transformers_at_its_own_size(network):
    pixels = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(dpt_forward(network, pixels), network(pixels).predicted_depth)


def test_forward_of_a_plain_vit_equals_transformers():
    network = DPTForDepthEstimation(plain_vit()).eval()
    pixels = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(dpt_forward(network, pixels), network(pixels).predicted_depth)
        assert dpt_forward(network, torch.randn(1, 3, 32, 160)).shape == (1, 32, 160)


@pytest.mark.parametrize("size", [(64, 96), (96, 320), (32, 32)])
def test_rectangles_keep_their_size(network, size):
    with torch.no_grad():
        depth = dpt_forward(network, torch.randn(2, 3, *size))
    assert depth.shape == (2, *size)
    assert depth.min() >= 0


def test_a_fresh_network_is_neither_dead_nor_flat(network):
    with torch.no_grad():
        depth = dpt_forward(network, torch.randn(2, 3, 128, 128))
    assert depth.std() > 0.01 * depth.mean() > 0


@pytest.mark.parametrize(("size", "millions"), [("hybrid", 122.377985), ("large", 343.030465)])
def test_published_sizes(size, millions):
    with torch.device("meta"):
        network = build_dpt(size)
    assert sum(value.numel() for value in network.parameters()) == round(millions * 1e6)


def test_laptop_sizes_fit_git_in_half_precision():
    for size in ("tiny", "small"):
        assert sum(value.numel() for value in build_dpt(size).parameters()) * 2 <= 12e6


def test_unknown_size():
    with pytest.raises(ConfigError, match=", ".join(SIZES)):
        dpt_config("huge")


def test_folders_are_transformers_own(network, tmp_path: Path):
    save_dpt(network, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    pixels = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        expected = network(pixels).predicted_depth
        assert torch.equal(DPTForDepthEstimation.from_pretrained(tmp_path).eval()(pixels).predicted_depth, expected)
        assert torch.equal(load_dpt(tmp_path).eval()(pixels).predicted_depth, expected)


class TestBadFolders:
    def test_not_a_model(self, tmp_path: Path):
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            load_dpt(tmp_path)

    def test_truncated_weights(self, network, tmp_path: Path):
        save_dpt(network, tmp_path)
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(CheckpointError, match=str(tmp_path)):
            load_dpt(tmp_path)

    def test_weights_that_lack_a_layer(self, network, tmp_path: Path):
        from safetensors.torch import load_file, save_file

        save_dpt(network, tmp_path)
        state = load_file(tmp_path / "model.safetensors")
        del state["head.head.4.weight"]
        save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(CheckpointError, match=r"head\.head\.4\.weight"):
            load_dpt(tmp_path)


def copy_backbone(reference: nn.Module, config: DPTConfig) -> DPTModel:
    model = DPTModel(config, add_pooling_layer=False).eval()
    missing, unexpected = model.load_state_dict(vit_state_dict(reference.state_dict(), model, "timm"), strict=False)
    assert not missing
    assert not unexpected
    return model


def test_timms_vit_weights_give_timms_features():
    torch.manual_seed(0)
    reference = VisionTransformer(img_size=64, patch_size=16, embed_dim=32, depth=4, num_heads=2, num_classes=3).eval()
    nn.init.normal_(reference.pos_embed)
    model = copy_backbone(reference, plain_vit())
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels).last_hidden_state, reference.forward_features(pixels), rtol=1e-4, atol=1e-4)


def test_timms_hybrid_weights_give_timms_features():
    """The stem of timm's vit_base_r50_s16, small: a ResNet v2 without pre-activation, with standardised weights."""
    torch.manual_seed(0)
    stem = ResNetV2(
        layers=(1, 1, 1),
        channels=(64, 128, 256),
        stem_chs=64,
        num_classes=0,
        global_pool="",
        preact=False,
        stem_type="same",
        conv_layer=StdConv2dSame,
        norm_layer=partial(GroupNormAct, num_groups=16),
    )
    reference = VisionTransformer(
        img_size=128,
        embed_dim=32,
        depth=2,
        num_heads=2,
        num_classes=3,
        embed_layer=lambda **options: HybridEmbed(stem, proj=True, **{**options, "patch_size": 1}),
    ).eval()
    backbone = {**dict(SIZES["tiny"]["backbone_config"]), "embedding_size": 64, "hidden_sizes": [64, 128, 256]}
    config = dpt_config("tiny")
    options = {**config.to_dict(), "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 128}
    options["backbone_config"] = {**options["backbone_config"], **backbone, "num_groups": 16}
    options.update(layer_norm_eps=1e-6, backbone_featmap_shape=[1, 256, 8, 8])
    model = copy_backbone(reference, DPTConfig(**options))
    pixels = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels).last_hidden_state, reference.forward_features(pixels), rtol=1e-3, atol=1e-3)


def test_weights_of_another_vit_are_refused():
    reference = VisionTransformer(img_size=64, patch_size=16, embed_dim=16, depth=4, num_heads=2, num_classes=3)
    with pytest.raises(CheckpointError, match=r"timm: not weights of this backbone: embeddings\.cls_token has shape"):
        copy_backbone(reference, plain_vit())
