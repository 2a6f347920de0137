import pytest
import torch
from timm.models.swin_transformer import SwinTransformer

from alberti.depth.swin import SwinBackbone, backbone_state_dict, from_windows, shift_mask, to_windows
from alberti.errors import CheckpointError

DEPTHS, HEADS = [2, 2, 2, 2], [1, 2, 4, 8]


def small_timm_swin() -> SwinTransformer:
    """At 256 pixels no feature map is smaller than two windows: on smaller ones timm drops the shift."""
    torch.manual_seed(0)
    return SwinTransformer(
        img_size=256, window_size=4, embed_dim=16, depths=DEPTHS, num_heads=HEADS, drop_path_rate=0.0, num_classes=3
    ).eval()


def timm_features(reference: SwinTransformer, images: torch.Tensor) -> list[torch.Tensor]:
    """What leaves each stage, before the next one's patch merging."""
    features = []
    x = reference.patch_embed(images)
    for stage in reference.layers:
        x = stage(x)
        features.append(x)
    return features


def test_features_equal_timms_with_timms_weights():
    reference = small_timm_swin()
    backbone = SwinBackbone(16, DEPTHS, HEADS, window=4, drop_path=0.0).eval()
    missing, unexpected = backbone.load_state_dict(backbone_state_dict(reference.state_dict(), backbone, "timm"), strict=False)
    assert not unexpected
    assert all(key.startswith("norm") or key.endswith("relative_position_index") for key in missing)
    images = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        found = backbone(images)
        for index, expected in enumerate(timm_features(reference, images)):
            normalised = torch.nn.functional.layer_norm(expected, expected.shape[-1:]).permute(0, 3, 1, 2)
            torch.testing.assert_close(found[index], normalised, rtol=1e-4, atol=1e-4)


def test_weights_in_the_authors_names_are_taken_as_they_are():
    backbone = SwinBackbone(16, DEPTHS, HEADS, window=4, drop_path=0.0)
    state = {**backbone.state_dict(), "head.weight": torch.zeros(3, 128), "norm.weight": torch.zeros(128)}
    found = backbone_state_dict(state, backbone, "file")
    assert "layers.0.downsample.reduction.weight" in found
    assert not any(key.startswith(("head", "norm")) for key in found)


def test_weights_of_another_swin_are_refused():
    backbone = SwinBackbone(24, DEPTHS, [1, 2, 4, 8], window=4, drop_path=0.0)
    with pytest.raises(CheckpointError, match=r"timm: .*patch_embed.proj.weight has shape \(16, 3, 4, 4\)"):
        backbone_state_dict(small_timm_swin().state_dict(), backbone, "timm")


def test_windows_round_trip():
    x = torch.randn(2, 8, 12, 5)
    windows = to_windows(x, 4)
    assert windows.shape == (2 * 2 * 3, 16, 5)
    torch.testing.assert_close(windows[1], x[0, :4, 4:8].reshape(16, 5))
    torch.testing.assert_close(from_windows(windows, 4, 8, 12), x)


def test_shift_mask_parts_what_the_shift_joined():
    # 8x8, windows of 4, shift 2: the first window is whole, the last one has four parts of 2x2.
    mask = shift_mask(8, 8, 4, 2, torch.device("cpu"))
    assert mask.shape == (4, 16, 16)
    assert not mask[0].any()
    assert (mask[3] == 0).sum() == 4 * 4 * 4
    assert set(mask.unique().tolist()) == {-100.0, 0.0}


@pytest.mark.parametrize("size", [(33, 70), (4, 4), (64, 96)])
def test_any_size_runs_and_halves_rounded_up(size):
    backbone = SwinBackbone(16, [1, 1, 1, 1], HEADS, window=7, drop_path=0.0).eval()
    features = backbone(torch.randn(1, 3, *size))
    expected = [-(-side // 4) for side in size]
    for index, feature in enumerate(features):
        assert feature.shape == (1, 16 * 2**index, *expected)
        expected = [-(-side // 2) for side in expected]
