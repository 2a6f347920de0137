import math

import pytest
import torch

from alberti.depth.models import build_depth_model
from alberti.diffusion.constraints import CONSTRAINTS, constraint_named, match_sharpness
from alberti.errors import ConfigError
from alberti.losses import perspective_loss
from alberti.losses.orientation import blur

SIZE = 48
LEVEL = torch.ones(1)


def _pixels() -> tuple[torch.Tensor, torch.Tensor]:
    y, x = torch.meshgrid(torch.arange(SIZE, dtype=torch.float32), torch.arange(SIZE, dtype=torch.float32), indexing="ij")
    return x, y


def _rays(vx: float, vy: float, count: int = 6) -> torch.Tensor:
    """Smooth bright and dark sectors whose edges run through (vx, vy)."""
    x, y = _pixels()
    return (0.5 + 0.4 * torch.sin(count * torch.atan2(y - vy, x - vx))).expand(1, 3, -1, -1)


def _stripes(angle: float, period: float = 12.0) -> torch.Tensor:
    """Stripes whose edges run in direction ``angle`` (degrees)."""
    x, y = _pixels()
    radians = math.radians(angle)
    across = -math.sin(radians) * x + math.cos(radians) * y
    return (0.5 + 0.4 * torch.sin(2 * math.pi * across / period)).expand(1, 3, -1, -1)


def _point(*values: float) -> torch.Tensor:
    return torch.tensor([[values]])


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
def test_the_true_image_costs_nothing(name):
    image = _rays(-20.0, 20.0)
    value = CONSTRAINTS[name](image, image, _point(-20.0, 20.0, 1.0), LEVEL, num_lines=200)
    assert value.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
def test_no_vanishing_points_contribute_zero_beside_others(name):
    image, other = _rays(-20.0, 20.0), _rays(60.0, -10.0)
    points = torch.cat([_point(0.0, 0.0, 0.0), _point(-20.0, 20.0, 1.0)])
    decoded = other.repeat(2, 1, 1, 1).requires_grad_()
    values = CONSTRAINTS[name](decoded, image.repeat(2, 1, 1, 1), points, torch.ones(2), num_lines=200)
    assert values[0] == 0
    assert values[1] > 0.05
    (gradient,) = torch.autograd.grad(values.sum(), decoded)
    assert gradient[0].abs().max() == 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
def test_a_black_estimate_gives_finite_gradients(name):
    decoded = torch.zeros(1, 3, SIZE, SIZE, requires_grad=True)
    value = CONSTRAINTS[name](decoded, _rays(5.0, 5.0), _point(5.0, 5.0, 1.0), LEVEL, num_lines=200)
    (gradient,) = torch.autograd.grad(value.sum(), decoded)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
def test_batch_equals_loop(name):
    images = torch.cat([_rays(-20.0, 20.0), _rays(5.0, 70.0), _stripes(30.0)])
    decoded = torch.cat([_stripes(10.0), _rays(0.0, 60.0), _stripes(40.0)])
    points = torch.tensor([[[-20.0, 20, 1], [0, 1, 0]], [[5.0, 70, 1], [0, 0, 0]], [[1.0, 0, 0], [0, 1, 0]]])
    constraint = CONSTRAINTS[name]
    together = constraint(decoded, images, points, torch.ones(3), num_lines=150)
    alone = [constraint(decoded[i : i + 1], images[i : i + 1], points[i : i + 1], LEVEL, num_lines=150) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_the_published_constraint_is_the_perspective_loss():
    image, decoded, points = _rays(-20.0, 20.0), _stripes(10.0), _point(-20.0, 20.0, 1.0)
    value = CONSTRAINTS["perspective"](decoded, image, points, LEVEL, num_lines=100)
    torch.testing.assert_close(value, perspective_loss(decoded, image, points, num_lines=100))


def test_the_matched_constraint_forgives_blur_and_contrast_but_not_another_point():
    image, points = _rays(-20.0, 20.0), _point(-20.0, 20.0, 1.0)
    matched = CONSTRAINTS["perspective_matched"]

    def value(decoded):
        return matched(decoded, image, points, LEVEL, num_lines=200).item()

    assert value(blur(image, 2.0)) < 0.02
    assert value(0.5 + 0.4 * (image - 0.5)) < 0.02
    assert value(_rays(-20.0, 40.0)) > 0.3


@pytest.mark.parametrize("sigma", [0.0, 0.7, 2.5, 5.0])
def test_sharpness_is_matched(sigma):
    image = _rays(10.0, 20.0, count=9)
    soft = blur(image, sigma)
    matched = match_sharpness(image, soft)
    assert (matched - soft).abs().mean() < 0.05 * (image - 0.5).abs().mean() + 1e-6


def test_a_sharper_estimate_leaves_the_image_alone():
    image = blur(_rays(10.0, 20.0), 1.0)
    torch.testing.assert_close(match_sharpness(image, _rays(10.0, 20.0) * 1.1), image)


def test_orientation_counts_crookedness_not_straightness():
    towards = _point(1.0, 0.0, 0.0)
    straighter = CONSTRAINTS["orientation"](_stripes(0.0), _stripes(5.0), towards, LEVEL, num_lines=2)
    more_crooked = CONSTRAINTS["orientation"](_stripes(5.0), _stripes(0.0), towards, LEVEL, num_lines=2)
    assert more_crooked - straighter > 0.4
    # at high noise only the stray share counts
    noisy = CONSTRAINTS["orientation"](_stripes(0.0), _stripes(20.0), towards, 0 * LEVEL, num_lines=2)
    assert noisy < 0.01


def _descend(name: str, decoded: torch.Tensor, image: torch.Tensor, towards: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
    """The picture after 30 steps down the constraint, and its values on the way."""
    decoded = decoded.clone().requires_grad_()
    optimizer = torch.optim.Adam([decoded], lr=0.01)
    values = []
    for _ in range(30):
        value = CONSTRAINTS[name](decoded, image, towards, LEVEL, num_lines=2).sum()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    return decoded.detach(), values


def test_descending_the_orientation_constraint_straightens():
    _, values = _descend("orientation", _stripes(8.0), _stripes(0.0), _point(1.0, 0.0, 0.0))
    assert values[-1] < 0.6 * values[0]


def _crossed(first: float, second: float) -> torch.Tensor:
    """Stripes of one direction on the left, of the other on the right."""
    return torch.cat([_stripes(first)[..., : SIZE // 2], _stripes(second)[..., SIZE // 2 :]], dim=3)


def test_the_grid_misses_a_direction_that_orientation_does_not():
    towards, image = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]), _crossed(0.0, 90.0)
    one_sided, crooked = _stripes(90.0), _crossed(12.0, 80.0)
    values = {name: [CONSTRAINTS[name](p, image, towards, 0 * LEVEL, num_lines=2).item() for p in (one_sided, crooked)]
              for name in ("grid", "orientation")}  # fmt: skip
    assert values["orientation"][0] < 0.01 < 0.3 < values["orientation"][1]
    assert min(values["grid"]) > 0.3


def test_descending_the_grid_turns_edges_and_keeps_their_contrast():
    towards, start = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]), _crossed(8.0, 82.0)
    decoded, values = _descend("grid", start, _crossed(0.0, 90.0), towards)
    assert values[-1] < 0.6 * values[0]
    assert decoded.std().item() == pytest.approx(start.std().item(), rel=0.15)


def test_features_are_the_depth_models_own_and_see_what_is_shown_rather_than_its_brightness():
    random = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 64, 64, generator=random)
    point = _point(10.0, 20.0, 1.0).expand(2, -1, -1)
    brighter, other = (image * 0.9 + 0.05), torch.rand(2, 3, 64, 64, generator=random)
    alpha = torch.ones(2)
    near, far = (CONSTRAINTS["features"](made, image, point, alpha, num_lines=8) for made in (brighter, other))
    assert (near < 0.3 * far).all()
    model = build_depth_model("pixelformer", "lite", backbone_weights="package")
    seen = [model.network.backbone((picture - model.mean) / model.std) for picture in (other, image)]
    units = [[torch.nn.functional.normalize(scale, dim=1) for scale in scales] for scales in seen]
    wanted = torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in zip(*units, strict=True)]).mean(0)
    torch.testing.assert_close(far, wanted, rtol=1e-3, atol=1e-4)


def test_an_unknown_constraint_lists_the_known_ones():
    with pytest.raises(ConfigError, match="grid, orientation, perspective"):
        constraint_named("perspektive")
