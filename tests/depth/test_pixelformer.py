import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from alberti.depth import PixelFormer
from alberti.depth.pixelformer import BinCentres, DepthHead
from alberti.errors import CheckpointError, ConfigError


def listing(model: nn.Module) -> tuple[int, str]:
    """Number of entries of the state dict, and a hash of its sorted names and shapes."""
    lines = sorted(f"{key}:{','.join(map(str, value.shape))}\n" for key, value in model.state_dict().items())
    return len(lines), hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize(
    ("variant", "millions", "entries", "digest"),
    [
        ("tiny07", 88.906326, 329, "b5cf1f4f10eb051dbe4c06b9b4c43b403704120aed8f895561f47dc9d096fc85"),
        ("large07", 270.895920, 497, "b736278a8abdadbfd18260d2ae11d9d24b978489b7fbf25c587a6078b33e1899"),
    ],
)
def test_published_variants_have_the_keys_and_shapes_of_their_checkpoints(variant, millions, entries, digest):
    with torch.device("meta"):
        model = PixelFormer.from_variant(variant)
    assert sum(value.numel() for value in model.parameters()) == round(millions * 1e6)
    assert listing(model) == (entries, digest)


def test_laptop_sizes_fit_git_in_half_precision():
    for variant in ("tiny", "small"):
        model = PixelFormer.from_variant(variant)
        assert sum(value.numel() for value in model.state_dict().values()) * 2 <= 12e6


@pytest.fixture
def model() -> PixelFormer:
    torch.manual_seed(0)
    return PixelFormer.from_variant("tiny", max_depth=50.0).eval()


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (31, 33), (96, 320)])
def test_depth_has_the_size_of_the_picture_and_lies_in_the_range(model, size):
    with torch.no_grad():
        depth = model(torch.randn(2, 3, *size))
    assert depth.shape == (2, 1, *size)
    assert depth.min() >= 0.1
    assert depth.max() <= 50.0


def test_a_size_between_equals_the_padded_picture_cropped(model):
    images = torch.randn(1, 3, 50, 70)
    padded = nn.functional.pad(images, (0, 26, 0, 14), mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(model(images), model(padded)[..., :50, :70])


def test_bin_centres_of_equal_widths():
    centres = BinCentres(4, 5, min_depth=1.0, max_depth=11.0)
    nn.init.zeros_(centres.fc2.weight)
    nn.init.zeros_(centres.fc2.bias)
    found = centres(torch.randn(2, 4, 3, 3))
    assert found.shape == (2, 5, 1, 1)
    torch.testing.assert_close(found[0].flatten(), torch.tensor([2.0, 4.0, 6.0, 8.0, 10.0]))


def test_bin_centres_by_hand():
    centres = BinCentres(4, 3, min_depth=0.0001, max_depth=10.0001)
    nn.init.zeros_(centres.fc2.weight)
    centres.fc2.bias.data = torch.tensor([0.2, 0.3, 0.5]).log()
    torch.testing.assert_close(centres(torch.randn(1, 4, 2, 2)).flatten(), torch.tensor([1.0, 3.5, 7.5]), rtol=1e-4, atol=1e-3)


def test_depth_is_the_mean_of_the_centres_under_the_softmax():
    head = DepthHead(2, 3)
    nn.init.zeros_(head.conv1.weight)
    head.conv1.bias.data = torch.tensor([0.25, 0.25, 0.5]).log()
    depth = head(torch.randn(1, 2, 4, 4), torch.tensor([4.0, 8.0, 10.0]).view(1, 3, 1, 1))
    torch.testing.assert_close(depth, torch.full((1, 1, 4, 4), 8.0))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrap", [True, False])
def test_checkpoints_load_with_and_without_prefix_and_wrapper(model, tmp_path: Path, prefix, wrap):
    state = {prefix + key: value for key, value in model.state_dict().items()}
    torch.save({"model": state, "global_step": 7} if wrap else state, tmp_path / "model.pth")
    loaded = PixelFormer.from_checkpoint(tmp_path / "model.pth", "tiny", max_depth=50.0)
    assert not loaded.training
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))


def test_safetensors_in_half_precision_load_as_float32(model, tmp_path: Path):
    halves = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    save_file(halves, tmp_path / "model.safetensors")
    loaded = PixelFormer.from_checkpoint(tmp_path / "model.safetensors", "tiny")
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}


def test_max_depth_scales_the_bins(model, tmp_path: Path):
    torch.save(model.state_dict(), tmp_path / "model.pth")
    near, far = (PixelFormer.from_checkpoint(tmp_path / "model.pth", "tiny", max_depth=m) for m in (10.0, 80.0))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        shares = [(m(images) - 0.1) / (m.bcp.max_depth - 0.1) for m in (near, far)]
    torch.testing.assert_close(shares[0], shares[1], rtol=1e-4, atol=1e-5)


def test_the_kind_of_pooling_norm_is_read_from_the_checkpoint(tmp_path: Path):
    torch.save(PixelFormer.from_variant("tiny", pool_norm="batch").state_dict(), tmp_path / "batch.pth")
    torch.save(PixelFormer.from_variant("tiny", pool_norm="group").state_dict(), tmp_path / "group.pth")
    for kind in ("batch", "group"):
        assert PixelFormer.from_checkpoint(tmp_path / f"{kind}.pth", "tiny").config.pool_norm == kind


class TestBadCheckpoints:
    def test_missing_file(self, tmp_path: Path):
        with pytest.raises(CheckpointError, match=r"none\.pth: no such"):
            PixelFormer.from_checkpoint(tmp_path / "none.pth")

    def test_missing_unexpected_and_misshapen_keys_are_named(self, model, tmp_path: Path):
        state = model.state_dict()
        del state["bcp.fc1.bias"]
        state["extra"] = torch.zeros(1)
        state["disp_head1.conv1.bias"] = torch.zeros(3)
        torch.save(state, tmp_path / "model.pth")
        with pytest.raises(CheckpointError) as error:
            PixelFormer.from_checkpoint(tmp_path / "model.pth", "tiny")
        for part in ("missing bcp.fc1.bias", "unexpected extra", "disp_head1.conv1.bias has shape (3,)", "model.pth"):
            assert part in str(error.value)

    def test_another_variant_is_named(self, tmp_path: Path):
        torch.save({"backbone.patch_embed.proj.weight": torch.zeros(96, 3, 4, 4)}, tmp_path / "model.pth")
        with pytest.raises(CheckpointError, match="weights of tiny07, not of large07"):
            PixelFormer.from_checkpoint(tmp_path / "model.pth")

    def test_code_in_a_pickle_does_not_run(self, tmp_path: Path):
        trap = tmp_path / "sprung"

        class Trap:
            def __reduce__(self):
                return (Path.touch, (trap,))

        (tmp_path / "plain.pth").write_bytes(pickle.dumps({"model": Trap()}, protocol=2))
        torch.save({"model": Trap()}, tmp_path / "torch.pth")
        for name in ("plain.pth", "torch.pth"):
            with pytest.raises(CheckpointError, match="refused"):
                PixelFormer.from_checkpoint(tmp_path / name)
        assert not trap.exists()

    def test_a_truncated_file_is_damaged(self, model, tmp_path: Path):
        torch.save(model.state_dict(), tmp_path / "model.pth")
        whole = (tmp_path / "model.pth").read_bytes()
        (tmp_path / "model.pth").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "model.safetensors").write_bytes(whole[:100])
        for name in ("model.pth", "model.safetensors"):
            with pytest.raises(CheckpointError, match=name):
                PixelFormer.from_checkpoint(tmp_path / name, "tiny")

    def test_no_state_dict(self, tmp_path: Path):
        torch.save({"model": [1, 2]}, tmp_path / "model.pth")
        with pytest.raises(CheckpointError, match="expected a state dict"):
            PixelFormer.from_checkpoint(tmp_path / "model.pth")


def test_unknown_names_and_options_are_errors():
    with pytest.raises(ConfigError, match="expected one of tiny07"):
        PixelFormer.from_variant("huge07")
    with pytest.raises(ConfigError, match="unknown PixelFormer options bin"):
        PixelFormer.from_variant("tiny", bin=3)
    with pytest.raises(ConfigError, match="min_depth < max_depth"):
        PixelFormer.from_variant("tiny", max_depth=0.05)
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        PixelFormer.from_variant("tiny")(torch.zeros(1, 1, 32, 32))


def test_a_batch_of_one_trains_with_batch_norm():
    model = PixelFormer.from_variant("tiny", pool_norm="batch").train()
    before = model.decoder.psp_modules[0][1].bn.running_mean.clone()
    model(torch.randn(1, 3, 64, 64)).mean().backward()
    assert torch.equal(model.decoder.psp_modules[0][1].bn.running_mean, before)
    assert all(value.grad is not None for value in model.parameters() if value.requires_grad)
