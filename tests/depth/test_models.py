import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from alberti.depth import DepthModel, build_depth_model
from alberti.depth.dpt import dpt_forward
from alberti.depth.models import DepthModelInfo
from alberti.errors import CheckpointError, ConfigError

BUILDS = [("dpt", None), ("dpt", "metric"), ("pixelformer", None)]


def run(model: DepthModel, images: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(images)


@pytest.mark.parametrize(("name", "kind"), BUILDS)
class TestEveryModel:
    def test_a_saved_model_predicts_the_same(self, name, kind, tmp_path: Path):
        model = build_depth_model(name, "tiny", kind=kind, max_depth=60.0, input_height=96)
        model.save(tmp_path / "model")
        loaded = DepthModel.load(tmp_path / "model")
        images = torch.rand(2, 3, 50, 70)
        assert torch.equal(run(loaded, images), run(model, images))
        assert loaded.info == model.info
        assert not loaded.training

    def test_half_precision_files_are_half_as_large_and_load_as_float32(self, name, kind, tmp_path: Path):
        model = build_depth_model(name, "tiny", kind=kind)
        model.save(tmp_path / "full")
        model.save(tmp_path / "half", dtype=torch.float16)
        sizes = [(tmp_path / part / "model.safetensors").stat().st_size for part in ("full", "half")]
        assert sizes[1] < 0.55 * sizes[0]
        loaded = DepthModel.load(tmp_path / "half")
        assert {value.dtype for value in loaded.parameters()} == {torch.float32}
        assert {value.dtype for value in model.parameters()} == {torch.float32}

    def test_sizes_between_are_padded_and_cropped(self, name, kind):
        model = build_depth_model(name, "tiny", kind=kind)
        images = torch.rand(1, 3, 50, 70)
        padded = nn.functional.pad(images, (0, 26, 0, 14), mode="replicate")
        assert run(model, images).shape == (1, 50, 70)
        torch.testing.assert_close(run(model, images), run(model, padded)[:, :50, :70], rtol=1e-4, atol=1e-4)

    def test_the_seed_decides_the_weights_and_leaves_the_global_generator(self, name, kind):
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        first, same, other = (build_depth_model(name, "tiny", kind=kind, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(torch.rand(1), expected)
        images = torch.rand(1, 3, 32, 32)
        assert torch.equal(run(first, images), run(same, images))
        assert not torch.equal(run(first, images), run(other, images))

    def test_every_trainable_weight_gets_a_gradient(self, name, kind):
        """Data parallelism would wait for the others for ever."""
        model = build_depth_model(name, "tiny", kind=kind).train()
        model(torch.rand(2, 3, 64, 64)).sum().backward()
        lacking = [key for key, value in model.named_parameters() if value.requires_grad and value.grad is None]
        assert not lacking

    def test_training_goes_on_from_a_saved_model(self, name, kind, tmp_path: Path):
        model = build_depth_model(name, "tiny", kind=kind, seed=5)
        model.save(tmp_path)
        again = build_depth_model(name, "tiny", weights=tmp_path, seed=6)
        images = torch.rand(1, 3, 64, 64)
        assert again.info == model.info
        assert torch.equal(run(again, images), run(model, images))


def test_images_are_normalised_as_each_network_expects():
    images = torch.rand(1, 3, 64, 64)
    dpt = build_depth_model("dpt", "tiny").eval()
    pixelformer = build_depth_model("pixelformer", "tiny").eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (images - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(run(dpt, images), dpt_forward(dpt.network, 2 * images - 1))
        torch.testing.assert_close(run(pixelformer, images), pixelformer.network(normalised)[:, 0])


def test_metric_dpt_is_the_inverse_of_the_output():
    model = build_depth_model("dpt", "tiny", kind="metric", max_depth=50.0)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        output = dpt_forward(model.network, 2 * images - 1)
    torch.testing.assert_close(run(model, images), 1 / (0.01 * output + 1 / 50))
    assert run(model, images).max() <= 50.0001


def test_a_plain_transformers_folder_is_relative(tmp_path: Path):
    build_depth_model("dpt", "tiny").network.save_pretrained(tmp_path)
    assert DepthModel.load(tmp_path).kind == "inverse_relative"


def test_max_depth_of_a_loaded_pixelformer_can_change(tmp_path: Path):
    build_depth_model("pixelformer", "tiny", max_depth=80.0).save(tmp_path)
    model = build_depth_model("pixelformer", "tiny", max_depth=10.0, weights=tmp_path)
    assert run(model, torch.rand(1, 3, 64, 64)).max() <= 10.0


def test_pixelformer_weights_from_a_checkpoint_file(tmp_path: Path):
    model = build_depth_model("pixelformer", "tiny", seed=4)
    torch.save({"model": model.network.state_dict()}, tmp_path / "model.pth")
    again = build_depth_model("pixelformer", "tiny", weights=tmp_path / "model.pth")
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(run(again, images), run(model, images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("midas", "tiny"), "expected one of dpt, pixelformer"),
        (("dpt", "huge"), "expected one of large, hybrid"),
        (("pixelformer", "huge"), "expected one of tiny07"),
    ],
)
def test_unknown_names(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_depth_model(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "disparity"}, "kind: expected one of metric"),
        ({"kind": "inverse_relative"}, "PixelFormer predicts metric"),
        ({"max_depth": -1.0}, "max_depth"),
        ({"heads": 3}, "unknown PixelFormer options heads"),
        ({"revision": "main"}, "revision"),
        ({"backbone_weights": "timm"}, "backbone_weights: none exist for pixelformer tiny"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        build_depth_model("pixelformer", "tiny", **options)


def test_a_dpt_of_another_size_is_refused(tmp_path: Path):
    build_depth_model("dpt", "tiny").save(tmp_path)
    with pytest.raises(CheckpointError, match="not a DPT of size small: hidden_size is 96, expected 192"):
        build_depth_model("dpt", "small", weights=tmp_path)


class TestBadFolders:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        build_depth_model("pixelformer", "tiny").save(tmp_path)
        return tmp_path

    def test_nothing_there(self, tmp_path: Path):
        with pytest.raises(CheckpointError, match="no such model folder"):
            DepthModel.load(tmp_path / "none")
        with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
            DepthModel.load(tmp_path)

    def test_truncated_weights(self, folder: Path):
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            DepthModel.load(folder)

    def test_no_sidecar(self, folder: Path):
        (folder / "depth_model.json").unlink()
        with pytest.raises(CheckpointError, match=r"depth_model\.json: no such file"):
            DepthModel.load(folder)

    @pytest.mark.parametrize(
        ("file", "change", "message"),
        [
            ("config.json", {"bins": 32}, r"bcp\.fc2"),
            ("config.json", {"surprise": 1}, "surprise"),
            ("config.json", {"model_type": "vit"}, "model_type 'vit'"),
            ("depth_model.json", {"format": 9}, "format 1"),
            ("depth_model.json", {"kind": "depth"}, "kind"),
            ("depth_model.json", {"surprise": 1}, "surprise"),
        ],
    )
    def test_changed_files(self, folder: Path, file, change, message):
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**values, **change}))
        with pytest.raises(CheckpointError, match=message):
            DepthModel.load(folder)

    def test_a_file_that_is_no_pixelformer(self, tmp_path: Path):
        torch.save({"weight": torch.zeros(1)}, tmp_path / "model.pth")
        with pytest.raises(CheckpointError, match="not weights of a published PixelFormer"):
            DepthModel.load(tmp_path / "model.pth")


def test_info_refuses_unknown_names():
    with pytest.raises(ConfigError, match="name"):
        DepthModelInfo(name="midas", size="tiny", kind="metric")


def test_images_of_another_shape_are_named():
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), got \(3, 8, 8\)"):
        build_depth_model("dpt", "tiny")(torch.zeros(3, 8, 8))


@pytest.mark.parametrize("name", ["a.png", "a.txt", "a.pth"])
def test_what_is_no_checkpoint_is_said_so_without_torch_s_advice(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(CheckpointError, match="not a checkpoint") as told:
        DepthModel.load(tmp_path / name)
    assert "weights_only" not in str(told.value)


def test_objects_in_a_checkpoint_are_named_without_torch_s_advice(tmp_path):
    torch.save({"model": Path("x")}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"pathlib.*could run code") as told:
        DepthModel.load(tmp_path / "a.pth")
    assert "weights_only" not in str(told.value)


def test_a_dpt_saved_as_a_variant_is_read_and_pickled_weights_are_told_of(tmp_path):
    model = build_depth_model("dpt", "tiny")
    model.save(tmp_path / "model")
    (tmp_path / "model/model.safetensors").rename(tmp_path / "model/model.fp16.safetensors")
    assert DepthModel.load(tmp_path / "model").kind == model.kind
    (tmp_path / "model/model.fp16.safetensors").rename(tmp_path / "model/pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"found only pytorch_model\.bin, which would have to be unpickled"):
        DepthModel.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("key", "value"), [("max_depth", "far"), ("max_depth", -1), ("inverse_scale", 0), ("input_height", 3.5), ("kind", ["x"])]
)
def test_a_sidecar_with_odd_values_is_refused(tmp_path, key, value):
    build_depth_model("dpt", "tiny").save(tmp_path)
    path = tmp_path / "depth_model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(CheckpointError, match=rf"depth_model\.json: {key}"):
        DepthModel.load(tmp_path)
