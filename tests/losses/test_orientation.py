"""The share of edges that point at no vanishing point: closed forms, invariances, gradients."""

import math

import pytest
import torch

from alberti.losses.orientation import edge_change, stray_share

WIDTH = 64
RIGHT = torch.tensor([[[1.0, 0.0, 0.0]]])


def _stripes(angle: float, contrast: float = 0.4) -> torch.Tensor:
    """Stripes whose edges run in direction ``angle`` (degrees)."""
    y, x = torch.meshgrid(torch.arange(WIDTH).float(), torch.arange(WIDTH).float(), indexing="ij")
    across = -math.sin(math.radians(angle)) * x + math.cos(math.radians(angle)) * y
    return (0.5 + contrast * torch.sin(2 * math.pi * across / 12)).expand(1, 3, -1, -1).contiguous()


def _value(image: torch.Tensor, points: torch.Tensor = RIGHT, tolerance: float = 2.0) -> float:
    return stray_share(image, points, tolerance=tolerance).item()


@pytest.mark.parametrize("off", [0.5, 1.0, 2.0, 5.0, 30.0, 80.0])
@pytest.mark.parametrize("about", [0.0, 27.0, 45.0])
def test_stripes_cost_what_their_angle_says(off, about):
    # Precise to a tenth of a degree in every direction, which Sobel's gradients are not.
    towards = torch.tensor([[[math.cos(math.radians(about)), math.sin(math.radians(about)), 0.0]]])
    found = _value(_stripes(about + off), towards)
    low, high = (math.sin(math.radians(max(off + change, 0))) ** 2 for change in (-0.1, 0.1))
    limit = math.sin(math.radians(2)) ** 2
    assert low / (low + limit) - 1e-3 <= found <= high / (high + limit) + 1e-3


def test_contrast_and_the_points_length_and_order_change_nothing():
    points = torch.tensor([[[1.0, 0.0, 0.0], [-20.0, 30.0, 1.0]]])
    value = _value(_stripes(3.0), points)
    assert _value(_stripes(3.0, contrast=0.2), points) == pytest.approx(value, rel=1e-3)
    assert _value(_stripes(3.0), -5 * points.flip(1)) == pytest.approx(value, rel=1e-4)
    assert _value(_stripes(3.0), torch.cat([points, torch.zeros(1, 1, 3)], dim=1)) == pytest.approx(value, rel=1e-6)


def test_the_gradient_turns_edges_and_is_the_numerical_one():
    image = _stripes(4.0).double().requires_grad_()
    points = RIGHT.double()
    (gradient,) = torch.autograd.grad(stray_share(image, points, tolerance=2.0).sum(), image)
    direction = torch.randn(image.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ahead, behind = (stray_share(image.detach() + step * direction, points, tolerance=2.0) for step in (1e-6, -1e-6))
    numerical = (ahead - behind) / 2e-6
    torch.testing.assert_close((gradient * direction).sum()[None], numerical, rtol=1e-4, atol=1e-8)
    turned = (_stripes(3.0).double() - _stripes(4.0).double()) * gradient
    assert turned.sum() < 0


def test_an_edge_may_only_point_where_its_surface_lets_it():
    points = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    image, everywhere = _stripes(0.0), torch.ones(1, 2, WIDTH, WIDTH, dtype=torch.bool)
    along, upright = everywhere.clone(), everywhere.clone()
    along[:, 1], upright[:, 0] = False, False

    def value(surfaces: torch.Tensor) -> float:
        return stray_share(image, points, tolerance=2.0, surfaces=surfaces).item()

    assert value(everywhere) == pytest.approx(_value(image, points), rel=1e-6)
    assert value(along) < 0.01
    assert value(upright) > 0.99
    half = along.clone()
    half[..., : WIDTH // 2] = False
    assert value(half) < 0.01  # pixels that have no point do not count
    half[..., : WIDTH // 2] = upright[..., : WIDTH // 2]
    assert value(half) == pytest.approx(0.5, abs=0.02)


def test_where_no_pixel_counts_there_is_nothing_to_descend():
    image = _stripes(4.0).requires_grad_()
    value = stray_share(image, RIGHT, tolerance=2.0, surfaces=torch.zeros(1, 1, WIDTH, WIDTH, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(value.sum(), image)
    assert value.item() == 0
    assert not gradient.any()


def _change(image: torch.Tensor, reference: torch.Tensor, points: torch.Tensor = RIGHT) -> float:
    return edge_change(image, reference, points, tolerance=2.0).item()


def test_lost_and_gained_edges_have_a_price():
    image = _stripes(0.0)
    # Half the contrast: a quarter of the energy, 0.25^0.75 of the weight.
    ratio = 0.25**0.75
    faint = 0.5 + 0.5 * (image - 0.5)
    assert _change(faint, image) == pytest.approx((1 - ratio) / (1 + ratio), rel=1e-2)
    assert _change(image, faint) == pytest.approx((1 - ratio) / (1 + ratio), rel=1e-2)
    assert _change(image, image) == 0


def test_edges_may_move_within_a_window_but_not_across_the_picture_or_to_another_point():
    both = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    level, upright = _stripes(0.0), _stripes(90.0)
    assert _change(level, level.roll(3, dims=2), both) < 0.1
    half = torch.full_like(level, 0.5)
    above, below = half.clone(), half.clone()
    above[:, :, : WIDTH // 2], below[:, :, WIDTH // 2 :] = level[:, :, : WIDTH // 2], level[:, :, WIDTH // 2 :]
    assert _change(above, below, both) > 0.6
    assert _change(level, upright, both) > 0.9


def test_rays_towards_a_finite_point_are_not_stray():
    y, x = torch.meshgrid(torch.arange(WIDTH).float(), torch.arange(WIDTH).float(), indexing="ij")
    for vx, vy in [(30.0, 35.0), (-30.0, 10.0), (20.0, 90.0)]:  # inside, left, below
        count = 4 if 0 < vx < WIDTH and 0 < vy < WIDTH else 12
        image = (0.5 + 0.4 * torch.sin(count * torch.atan2(y - vy, x - vx))).expand(1, 3, -1, -1)
        assert _value(image, torch.tensor([[[vx, vy, 1.0]]]), tolerance=4.0) < 0.25
        assert _value(image, torch.tensor([[[-vx - 20, vy + 60, 1.0]]]), tolerance=4.0) > 0.85


def test_mirroring_image_and_point_changes_nothing():
    image, point = _stripes(20.0), torch.tensor([[[5.0, 10.0, 1.0]]])
    mirrored = torch.tensor([[[WIDTH - 1 - 5.0, 10.0, 1.0]]])
    assert _value(image.flip(-1), mirrored) == pytest.approx(_value(image, point), rel=1e-3)


def test_flat_and_black_pictures_have_finite_gradients():
    for level in (0.0, 0.5):
        image = torch.full((1, 3, WIDTH, WIDTH), level, requires_grad=True)
        (gradient,) = torch.autograd.grad(stray_share(image, RIGHT, tolerance=2.0).sum(), image)
        assert gradient.isfinite().all()


def test_descending_straightens_and_keeps_the_lines():
    image = crooked = _stripes(6.0)
    for _ in range(30):
        leaf = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(stray_share(leaf, RIGHT, tolerance=4.0).sum(), leaf)
        image = (image - 0.02 * gradient / gradient.abs().amax()).clamp(0, 1)
    assert _value(image) < 0.6 * _value(crooked)
    assert image.std() > 0.9 * crooked.std()
