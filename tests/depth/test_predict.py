import json
from pathlib import Path

import numpy as np
import pytest
import torch

from alberti.depth import DepthModel, PredictOptions, build_depth_model, predict_array, predict_batch, predict_folder
from alberti.errors import ConfigError, DataError
from alberti.images import write_image


@pytest.fixture(scope="module")
def model() -> DepthModel:
    return build_depth_model("pixelformer", "tiny").eval()


def picture(height: int = 48, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_an_array_is_the_models_forward(model):
    image = picture()
    with torch.no_grad():
        expected = model(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0]
    found = predict_array(model, image)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.numpy())


def test_a_batch_equals_its_pictures(model):
    images = [picture(seed=seed) for seed in range(3)]
    for image, depth in zip(images, predict_batch(model, images), strict=True):
        np.testing.assert_allclose(depth, predict_array(model, image), rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="one size"):
        predict_batch(model, [picture(), picture(32, 32)])


def test_flip_averaging_commutes_with_mirroring(model):
    image = picture(64, 96)
    options = PredictOptions(flip=True)
    mirrored = predict_array(model, np.ascontiguousarray(image[:, ::-1]), options)
    np.testing.assert_allclose(mirrored[:, ::-1], predict_array(model, image, options), rtol=1e-5, atol=1e-4)
    assert not np.allclose(predict_array(model, image), predict_array(model, image, options))


def test_predictions_of_resized_pictures_have_the_pictures_size(model):
    assert predict_array(model, picture(50, 70), PredictOptions(input_height=96)).shape == (50, 70)
    tall = build_depth_model("pixelformer", "tiny", input_height=64)
    assert predict_array(tall, picture(128, 300)).shape == (128, 300)


def test_the_benchmark_crop_is_predicted_and_its_border_repeated(model):
    image = picture(370, 1224)
    whole = predict_array(model, image, PredictOptions(kb_crop=True))
    inside = predict_array(model, image[18:, 4:1220])
    np.testing.assert_array_equal(whole[18:, 4:1220], inside)
    np.testing.assert_array_equal(whole[:18, 4:1220], np.broadcast_to(inside[:1], (18, 1216)))
    np.testing.assert_array_equal(whole[18:, 1220:], np.broadcast_to(inside[:, -1:], (352, 4)))
    with pytest.raises(DataError, match="benchmark crop"):
        predict_array(model, picture(), PredictOptions(kb_crop=True))


def test_prediction_leaves_the_mode_of_the_model(model):
    model.train()
    predict_array(model, picture())
    assert model.training
    model.eval()


class TestFolder:
    @pytest.fixture
    def images(self, tmp_path: Path) -> list[tuple[str, Path]]:
        named = []
        for index, size in enumerate([(48, 80), (48, 80), (64, 64)]):
            path = tmp_path / "images" / f"{index}.png"
            write_image(path, picture(*size, seed=index))
            named.append((f"sub/{index}", path))
        return named

    def test_a_file_a_picture_and_a_sidecar(self, model, images, tmp_path: Path):
        out = tmp_path / "out"
        assert predict_folder(model, images, out, batch_size=2, model_name="m") == 3
        for index, (name, _) in enumerate(images):
            depth = np.load(out / f"{name}.npy")
            assert depth.dtype == np.float32
            np.testing.assert_allclose(depth, predict_array(model, picture(*depth.shape, seed=index)), rtol=1e-4, atol=1e-3)
        sidecar = json.loads((out / "predictions.json").read_text())
        assert (sidecar["kind"], sidecar["unit"], sidecar["model"]) == ("metric", "metre", "m")
        assert not list(out.rglob("*.tmp"))

    def test_relative_predictions_say_so(self, images, tmp_path: Path):
        predict_folder(build_depth_model("dpt", "tiny"), images, tmp_path / "out")
        sidecar = json.loads((tmp_path / "out/predictions.json").read_text())
        assert sidecar["kind"] == "inverse_relative"
        assert "scale and shift" in sidecar["unit"]

    def test_an_interrupted_call_goes_on(self, model, images, tmp_path: Path, capsys):
        broken = [*images[:2], ("bad", tmp_path / "missing.png")]
        with pytest.raises(DataError, match="1 of 3 pictures could not be read"):
            predict_folder(model, broken, tmp_path / "out")
        assert capsys.readouterr().err.count("missing.png") == 1
        assert predict_folder(model, images, tmp_path / "out") == 1
        assert predict_folder(model, images, tmp_path / "out") == 0

    def test_predictions_made_otherwise_are_not_mixed_in(self, model, images, tmp_path: Path):
        predict_folder(model, images, tmp_path / "out")
        with pytest.raises(DataError, match="another model or of other options"):
            predict_folder(model, images, tmp_path / "out", PredictOptions(flip=True))
        with pytest.raises(DataError, match="another model or of other options"):
            predict_folder(build_depth_model("pixelformer", "tiny", seed=1), images, tmp_path / "out")
        (tmp_path / "out/predictions.json").unlink()
        with pytest.raises(DataError, match=r"no predictions\.json"):
            predict_folder(model, images, tmp_path / "out")

    def test_a_prediction_that_is_not_finite_is_an_error(self, images, tmp_path: Path):
        broken = build_depth_model("pixelformer", "tiny")
        torch.nn.init.constant_(broken.network.bcp.fc2.bias, torch.nan)
        with pytest.raises(DataError, match=r"sub/0: .*not finite"):
            predict_folder(broken, images, tmp_path / "out")
        assert not list((tmp_path / "out").rglob("*.npy"))

    def test_names_must_be_unique_and_there_must_be_some(self, model, images, tmp_path: Path):
        with pytest.raises(DataError, match=r"sub/0\.npy"):
            predict_folder(model, [images[0], images[0]], tmp_path / "out")
        with pytest.raises(DataError, match="no images"):
            predict_folder(model, [], tmp_path / "out")
        with pytest.raises(ConfigError, match="batch_size"):
            predict_folder(model, images, tmp_path / "out", batch_size=0)
