import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from alberti.data.transforms import View
from alberti.depth.augmentation import Change, apply_tables, colour_tables, cut, draw_change, rotate
from alberti.depth.config import Augmentation
from alberti.geometry.camera import Camera

SAME = Change(degrees=0.0, x0=0, y0=0, flip=False, gamma=1.0, colours=(1.0, 1.0, 1.0))


def test_rotation_turns_about_the_middle_and_drops_what_comes_in():
    image = np.zeros((33, 33, 3), np.uint8)
    image[16, 26] = 255
    depth = np.full((33, 33), 5.0, np.float32)
    turned = rotate(View(image=image, depth=depth), 90.0)
    assert turned.image[6, 16].tolist() == [255, 255, 255]
    assert (turned.depth == 5.0).all()
    tilted = rotate(View(image=image, depth=depth), 45.0)
    assert tilted.depth[0, 0] == 0
    assert set(np.unique(tilted.depth)) == {0.0, 5.0}


def test_rotation_turns_about_the_principal_point():
    image, depth = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.float32)
    image[25, 20], depth[25, 20] = 200, 7.0
    camera = Camera.from_intrinsics((50.0, 50.0, 20.0, 15.0), 60, 40)
    turned = rotate(View(image=image, depth=depth, camera=camera), 90.0)  # ten below the centre becomes ten to its right
    assert turned.image[15, 30].tolist() == [200, 200, 200]
    assert turned.depth[15, 30] == 7.0


@pytest.mark.parametrize("degrees", [-7.3, 0.4, 2.5])
def test_rotation_is_opencv_s_to_the_fractions_of_a_pixel(degrees):
    random = np.random.default_rng(0)
    image = cv2.GaussianBlur(random.integers(0, 256, (48, 80, 3), dtype=np.uint8), (0, 0), 2.0)
    depth = np.full((48, 80), 5.0, np.float32)
    turned = rotate(View(image=image, depth=depth), degrees)
    matrix = cv2.getRotationMatrix2D((39.5, 23.5), degrees, 1.0)
    expected = cv2.warpAffine(image, matrix, (80, 48), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    assert np.abs(turned.image.astype(int) - expected).max() <= 2
    inside = cv2.warpAffine(depth, matrix, (80, 48), flags=cv2.INTER_NEAREST, borderValue=0)
    assert (turned.depth != inside).mean() < 0.01


def test_a_cut_is_a_window_mirrored():
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    depth = np.arange(48, dtype=np.float32).reshape(6, 8)
    change = Change(**{**vars(SAME), "x0": 2, "y0": 1, "flip": True})
    found, metres = cut(View(image=image, depth=depth), change, (4, 3))
    np.testing.assert_array_equal(found, image[1:5, 2:5][:, ::-1])
    np.testing.assert_array_equal(metres, depth[1:5, 2:5][:, ::-1])


def test_tables_that_change_nothing_are_exact():
    images = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    assert torch.equal(apply_tables(images, colour_tables([SAME])), images.float() / 255)


def test_tables_apply_gamma_then_each_channel_s_factor():
    changes = [SAME, Change(**{**vars(SAME), "gamma": 0.9, "colours": (0.9, 1.0, 1.2)})]
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 5, 7), dtype=np.uint8))
    found = apply_tables(images, colour_tables(changes))
    expected = ((images[1] / 255) ** 0.9 * torch.tensor([0.9, 1.0, 1.2])[:, None, None]).clamp(0, 1)
    torch.testing.assert_close(found[1], expected)
    assert torch.equal(found[0], images[0].float() / 255)


def test_what_is_drawn_stays_in_its_ranges():
    options, random = Augmentation(crop=(32, 40), rotate_degrees=2.0), np.random.default_rng(0)
    drawn = [draw_change(options, (50, 33), random) for _ in range(400)]
    assert {change.x0 for change in drawn} == set(range(11))
    assert {change.y0 for change in drawn} == {0, 1}
    assert 150 < sum(change.flip for change in drawn) < 250
    assert 150 < sum(change.gamma != 1.0 for change in drawn) < 250
    assert all(abs(change.degrees) <= 2 and 0.9 <= change.gamma <= 1.1 for change in drawn)
    assert all(0.81 <= colour <= 1.21 for change in drawn for colour in change.colours)


def test_bad_augmentation_is_named():
    with pytest.raises(ValidationError, match="flip"):
        Augmentation(crop=(64, 64), flip=1.5)
    with pytest.raises(ValidationError, match="crop"):
        Augmentation(crop=(16, 64))
