"""Generation: seeds, shards, resume, and what is carried over."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusionDepth2ImgPipeline
from diffusion.toy import CAPTIONS, SIZE

from alberti.data.manifest import Dataset
from alberti.diffusion.base import DepthDiffusion
from alberti.diffusion.config import SampleConfig
from alberti.diffusion.sample import generate, sample_images, solver_of, start_noise, to_uint8
from alberti.errors import ConfigError
from alberti.images import read_image, write_depth


def _config(**changes) -> SampleConfig:
    return SampleConfig(**({"steps": 3, "batch_size": 4, "guidance_scale": 3.0} | changes))


def _files(folder) -> dict:
    return {path.name: path.read_bytes() for path in sorted((folder / "images").iterdir())}


@pytest.fixture(scope="module")
def model(base_folder) -> DepthDiffusion:
    return DepthDiffusion.load(base_folder)


@pytest.fixture(scope="module")
def whole(model, toy, tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("whole") / "out"
    generate(model, toy, out, _config(), device="cpu")
    return _files(out)


def test_the_result_is_a_data_set_that_refers_to_the_conditions(model, toy, tmp_path):
    generate(model, toy, tmp_path / "out", _config(), device="cpu")
    made = Dataset.open(tmp_path / "out", check_files=True)
    assert [sample.id for sample in made] == [sample.id for sample in toy]
    for sample, source in zip(made, toy, strict=True):
        assert made.read_image(sample).shape == (SIZE, SIZE, 3)
        assert np.array_equal(made.read_depth(sample), toy.read_depth(source))
        for field in ("intrinsics", "vanishing_points", "vanishing_points_source", "caption"):
            assert getattr(sample, field) == getattr(source, field)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dataset.json", "images", "manifest.jsonl"]


def test_shards_give_the_same_bytes(model, toy, tmp_path, monkeypatch, whole):
    monkeypatch.setenv("WORLD_SIZE", "2")
    out = tmp_path / "out"
    monkeypatch.setenv("RANK", "1")
    generate(model, toy, out, _config(), device="cpu")
    assert not out.exists()
    monkeypatch.setenv("RANK", "0")
    generate(model, toy, out, _config(), device="cpu")
    assert _files(out) == whole


def test_an_interrupted_call_goes_on_per_picture(model, toy, tmp_path, monkeypatch, whole):
    import alberti.diffusion.sample as module

    original, made = module._sample_batch, []

    def interrupted(*args):
        made.append(args)
        if len(made) == 2:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(module, "_sample_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(model, toy, tmp_path / "out", _config(), work=tmp_path / "work", device="cpu")
    (partial,) = (tmp_path / "work").glob(".generate-*")
    next((partial / "images").iterdir()).unlink()
    for _ in range(2):
        made.clear()
        made.append(0)  # never reaches two
        monkeypatch.setattr(module, "_sample_batch", lambda *args: made.append(1) or original(*args))
        generate(model, toy, tmp_path / "out", _config(), work=tmp_path / "work", device="cpu")
        assert _files(tmp_path / "out") == whole


def test_batch_size_changes_at_most_rounding(model, toy, tmp_path, whole):
    generate(model, toy, tmp_path / "out", _config(batch_size=1), device="cpu")
    made = Dataset.open(tmp_path / "out")
    for sample in made:
        other = np.asarray(_decode(whole[f"{sample.id}.png"]), dtype=int)
        assert abs(made.read_image(sample).astype(int) - other).max() <= 1


def _decode(data: bytes) -> np.ndarray:
    import io

    from PIL import Image

    return np.array(Image.open(io.BytesIO(data)))


def test_noise_follows_from_seed_and_id():
    noise = start_noise(["a", "b"], 0, (4, 2, 2))
    assert torch.equal(noise[1:], start_noise(["b"], 0, (4, 2, 2)))
    assert not torch.equal(noise[1:], start_noise(["b"], 1, (4, 2, 2)))


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_loop_is_that_of_the_stock_pipeline(base_folder, toy, solver, scale):
    """The same start latents through diffusers' own call end in the same picture."""
    model = DepthDiffusion.load(base_folder)
    config = _config(solver=solver, guidance_scale=scale, negative_prompt="a tree", steps=4)
    depth = torch.from_numpy(np.stack([toy.read_depth(toy[0])]))
    ours = sample_images(model, depth, [CAPTIONS[0]], ["x"], config)
    pipe = StableDiffusionDepth2ImgPipeline.from_pretrained(base_folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = solver_of(model, config)
    noise = start_noise(["x"], config.seed, (4, SIZE // 2, SIZE // 2))
    pipe.prepare_latents = lambda *args, **options: noise  # strength 1 would mix in a trace of the image
    inverse = model.condition(depth)[:, 0]
    theirs = pipe(
        CAPTIONS[0],
        image=torch.zeros(1, 3, SIZE, SIZE),
        depth_map=inverse,
        strength=1.0,
        num_inference_steps=4,
        guidance_scale=scale,
        negative_prompt="a tree",
        output_type="pt",
    ).images
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_flat_depth_map_gives_a_picture(model):
    depth = torch.stack([torch.full((SIZE, SIZE), 10.0), torch.zeros(SIZE, SIZE)])
    images = sample_images(model, depth, ["", ""], ["a", "b"], _config())
    assert images.isfinite().all()


def test_a_flow_matching_model_is_sampled(base_folder):
    model = DepthDiffusion.load(base_folder)
    model.scheduler = FlowMatchEulerDiscreteScheduler()
    depth = torch.rand(1, SIZE, SIZE) + 1
    assert sample_images(model, depth, [""], ["a"], _config()).isfinite().all()
    with pytest.raises(ConfigError, match="flow"):
        sample_images(model, depth, [""], ["a"], _config(solver="dpm++"))


def test_sizes_are_checked_before_anything_is_made(model, toy, tmp_path):
    odd = Dataset(toy.folder, toy.info, [toy[0].model_copy(update={"width": 30})])
    with pytest.raises(ConfigError, match="width 30"):
        generate(model, odd, tmp_path / "out", _config(), device="cpu")
    assert not list(tmp_path.iterdir())


def test_pictures_are_rounded_to_the_nearest_value():
    assert to_uint8(torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4))[
        0, 0, :, 0
    ].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("kind", ["relative", "inverse"])
def test_depth_without_metres_conditions_as_metres_do(base_folder, toy, tmp_path, kind):
    """Relative depth is metres by a factor, inverse depth their inverse by a factor; neither shows in the condition."""
    model = DepthDiffusion.load(base_folder)
    samples, config = toy.samples[:2], SampleConfig(steps=2, guidance_scale=1.0, seed=0)
    rows = []
    for sample in samples:
        depth = toy.read_depth(sample)
        values = 0.8 * depth if kind == "relative" else 20 / depth
        write_depth(tmp_path / f"{sample.id}.png", values, 1000.0)
        rows.append(sample.model_copy(update={"depth": f"{sample.id}.png"}))
    info = {"root": str(toy.root), "depth_root": str(tmp_path), "depth_kind": kind, "depth_scale": 1000.0}
    other = Dataset(toy.folder, toy.info.model_copy(update=info), rows)
    plain = Dataset(toy.folder, toy.info.model_copy(update={"root": str(toy.root), "depth_root": str(toy.depth_root)}), samples)
    for name, dataset in (("metres", plain), ("other", other)):
        generate(model, dataset, tmp_path / name, config, device="cpu")
    for sample in samples:
        ours, theirs = (read_image(tmp_path / name / "images" / f"{sample.id}.png").astype(int) for name in ("other", "metres"))
        assert abs(ours - theirs).max() <= 2
    assert Dataset.open(tmp_path / "other").info.depth_kind == kind
