"""score-depth: a model folder and a folder of frames in, the same files out as evaluation in Python."""

import json

import numpy as np
import pytest
from native_layouts import kitti_noise

from alberti.commands.score_depth import score_depth
from alberti.depth.models import build_depth_model
from alberti.depth.predict import predict_batch
from alberti.errors import ConfigError
from alberti.metrics.test_frames import evaluate_test_set
from alberti.metrics.test_sets import TestSet


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    root = tmp_path_factory.mktemp("score")
    frames = kitti_noise(root / "kitti", 3, np.random.default_rng(0))
    (root / "list.txt").write_text("".join(frame.line() + "\n" for frame in frames))
    model = build_depth_model("dpt", "tiny", seed=3)
    model.save(root / "model")
    return root, model.eval()


def test_it_writes_an_evaluation_for_each_alignment(given, tmp_path, capsys):
    root, model = given
    both = ["affine_disparity", "weighted_disparity"]
    score_depth(
        root / "model", root / "kitti", tmp_path / "made.json",
        split=root / "list.txt", protocol="eigen_no_crop", align=both, size="64x32", device="cpu",
    )  # fmt: skip
    test = TestSet(
        layout="kitti", root=str(root / "kitti"), split=str(root / "list.txt"), protocol="eigen_no_crop",
        alignments={"dpt": tuple(both)}, height=32, width=64,
    )  # fmt: skip
    expected = evaluate_test_set(test, lambda images: predict_batch(model, images), "dpt")
    for alignment, name in zip(both, ("made.json", "made.weighted_disparity.json"), strict=True):
        found = json.loads((tmp_path / name).read_text())
        assert found["alignment"] == alignment
        assert found["abs_rel"] == pytest.approx(expected[alignment].summary["abs_rel"], rel=1e-6)
        assert (tmp_path / name).with_suffix(".csv").is_file()
    assert f"{expected['affine_disparity'].summary['abs_rel']:.4f}" in capsys.readouterr().out


def test_relative_models_are_aligned_in_disparity_by_default_and_bad_options_are_named(given, tmp_path):
    root, _ = given
    options = {"split": root / "list.txt", "protocol": "eigen_no_crop", "device": "cpu"}
    score_depth(root / "model", root / "kitti", tmp_path / "made.json", **options)
    assert json.loads((tmp_path / "made.json").read_text())["alignment"] == "affine_disparity"
    with pytest.raises(ConfigError, match="--size: expected WIDTHxHEIGHT"):
        score_depth(root / "model", root / "kitti", tmp_path / "made.json", size="96", **options)
    with pytest.raises(ConfigError, match="--layout: expected one of kitti"):
        score_depth(root / "model", root / "kitti", tmp_path / "made.json", layout="nyu", **options)
    with pytest.raises(ConfigError, match=r"ends in \.json"):
        score_depth(root / "model", root / "kitti", tmp_path / "made", **options)
