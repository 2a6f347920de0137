"""The share of edges that point at no vanishing point: closed forms, invariances, gradients."""

import math

import pytest
import torch

from alberti.losses import orientation
from alberti.losses.orientation import edge_amount, edge_change, edges, grid_misfit, stray_share

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


BOTH = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])


def _misfit(image: torch.Tensor, balance: float, points: torch.Tensor = BOTH, surfaces: torch.Tensor | None = None) -> float:
    return grid_misfit(image, points, tolerance=2.0, balance=balance, surfaces=surfaces).item()


def _halves(left: float, right: float) -> torch.Tensor:
    return torch.cat([_stripes(left)[..., : WIDTH // 2], _stripes(right)[..., WIDTH // 2 :]], dim=3)


def test_a_grid_has_edges_towards_each_point():
    level, grid, slanting = _stripes(0.0), _halves(0.0, 90.0), _stripes(45.0)
    # without balance one direction is as good as two, with it half the edges are missing
    assert abs(_misfit(level, 0.0)) < 0.05
    assert abs(_misfit(grid, 0.0)) < 0.1
    assert _misfit(grid, 1.0) == pytest.approx(math.log(2), abs=0.1)
    assert _misfit(level, 1.0) == pytest.approx(-math.log(0.01) / 2, abs=0.1)
    assert _misfit(slanting, 0.0) == pytest.approx(-math.log(0.01), abs=0.4)
    for image in (level, grid, slanting):
        assert _misfit(image, 0.3) == pytest.approx(0.7 * _misfit(image, 0.0) + 0.3 * _misfit(image, 1.0), rel=1e-4)


def test_without_balance_a_grid_is_the_share_of_edges_that_are_not_stray():
    for angle in (0.5, 2.0, 5.0):
        assert _misfit(_stripes(angle), 0.0, RIGHT) == pytest.approx(-math.log(1.01 - _value(_stripes(angle))), rel=1e-3)


def test_kinds_of_surface_count_by_their_area():
    surfaces = torch.zeros(1, 2, WIDTH, WIDTH, dtype=torch.bool)
    surfaces[:, 0, :, : WIDTH // 4] = True  # a quarter asks for level edges, half for upright ones, a quarter for nothing
    surfaces[:, 1, :, WIDTH // 4 : 3 * WIDTH // 4] = True
    level, missing = _stripes(0.0), -math.log(0.01)
    assert _misfit(level, 1.0, surfaces=surfaces) == pytest.approx(2 / 3 * missing, rel=0.05)
    assert _misfit(level, 1.0, BOTH.flip(1), surfaces.flip(1)) == pytest.approx(
        _misfit(level, 1.0, surfaces=surfaces), rel=1e-5
    )
    assert _misfit(level, 1.0, surfaces=torch.zeros_like(surfaces)) == 0
    padded, more = torch.cat([BOTH, torch.zeros(1, 1, 3)], 1), torch.cat([surfaces, surfaces[:, :1]], 1)
    assert _misfit(level, 1.0, padded, more) == pytest.approx(_misfit(level, 1.0, surfaces=surfaces), rel=1e-5)


def test_an_edge_may_only_point_where_its_surface_lets_it():
    image, everywhere = _stripes(0.0), torch.ones(1, 2, WIDTH, WIDTH, dtype=torch.bool)
    level, upright = everywhere.clone(), everywhere.clone()
    level[:, 1], upright[:, 0] = False, False
    assert _misfit(image, 0.0, surfaces=everywhere) == pytest.approx(_misfit(image, 0.0), rel=1e-6)
    assert abs(_misfit(image, 0.0, surfaces=level)) < 0.05
    assert _misfit(image, 0.0, surfaces=upright) == pytest.approx(-math.log(0.01), rel=0.05)
    half = level.clone()
    half[..., : WIDTH // 2] = False
    assert abs(_misfit(image, 0.0, surfaces=half)) < 0.05  # pixels that have no point do not count


def test_where_no_pixel_counts_there_is_nothing_to_descend():
    image, nowhere = _stripes(4.0).requires_grad_(), torch.zeros(1, 1, WIDTH, WIDTH, dtype=torch.bool)
    value = grid_misfit(image, RIGHT, tolerance=2.0, balance=0.5, surfaces=nowhere)
    (gradient,) = torch.autograd.grad(value.sum(), image)
    assert value.item() == 0
    assert not gradient.any()


def test_a_batch_of_grids_is_its_pictures():
    images, points = torch.cat([_stripes(0.0), _halves(3.0, 90.0)]), torch.cat([BOTH, torch.zeros(1, 2, 3)])
    surfaces = torch.rand(2, 2, WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)) < 0.7
    for there in (points, BOTH.expand(2, -1, -1)):
        values = grid_misfit(images, there, tolerance=2.0, balance=0.6, surfaces=surfaces)
        alone = [
            grid_misfit(images[i : i + 1], there[i : i + 1], tolerance=2.0, balance=0.6, surfaces=surfaces[i : i + 1])
            for i in (0, 1)
        ]
        torch.testing.assert_close(values, torch.cat(alone))


def _grid_gradient(image: torch.Tensor) -> torch.Tensor:
    image = image.double().requires_grad_()
    value = grid_misfit(image, BOTH.double(), tolerance=3.0, balance=0.5)
    return torch.autograd.grad(value.sum(), image)[0]


def test_the_gradient_of_a_grid_turns_edges_and_leaves_their_contrast():
    image = _halves(4.0, 88.0).double()
    gradient = _grid_gradient(image)
    length = gradient.norm()
    turned = _halves(3.0, 88.0).double() - image
    assert (turned * gradient).sum() < -0.1 * turned.norm() * length
    mask = torch.zeros_like(image)
    mask[..., : WIDTH // 2] = 1  # stray edges, made stronger or weaker
    contrast = (image - 0.5) * mask
    assert (contrast * gradient).sum().abs() < 0.02 * contrast.norm() * length


def test_the_gradient_of_a_grid_is_the_numerical_one_at_the_weights_that_edges_have(monkeypatch):
    image, points = _halves(4.0, 88.0).double(), BOTH.double()
    energy, _ = edges(image, points)
    monkeypatch.setattr(orientation, "edges", lambda picture, there: (energy, edges(picture, there)[1]))
    direction = torch.randn(image.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ahead, behind = (grid_misfit(image + step * direction, points, tolerance=3.0, balance=0.5) for step in (1e-6, -1e-6))
    numerical = (ahead - behind) / 2e-6
    torch.testing.assert_close((_grid_gradient(image) * direction).sum()[None], numerical, rtol=1e-4, atol=1e-8)


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


def test_the_amount_of_edge_grows_with_lines_and_not_with_light():
    def stripes(count: int) -> torch.Tensor:
        image = torch.full((1, 3, 64, 64), 0.5)
        for index in range(count):
            image[..., :, 8 + 8 * index] = 0.9
        return image

    few, more, many = (edge_amount(stripes(count)).item() for count in (1, 3, 6))
    assert few < more < many
    assert edge_amount(stripes(3) - 0.2).item() == pytest.approx(more, abs=1e-4)
    image = stripes(3).requires_grad_()
    edge_amount(image).sum().backward()
    assert image.grad.abs().sum() > 0
