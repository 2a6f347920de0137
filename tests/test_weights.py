"""Weights from files: aligned memory of their own, so that a loaded model gives the bits of the one that was saved."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from diffusion.toy import CAPTIONS, SIZE, TINY
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alberti.checkpoints import Checkpoints
from alberti.depth import DepthModel, build_depth_model
from alberti.diffusion.base import BaseConfig, DepthDiffusion, build_small_base
from alberti.weights import own_weights, read_tensors, read_weights, weights_hash

ALIGNMENT = 64


def unaligned(tensors: Iterable[Tensor]) -> int:
    return sum(value.data_ptr() % ALIGNMENT != 0 for value in tensors)


def state_of(*networks: nn.Module) -> list[Tensor]:
    return [value for network in networks for value in (*network.parameters(), *network.buffers()) if value.numel()]


@pytest.mark.parametrize(("name", "kind"), [("dpt", "metric"), ("dpt", "inverse_relative"), ("pixelformer", None)])
def test_a_loaded_depth_model_gives_the_same_bits(name: str, kind: str | None, tmp_path: Path) -> None:
    model = build_depth_model(name, "tiny", kind=kind).eval()
    model.save(tmp_path / "model")
    loaded = DepthModel.load(tmp_path / "model")
    again = build_depth_model(name, "tiny", kind=kind, weights=tmp_path / "model").eval()
    images = torch.rand(2, 3, 64, 96)
    for other in (loaded, again):
        assert unaligned(state_of(other)) == 0
        assert weights_hash(other) == weights_hash(model)
        with torch.no_grad():
            assert torch.equal(other(images), model(images))


def test_a_loaded_diffusion_model_gives_the_same_bits(tmp_path: Path) -> None:
    model = build_small_base(BaseConfig.smoke(**TINY), CAPTIONS)
    for module in model.modules().values():
        module.eval()
    model.save(tmp_path / "model")
    loaded = DepthDiffusion.load(tmp_path / "model")
    assert unaligned(state_of(*loaded.modules().values())) == 0
    for name, network in model.modules().items():
        assert weights_hash(loaded.modules()[name]) == weights_hash(network), name
    images, depth = torch.rand(2, 3, SIZE, SIZE), 1 + torch.rand(2, SIZE, SIZE)
    with torch.no_grad():
        results = []
        for one in (model, loaded):
            latents, text = one.encode_image(images)[0], one.encode_text(CAPTIONS[:2])
            predicted = one.denoiser()(latents, torch.tensor([10, 900]), text, one.condition(depth))
            results.append((predicted, one.decode(latents)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_what_is_read_is_aligned_where_the_file_is_not(tmp_path: Path) -> None:
    values = {"a": torch.rand(3), "b": torch.rand(5, 7), "c": torch.rand(11)}
    save_file(values, tmp_path / "values.safetensors")
    torch.save({"model": values}, tmp_path / "values.pth")
    assert unaligned(load_file(tmp_path / "values.safetensors").values()), "this safetensors aligns: is the copy still needed?"
    for read in (read_tensors(tmp_path / "values.safetensors"), read_weights(tmp_path / "values.pth")):
        assert unaligned(read.values()) == 0
        assert all(torch.equal(read[name], value) for name, value in values.items())


def test_optimizer_states_of_a_checkpoint_are_aligned(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, {"run": 1})
    store.save(3, {"model": {"w": torch.rand(5)}, "optimizer": {0: [torch.rand(3), torch.rand(7, 7)]}})
    found = store.load_latest()
    assert found is not None
    assert unaligned([found[1]["model"]["w"], *found[1]["optimizer"][0]]) == 0


def test_tied_parameters_stay_tied() -> None:
    network = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
    network[1].weight = network[0].weight
    before = weights_hash(network)
    own_weights(network)
    assert network[1].weight is network[0].weight
    assert weights_hash(network) == before
