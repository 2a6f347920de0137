import copy

import pytest
import torch
from losses.reference_perspective import FINITE, random_images, reference_loss, reference_profile

from alberti.losses import PerspectiveLoss, perspective_loss, perspective_profile
from alberti.losses._sweep import LineMeans, SobelGradient, sweep_lines


def stripes_through(point, height, width, thickness=0.6):
    """(1, 3, H, W) black image with white lines through a finite point, and the lines' angles (2,)."""
    y, x = torch.meshgrid(torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij")
    angles = [
        torch.atan2(torch.tensor(height * 0.4 - point[1]), torch.tensor(width * 0.3 - point[0])),
        torch.atan2(torch.tensor(height * 0.7 - point[1]), torch.tensor(width * 0.6 - point[0])),
    ]
    gray = torch.zeros(height, width, dtype=torch.float64)
    for angle in angles:
        distance = (-(x - point[0]) * angle.sin() + (y - point[1]) * angle.cos()).abs()
        gray = torch.maximum(gray, (1 + thickness - distance).clamp(0, 1))
    return gray.expand(1, 3, -1, -1).contiguous(), torch.stack(angles)


@pytest.mark.parametrize("point", FINITE)
def test_profile_equals_the_plain_loop(point):
    image = random_images(1, 3, 24, 31)
    points = torch.tensor([[point]], dtype=torch.float64)
    profile = perspective_profile(image, points, num_lines=83)
    expected = torch.stack(reference_profile(image[0], points[0, 0], 83))
    torch.testing.assert_close(profile[0, 0], expected, rtol=1e-9, atol=1e-9)


def test_loss_and_gradient_equal_the_plain_loop_for_a_batch_with_absent_points():
    pred, target = random_images(2, 3, 20, 27, seed=1).requires_grad_(), random_images(2, 3, 20, 27, seed=2)
    points = torch.zeros(2, 3, 3, dtype=torch.float64)
    points[0, 0], points[0, 2], points[1, 1] = (torch.tensor(FINITE[i], dtype=torch.float64) for i in (1, 5, 3))
    loss = perspective_loss(pred, target, points, num_lines=60)
    expected = reference_loss(pred, target, points, 60)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(loss.sum(), pred)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), pred)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-8, atol=1e-9)


def test_float32_is_within_one_percent_of_the_plain_loop_at_the_usual_number_of_lines():
    pred, target = random_images(1, 3, 64, 48, seed=3), random_images(1, 3, 64, 48, seed=4)
    points = torch.tensor([[[-40.0, 20.0, 1.0], [25.3, 30.1, 1.0]]])
    loss = perspective_loss(pred.float(), target.float(), points)
    expected = reference_loss(pred, target, points, 1000)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-2, atol=0)


def test_lines_drawn_through_the_point_peak_at_their_angles():
    point = (-50.0, 20.0)
    image, angles = stripes_through(point, 96, 128)
    profile = perspective_profile(image, torch.tensor([[[*point, 1.0]]]), num_lines=501)[0, 0]
    low = torch.atan2(torch.tensor(0 - point[1]), torch.tensor(0 - point[0]))  # the corners (0, 0) and (0, 95)
    high = torch.atan2(torch.tensor(95 - point[1]), torch.tensor(0 - point[0]))
    positions = (angles - low) / (high - low) * 500
    assert positions[0] < positions[1]  # angular order
    baseline = profile.median()
    for position in positions:
        near = profile[int(position) - 12 : int(position) + 13]
        assert near.max() > 2  # a step of height 1 has Sobel derivative 4
        assert near.max() > 10 * baseline
    far = torch.ones(501, dtype=torch.bool)
    for position in positions:
        far[int(position) - 25 : int(position) + 26] = False
    assert profile[far].max() < 0.35 * profile.max()


def test_vertical_stripes_and_the_point_at_infinity():
    image = torch.zeros(1, 3, 20, 31, dtype=torch.float64)
    image[..., 10:20] = 1
    points = torch.tensor([[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]])
    vertical, horizontal = perspective_profile(image, points, num_lines=31)[0]
    # 31 lines over 31 columns: line i is column i. The steps between 9 and 10 and between 19 and 20 have derivative 4
    weight = 0.2989 + 0.587 + 0.114
    expected = torch.zeros(31, dtype=torch.float64)
    expected[[9, 10, 19, 20]] = 4 * weight
    torch.testing.assert_close(vertical, expected)
    assert horizontal.abs().max() < 1e-12


def test_no_steps_at_a_point_s_passage_to_infinity():
    image = random_images(1, 3, 20, 26)
    direction = torch.tensor([3.0, -4.0], dtype=torch.float64) / 5
    far = torch.tensor([[[*direction, 1e-11]]], dtype=torch.float64)
    infinite = torch.tensor([[[*direction, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(
        perspective_profile(image, far, num_lines=57), perspective_profile(image, infinite, num_lines=57)
    )


@pytest.mark.parametrize("distance", [1e3, 1e6, 1e9, 1e15])
def test_far_points_in_float32_agree_with_float64(distance):
    image = random_images(1, 3, 40, 40)
    point = torch.tensor([[[0.6 * distance, 0.8 * distance, 1.0]]], dtype=torch.float64)
    point = (point / point.norm()).float()
    precise = perspective_profile(image, point.double(), num_lines=101)
    profile = perspective_profile(image.float(), point, num_lines=101).double()
    assert (profile - precise).abs().median() < 1e-5  # single samples may round to the neighbouring pixel
    assert (profile - precise).norm() < 0.02 * precise.norm()


def test_a_point_and_its_negative_are_the_same():
    image = random_images(1, 3, 18, 22)
    points = torch.tensor([[*FINITE, (1.0, -2.0, 0.0)]], dtype=torch.float64)
    torch.testing.assert_close(
        perspective_profile(image, points, num_lines=50), perspective_profile(image, -3 * points, num_lines=50)
    )


def test_equal_images_have_no_loss_and_no_gradient():
    image = random_images(1, 3, 16, 16).requires_grad_()
    loss = perspective_loss(image, image.detach(), torch.tensor([[FINITE[0]]]), num_lines=30)
    loss.sum().backward()
    assert loss.item() == 0
    assert image.grad.abs().max() == 0


def test_images_without_points_contribute_zero():
    pred, target = random_images(2, 3, 16, 16).requires_grad_(), random_images(2, 3, 16, 16, seed=1)
    points = torch.zeros(2, 2, 3)
    points[1, 0] = torch.tensor(FINITE[0])
    losses = perspective_loss(pred, target, points, num_lines=30)
    losses.sum().backward()
    assert losses[0] == 0
    assert losses[1] > 0
    assert pred.grad[0].abs().max() == 0
    assert pred.grad[1].abs().max() > 0
    assert perspective_loss(pred, target, torch.zeros(2, 0, 3)).tolist() == [0, 0]


def test_absent_rows_and_the_order_of_points_change_nothing():
    pred, target = random_images(1, 3, 20, 24), random_images(1, 3, 20, 24, seed=1)
    points = torch.tensor([[FINITE[0], FINITE[5]]], dtype=torch.float64)
    loss = perspective_loss(pred, target, points, num_lines=40)
    padded = torch.cat([torch.zeros(1, 2, 3), points.flip(1), torch.zeros(1, 4, 3)], dim=1)
    torch.testing.assert_close(perspective_loss(pred, target, padded, num_lines=40), loss)


def test_batch_of_eight_points_equals_a_loop():
    pred, target = random_images(3, 3, 18, 25), random_images(3, 3, 18, 25, seed=1)
    points = torch.tensor([FINITE, FINITE[::-1], FINITE], dtype=torch.float64)
    points[2, 5:] = 0
    together = perspective_loss(pred, target, points, num_lines=45)
    alone = [perspective_loss(pred[i : i + 1], target[i : i + 1], points[i : i + 1], num_lines=45) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=0)


def test_flipped_image_and_point_give_the_reversed_profile():
    image = random_images(1, 3, 24, 31)
    # points whose lines do not pass exactly between pixels, where rounding has a side
    points = torch.tensor([[(-60.3, 13.1, 1.0), (14.23, 11.71, 1.0), (12.7, 90.9, 1.0), (2.0, 3.0, 0.0)]], dtype=torch.float64)
    flipped = points.clone()
    flipped[..., 0] = 30 * points[..., 2] - points[..., 0]
    profile = perspective_profile(image, points, num_lines=83)
    mirrored = perspective_profile(image.flip(-1), flipped, num_lines=83)
    # the flip turns (2, 3, 0) into (-2, 3, 0), whose sign is not the one that orders its lines: reversed once more
    expected = torch.cat([profile[:, :3].flip(-1), profile[:, 3:]], dim=1)
    torch.testing.assert_close(mirrored, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shift", [(0, 9), (6, 0), (-5, 7)])
def test_image_and_point_moved_together_meet_the_same_edges(shift):
    """For a point inside the image the lines' angles are fixed: what each line collects moves along, its length does not."""
    pattern = random_images(1, 3, 12, 12)
    collected = []
    for down, right in ((0, 0), shift):
        image = torch.zeros(1, 3, 56, 64, dtype=torch.float64)
        image[..., 20 + down : 32 + down, 24 + right : 36 + right] = pattern
        points = torch.tensor([[[30.25 + right, 22.6 + down, 1.0]]])
        profile = perspective_profile(image, points.double(), num_lines=65)
        collected.append(profile * sweep_lines(points, 56, 64, 65).count)
    torch.testing.assert_close(collected[0], collected[1], rtol=1e-6, atol=1e-6)
    assert collected[0].max() > 1


def test_gradients_are_exact():
    pred = random_images(1, 3, 7, 9, seed=5).requires_grad_()
    target = random_images(1, 3, 7, 9, seed=6).requires_grad_()
    points = torch.tensor([[(-6.0, 3.0, 1.0), (4.3, 3.2, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)]])
    assert torch.autograd.gradcheck(lambda a, b: perspective_loss(a, b, points, num_lines=13), (pred, target))
    assert torch.autograd.gradcheck(lambda a: perspective_profile(a, points, num_lines=13), (pred,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    pred, target = random_images(1, 3, 20, 24).to(dtype), random_images(1, 3, 20, 24, seed=1).to(dtype)
    points = torch.tensor([FINITE[:3]])
    pred.requires_grad_()
    loss = perspective_loss(pred, target, points, num_lines=60)
    assert loss.dtype == torch.float32
    exact = pred.detach().float().requires_grad_()
    torch.testing.assert_close(loss, perspective_loss(exact, target.float(), points, num_lines=60))
    loss.sum().backward()
    perspective_loss(exact, target.float(), points, num_lines=60).sum().backward()
    torch.testing.assert_close(pred.grad, exact.grad.to(dtype))


def test_autocast_does_not_lower_the_precision():
    pred, target = (random_images(1, 3, 20, 24, seed=s, dtype=torch.float32) for s in (0, 1))
    points = torch.tensor([FINITE[:3]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = perspective_loss(pred, target, points, num_lines=60)
    assert torch.equal(loss, perspective_loss(pred, target, points, num_lines=60))


def test_module_equals_function():
    pred, target = random_images(2, 3, 20, 24), random_images(2, 3, 20, 24, seed=1)
    points = torch.tensor([FINITE[:2], FINITE[2:4]])
    losses = perspective_loss(pred, target, points, num_lines=40)
    assert torch.equal(PerspectiveLoss(40, "none")(pred, target, points), losses)
    assert torch.equal(PerspectiveLoss(40)(pred, target, points), losses.mean())
    assert torch.equal(copy.deepcopy(PerspectiveLoss(40, reduction="sum"))(pred, target, points), losses.sum())
    assert PerspectiveLoss().num_lines == 1000
    assert "num_lines=1000" in repr(PerspectiveLoss())


def test_the_loss_repeats_bit_for_bit():
    pred, target = (random_images(2, 3, 64, 64, seed=s, dtype=torch.float32) for s in (0, 1))
    points = torch.tensor([FINITE[:4], FINITE[4:]])
    runs = []
    for _ in range(2):
        leaf = pred.clone().requires_grad_()
        loss = perspective_loss(leaf, target, points, num_lines=300)
        loss.sum().backward()
        runs.append((loss.detach(), leaf.grad))
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])


def test_not_a_number_in_an_image_shows_in_the_loss():
    pred, target = random_images(2, 3, 16, 16), random_images(2, 3, 16, 16)
    pred[1, 0, 8, 8] = float("nan")
    losses = perspective_loss(pred, target, torch.tensor([[FINITE[0]], [FINITE[0]]]), num_lines=40)
    assert losses[0] == 0
    assert losses[1].isnan()


@pytest.mark.parametrize(
    ("pred", "target", "points", "message"),
    [
        ((2, 1, 8, 8), (2, 1, 8, 8), (2, 1, 3), r"pred: expected floating \(B, 3, H, W\).*\(2, 1, 8, 8\)"),
        ((3, 8, 8), (3, 8, 8), (1, 1, 3), r"pred: expected floating \(B, 3, H, W\).*\(3, 8, 8\)"),
        ((2, 3, 8, 8), (2, 3, 8, 9), (2, 1, 3), r"target: expected \(2, 3, 8, 8\).*\(2, 3, 8, 9\)"),
        ((2, 3, 8, 8), (2, 3, 8, 8), (2, 3), r"vanishing_points: expected floating \(2, K, 3\), got \(2, 3\)"),
        ((2, 3, 8, 8), (2, 3, 8, 8), (1, 1, 3), r"vanishing_points: expected floating \(2, K, 3\), got \(1, 1, 3\)"),
        ((2, 3, 8, 8), (2, 3, 8, 8), (2, 1, 2), r"vanishing_points: expected floating \(2, K, 3\), got \(2, 1, 2\)"),
    ],
)
def test_wrong_shapes_are_named(pred, target, points, message):
    with pytest.raises(ValueError, match=message):
        perspective_loss(torch.rand(pred), torch.rand(target), torch.rand(points))


def test_other_bad_arguments_are_named():
    image, points = torch.rand(1, 3, 8, 8), torch.tensor([[FINITE[0]]])
    with pytest.raises(ValueError, match=r"pred: expected floating .*uint8"):
        perspective_loss((image * 255).to(torch.uint8), image, points)
    with pytest.raises(ValueError, match="num_lines: expected at least 2, got 1"):
        perspective_loss(image, image, points, num_lines=1)
    with pytest.raises(ValueError, match="finite"):
        perspective_loss(image, image, points * float("nan"))
    with pytest.raises(ValueError, match='reduction: expected "mean", "sum" or "none", got \'max\''):
        PerspectiveLoss(reduction="max")


def test_a_point_that_is_not_finite_reads_no_wild_address():
    """Where points cannot be checked without waiting for the device, they must make NaN, not a fault."""
    image = random_images(1, 3, 12, 12, dtype=torch.float32)
    lines = sweep_lines(torch.tensor([[[float("nan"), 1.0, 1.0], [1.0, 2.0, 1.0]]]), 12, 12, 20)
    (means,) = LineMeans.apply(lines, SobelGradient.apply(image))
    assert means[0, 0].isnan().all()
    assert means[0, 1].isfinite().all()
