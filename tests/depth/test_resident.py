"""What is cut out of memory must be what is read from the files."""

import numpy as np
import pytest
import torch

from alberti.data.manifest import Dataset
from alberti.depth import resident
from alberti.depth.config import Augmentation
from alberti.depth.data import Batches, Mixture
from alberti.depth.samples import DepthSamples
from alberti.errors import DataError
from alberti.images import write_image
from alberti.training import global_batch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_KEPT", type(resident._KEPT)())


def batches_of(mixture: Mixture, kept: bool, steps: int = 4) -> list[dict[str, torch.Tensor]]:
    with Batches(mixture, 3, 4, resident=kept) as batches:
        found = [batches.load(global_batch(3, step, 4, len(mixture)), CPU) for step in range(steps)]
        assert (batches._kept is not None) == kept
    return found


def mixed_sizes(make_dataset) -> Dataset:
    """One data set of pictures of two sizes."""
    one, two = make_dataset("one", 2, 64, 96), make_dataset("two", 3, 80, 64)
    for index in range(3):
        for kind in ("images", "depth"):
            (two.folder / kind / f"{index}.png").rename(one.folder / kind / f"{index + 2}.png")
    moved = [
        sample.model_copy(update={"image": f"images/{index + 2}.png", "depth": f"depth/{index + 2}.png"})
        for index, sample in enumerate(two)
    ]
    return Dataset(one.folder, one.info, [*one, *moved])


def test_batches_from_memory_are_those_from_files(make_dataset):
    dataset = mixed_sizes(make_dataset)
    for options in (Augmentation(crop=(48, 56)), Augmentation(crop=(64, 64), height=70, flip=1.0)):
        read, kept = (batches_of(Mixture(DepthSamples(dataset, options)), kept) for kept in (False, True))
        for expected, found in zip(read, kept, strict=True):
            assert expected.keys() == found.keys()
            for name, value in expected.items():
                assert found[name].dtype == value.dtype
                assert torch.equal(found[name], value), name


def test_rotated_batches_from_memory_are_those_from_files(make_dataset):
    options = Augmentation(crop=(48, 56), rotate_degrees=25.0)
    dataset = mixed_sizes(make_dataset)
    read, kept = (batches_of(Mixture(DepthSamples(dataset, options)), kept) for kept in (False, True))
    for expected, found in zip(read, kept, strict=True):
        assert (found["images"].int() - expected["images"].int()).abs().max() <= 1
        assert torch.equal(found["depth"], expected["depth"])
        assert (found["depth"] == 0).any()


def test_mixed_batches_from_memory_are_those_from_files(make_dataset):
    options = Augmentation(crop=(32, 48))
    first, second = make_dataset("a", 5), make_dataset("b", 3, 48, 80, keep=0.1)
    mixtures = [Mixture(DepthSamples(first, options), DepthSamples(second, options), 0.4) for _ in range(2)]
    for expected, found in zip(batches_of(mixtures[0], False, 6), batches_of(mixtures[1], True, 6), strict=True):
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        # what a captured step asks for: whichever data set the rows are of, tensors of one layout
        layout = {(name, value.shape, value.stride(), value.dtype) for name, value in found.items()}
        assert layout == {
            ("images", (4, 3, 32, 48), (4608, 1536, 48, 1), torch.uint8),
            ("colours", (4, 3, 256), (768, 256, 1), torch.float32),
            ("depth", (4, 32, 48), (1536, 48, 1), torch.float32),
        }


def test_pictures_are_read_once_in_a_process(make_dataset, monkeypatch):
    dataset, options = make_dataset(), Augmentation(crop=(32, 32))
    batches_of(Mixture(DepthSamples(dataset, options)), True)
    monkeypatch.setattr(Dataset, "read_image", lambda *_: pytest.fail("read again"))
    batches_of(Mixture(DepthSamples(Dataset.open(dataset.folder), options)), True)


def test_pictures_that_were_written_again_are_read_again(make_dataset):
    dataset, options = make_dataset(), Augmentation(crop=(64, 64), flip=0, jitter=0)
    batches_of(Mixture(DepthSamples(dataset, options)), True)
    for sample in dataset:
        write_image(dataset.image_path(sample), np.full((64, 64, 3), 7, np.uint8))
    assert (batches_of(Mixture(DepthSamples(dataset, options)), True)[0]["images"] == 7).all()


def test_what_is_rotated_is_kept_apart(make_dataset):
    dataset = make_dataset()
    mixtures = [Mixture(DepthSamples(dataset, Augmentation(crop=(64, 64), rotate_degrees=degrees))) for degrees in (0.0, 25.0)]
    upright, turned = (batches_of(mixture, True)[0]["depth"] for mixture in mixtures)
    assert (upright > 0).all()
    assert (turned == 0).any()


def test_other_sizes_of_the_same_files_are_kept_apart(make_dataset):
    dataset = make_dataset()
    for options in (Augmentation(crop=(64, 64)), Augmentation(crop=(64, 64), height=96)):
        assert batches_of(Mixture(DepthSamples(dataset, options)), True)[0]["images"].shape == (4, 3, 64, 64)
    assert len(resident._KEPT) == 2


def test_what_does_not_fit_the_cache_is_not_kept(make_dataset):
    dataset, options = make_dataset(), Augmentation(crop=(64, 64))
    bytes_needed = 4 * 64 * 64 * 7
    for room, fits in ((bytes_needed, True), (bytes_needed - 1, False)):
        samples = DepthSamples(dataset, options, cache_mb=room / 2**20)
        assert (resident.keep_resident(samples, CPU, 1) is not None) == fits


def test_the_longest_unused_data_set_goes_first(make_dataset, monkeypatch):
    options = Augmentation(crop=(64, 64))
    monkeypatch.setattr(resident, "_LIMIT", 2 * 4 * 64 * 64 * 7)
    a, b, c = (DepthSamples(make_dataset(name), options) for name in "abc")
    kept = {name: resident.keep_resident(samples, CPU, 1) for name, samples in (("a", a), ("b", b))}
    resident.keep_resident(a, CPU, 1)
    resident.keep_resident(c, CPU, 1)
    assert resident.keep_resident(a, CPU, 1) is kept["a"]
    assert resident.keep_resident(b, CPU, 1) is not kept["b"]


def test_a_damaged_file_is_named(make_dataset):
    dataset = make_dataset()
    dataset.image_path(dataset[2]).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2\.png"):
        resident.keep_resident(DepthSamples(dataset, Augmentation(crop=(32, 32))), CPU, 2)
    assert not resident._KEPT
