"""The rehearsal of the paper profile: its files are the data sets' and the hub's own, and every stage runs on them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from alberti.data.manifest import Dataset
from alberti.data.scenes import RenderedScene, SceneConfig, render_scenes
from alberti.data.sources import open_source, write_source
from alberti.errors import ConfigError, DataError
from alberti.files import write_json
from alberti.geometry.vanishing_points import angles_between_points
from alberti.images import write_image
from pipeline.rehearsal.__main__ import _is_of_depth, main
from pipeline.rehearsal.checks import check_out
from pipeline.rehearsal.layouts import write_holicity_lists, write_holicity_view, write_synthia_al, write_vkitti2
from pipeline.rehearsal.params import rehearsal_params
from pipeline.rehearsal.sizes import PAPER, TINY
from pipeline.rehearsal.weights import SD2_NETWORKS, write_sd2_depth
from pipeline.units import chosen, read_units


@pytest.fixture(scope="module")
def scenes() -> list[RenderedScene]:
    return list(render_scenes(["a", "b"], 5, SceneConfig(width=96, height=64, supersample=1)))


def read(name: str, root: Path, out: Path, **options: object) -> Dataset:
    out.mkdir()
    return write_source(open_source(name, root, **options), out, role="train")


# --- data sets: what was rendered comes back through the readers


def test_holicity(tmp_path: Path) -> None:
    scenes = list(render_scenes(["a", "b"], 5, SceneConfig(width=64, height=64, supersample=1)))
    root = tmp_path / "root"
    first = write_holicity_view(root, "2008-07", "abcdefghijklmnopqrst_u_LD_012_40", scenes[0])
    second = write_holicity_view(root, "2009-01", "tsrqponmlkjihgfedcba_u_LD_130_00", scenes[1], with_label=False)
    write_holicity_lists(root, {"train": [first], "valid": [second]}, {first: "a street"})
    everything = read("holicity", root, tmp_path / "all")
    assert [(sample.split, sample.caption) for sample in everything] == [("train", "a street"), ("valid", None)]
    (sample,) = read("holicity", root, tmp_path / "train", split="train")
    assert sample.intrinsics == pytest.approx(scenes[0].camera.intrinsics)
    np.testing.assert_array_equal(everything.read_depth(sample), scenes[0].depth)
    errors = angles_between_points(scenes[0].vanishing_points, np.array(sample.vanishing_points), scenes[0].camera).min(axis=1)
    assert errors.max() < 1e-4
    assert everything[1].vanishing_points is None


def test_vkitti2(tmp_path: Path, scenes: list[RenderedScene]) -> None:
    write_vkitti2(tmp_path / "root", "Scene01", "clone", scenes)
    dataset = read("vkitti2", tmp_path / "root", tmp_path / "out")
    for sample, scene in zip(dataset, scenes, strict=True):
        assert sample.intrinsics == pytest.approx(scene.camera.intrinsics)
        depth = dataset.read_depth(sample)
        np.testing.assert_array_equal(depth == 0, scene.depth == 0)
        np.testing.assert_allclose(depth, scene.depth, atol=0.0051)


def test_synthia_al(tmp_path: Path, scenes: list[RenderedScene]) -> None:
    write_synthia_al(tmp_path / "root", "train", "sequence/date", scenes)
    dataset = read("synthia_al", tmp_path / "root", tmp_path / "out")
    for sample, scene in zip(dataset, scenes, strict=True):
        assert sample.intrinsics == pytest.approx(scene.camera.intrinsics)
        np.testing.assert_allclose(dataset.read_depth(sample), scene.depth, atol=2e-4)
        np.testing.assert_array_equal(dataset.read_image(sample), scene.image)


# --- weights


def test_the_networks_have_the_published_sizes() -> None:
    # Stable Diffusion 2's UNet has 865,910,724 parameters; depth as a fifth input adds 320 filters of 3 x 3.
    expected = {"unet": 865_910_724 + 320 * 9, "vae": 83_653_863, "text_encoder": 340_387_840}
    for name, build in SD2_NETWORKS.items():
        with torch.device("meta"):
            assert sum(value.numel() for value in build(PAPER).parameters()) == expected[name]


def test_a_folder_of_2022_loads_and_is_saved_for_todays_diffusers(tmp_path: Path) -> None:
    from diffusers import StableDiffusionDepth2ImgPipeline

    from alberti.diffusion.model import DepthDiffusion

    torch.manual_seed(0)
    write_sd2_depth(tmp_path / "hub", TINY, "cpu")
    model = DepthDiffusion.load(tmp_path / "hub", prediction_type="epsilon")
    assert model.tokenize(["a street"]).shape == (1, 77)
    assert int(model.tokenize(["a street"]).max()) < TINY.text["vocab_size"]
    model.save(tmp_path / "saved")
    pipe = StableDiffusionDepth2ImgPipeline.from_pretrained(tmp_path / "saved")
    for ours, theirs in ((model.vae, pipe.vae), (model.text_encoder, pipe.text_encoder)):
        for value, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(value, other)


# --- checks


def test_checks_refuse_what_is_not_whole(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not written"):
        check_out(tmp_path / "nothing")
    (tmp_path / "bad.json").write_text('{"n": 3, "table": [{"loss": NaN}]}')
    with pytest.raises(DataError, match=r"table\.loss: nan"):
        check_out(tmp_path / "bad.json")
    (tmp_path / "bad.csv").write_text("step,loss\n1,2.5\n2,inf\n")
    with pytest.raises(DataError, match="line 3: loss: inf"):
        check_out(tmp_path / "bad.csv")
    write_json(tmp_path / "good.json", {"loss": 0.25, "none": None})
    assert check_out(tmp_path / "good.json") == "loss 0.25"


def test_checks_refuse_a_picture_of_one_colour(tmp_path: Path, scenes: list[RenderedScene]) -> None:
    write_synthia_al(tmp_path / "root", "train", "sequence/date", scenes)
    read("synthia_al", tmp_path / "root", tmp_path / "out")
    assert check_out(tmp_path / "out") == "2 x 96x64"
    write_image(tmp_path / "root/train/sequence/date/RGB/000000.png", np.full((64, 96, 3), 127, np.uint8))
    read("synthia_al", tmp_path / "root", tmp_path / "again")
    with pytest.raises(DataError, match="000000"):
        check_out(tmp_path / "again")


# --- the run


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["--tiny", "--out", str(tmp_path)]) == 1
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_every_stage_of_the_paper_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "out"
    code = main(["--tiny", "--jobs", "2", "--out", str(out), "--json", str(tmp_path / "table.json")])
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row for row in rows if row["status"] != "ok"] == []
    assert code == 0
    stages = {row["unit"].partition("@")[0] for row in rows}
    assert stages >= {"watch", "prepare", "annotate", "base", "finetune", "generate", "base_depth", "finetune_depth", "report"}
    assert any(row["unit"] == "generate@guided-0" for row in rows)
    assert (out / "report" / "index.html").is_file()
    condition = Dataset.open(out / "data" / "condition")
    assert {sample.id.split("_")[0] for sample in condition} == {"vkitti2", "synthia"}
    captions = [sample.caption for sample in Dataset.open(out / "data" / "train")]
    assert sum((caption or "").startswith("word") for caption in captions) == 1  # BLIP's, of the view without one
    shutil.rmtree(out)


def test_the_depth_models_alone(project: Path, tmp_path: Path) -> None:
    values = rehearsal_params(project, tmp_path, TINY, ["constrained"])
    assert set(values["arms"]) == {"constrained"}
    assert values["finetune_depth"]["arms"] == ["base", "constrained"]
    units = read_units(project, values)
    found = {unit.id for unit in chosen(units, [unit.id for unit in units if _is_of_depth(unit)])}
    assert {f"evaluate_depth@{model}-original" for model in ("dpt", "pixelformer")} <= found
    assert "finetune_depth@dpt-kitti-0" in found
    assert not any(unit.startswith(("finetune@", "generate@")) for unit in found)
    with pytest.raises(ConfigError, match="--arms nosuch: no such arm; there are unconstrained"):
        rehearsal_params(project, tmp_path, TINY, ["nosuch"])
