import numpy as np
import pytest
import torch

from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.depth.config import Augmentation
from alberti.depth.data import Batches, Mixture, spread
from alberti.depth.samples import DepthSamples
from alberti.errors import ConfigError, DataError
from alberti.training import global_batch

PLAIN = Augmentation(crop=(64, 64), flip=0.0, jitter=0.0)


def test_without_augmentation_a_sample_is_the_file(make_dataset):
    dataset = make_dataset()
    image, depth, _ = DepthSamples(dataset, PLAIN).sample(1, 0, seed=0)
    np.testing.assert_array_equal(image, dataset.read_image(dataset[1]))
    np.testing.assert_array_equal(depth, dataset.read_depth(dataset[1]))


def test_a_sample_depends_on_seed_id_and_visit_only(make_dataset):
    options = Augmentation(crop=(32, 48), rotate_degrees=3.0)
    dataset = make_dataset()
    reversed_set = write_dataset(dataset.folder, dataset.samples[::-1], name="data", role="train")
    samples, backwards = DepthSamples(dataset, options), DepthSamples(reversed_set, options)
    image, depth, change = samples.sample(0, 2, seed=7)
    again, depth_again, same = backwards.sample(3, 2, seed=7)
    assert change == same
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(depth, depth_again)
    for visit, seed in ((3, 7), (2, 8)):
        assert not np.array_equal(samples.sample(0, visit, seed)[0], image)


def test_crop_and_flip_move_image_and_depth_together(make_dataset):
    """The scenes' brightness falls with depth, wherever the crop is and whichever way it looks."""
    samples = DepthSamples(make_dataset(count=2), Augmentation(crop=(32, 32), jitter=0.0))
    for visit in range(8):
        image, depth, _ = samples.sample(visit % 2, visit, seed=0)
        assert image.shape == (32, 32, 3)
        assert depth.shape == (32, 32)
        assert np.corrcoef(image[..., 0].ravel(), np.exp(-depth / 15).ravel())[0, 1] > 0.99


def test_pictures_are_resized_to_the_height_and_grow_to_the_crop(make_dataset):
    dataset = make_dataset(height=64, width=160)
    assert DepthSamples(dataset, Augmentation(crop=(32, 32), height=48)).view(0).size == (120, 48)
    assert DepthSamples(dataset, Augmentation(crop=(96, 96))).view(0).size == (240, 96)
    assert DepthSamples(dataset, Augmentation(crop=(32, 320))).view(0).size == (320, 128)


def test_the_benchmark_crop(make_dataset):
    dataset = make_dataset(count=1, height=370, width=1242)
    view = DepthSamples(dataset, Augmentation(crop=(352, 1120), kb_crop=True)).view(0)
    assert view.size == (1216, 352)
    np.testing.assert_array_equal(view.image, dataset.read_image(dataset[0])[18:, 13:1229])
    with pytest.raises(DataError, match="benchmark crop"):
        DepthSamples(make_dataset("small"), Augmentation(crop=(32, 32), kb_crop=True)).view(0)


def test_the_cache_stays_within_its_memory(make_dataset):
    dataset = make_dataset(count=4)
    one = 64 * 64 * (3 + 4) / 2**20
    samples = DepthSamples(dataset, PLAIN, cache_mb=2.5 * one)
    views = [samples.view(index) for index in range(4)]
    assert [samples.view(index) is views[index] for index in range(4)] == [True, True, False, False]


def test_size_and_centre_are_known_without_reading(make_dataset):
    dataset = make_dataset(height=400, width=1300)
    for options in (
        Augmentation(crop=(96, 128), height=100),
        Augmentation(crop=(352, 1120), kb_crop=True),
        Augmentation(crop=(64, 4000)),
    ):
        samples = DepthSamples(dataset, options)
        view = samples.view(0)
        assert samples.size(0) == view.size
        assert samples.centre(0) == (view.camera.cx, view.camera.cy)
    unknown = Dataset(dataset.folder, dataset.info, [dataset[0].model_copy(update={"intrinsics": None})])
    assert DepthSamples(unknown, Augmentation(crop=(352, 1120), kb_crop=True)).centre(0) == (607.5, 175.5)


class TestMixture:
    def test_a_share_of_the_second(self, make_dataset):
        first, second = (DepthSamples(make_dataset(name, count), PLAIN) for name, count in (("a", 6), ("b", 3)))
        mixture = Mixture(first, second, 0.25)
        assert len(mixture) == 8
        assert [mixture.locate(position, 0)[0] for position in range(8)] == [first] * 6 + [second] * 2

    @pytest.mark.parametrize("ratio", [0.25, 0.6, 0.9])
    def test_every_visit_of_the_second_counts_up_by_one(self, make_dataset, ratio):
        first, second = (DepthSamples(make_dataset(name, count), PLAIN) for name, count in (("a", 6), ("b", 3)))
        mixture = Mixture(first, second, ratio)
        visits: dict[int, list[int]] = {0: [], 1: [], 2: []}
        for epoch in range(4):
            for position in range(6, len(mixture)):
                _, index, visit = mixture.locate(position, epoch)
                visits[index].append(visit)
        for seen in visits.values():
            assert seen == list(range(len(seen)))
        assert abs(len(visits[0]) - len(visits[2])) <= 1

    def test_ratio_and_data_must_fit(self, make_dataset):
        samples = DepthSamples(make_dataset(), PLAIN)
        with pytest.raises(ConfigError, match="no second data set"):
            Mixture(samples, None, 0.5)
        with pytest.raises(ConfigError, match="between 0 and 1"):
            Mixture(samples, samples, 0.0)


def test_reading_ahead_gives_the_same_batches(make_dataset):
    mixture = Mixture(DepthSamples(make_dataset(count=5), Augmentation(crop=(32, 32))))
    device = torch.device("cpu")
    with Batches(mixture, 3, 4) as plain, Batches(mixture, 3, 4, workers=2) as ahead:
        for step in range(5):
            batch = global_batch(3, step, 4, 5)
            expected, found = plain.load(batch, device), ahead.load(batch, device)
            assert all(torch.equal(expected[name], found[name]) for name in ("images", "colours", "depth"))
        assert len(ahead._pending) == 4


def test_an_error_while_reading_ahead_is_raised(make_dataset):
    dataset = make_dataset(count=4)
    dataset.image_path(dataset[2]).write_bytes(b"no image")
    with (
        Batches(Mixture(DepthSamples(dataset, PLAIN)), 0, 4, workers=2) as batches,
        pytest.raises(DataError, match=r"2\.png"),
    ):
        batches.load(global_batch(0, 0, 4, 4), torch.device("cpu"))


def test_samples_need_image_and_depth_in_metres(make_dataset):
    dataset = make_dataset()
    lacking = Sample(id="x", image="images/0.png", width=64, height=64)
    incomplete = Dataset(dataset.folder, dataset.info, [*dataset.samples, lacking])
    with pytest.raises(DataError, match="1 samples lack an image or depth, such as 'x'"):
        DepthSamples(incomplete, PLAIN)
    relative = Dataset(dataset.folder, dataset.info.model_copy(update={"depth_kind": "relative"}), dataset.samples)
    with pytest.raises(DataError, match="'relative'"):
        DepthSamples(relative, PLAIN)


def test_spread_takes_evenly():
    assert list(spread(10, 3)) == [0, 4, 8]
    assert list(spread(3, 64)) == [0, 1, 2]
