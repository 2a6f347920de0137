import copy
import os
import subprocess
import sys
from typing import ClassVar

import pytest
import torch
from losses.reference_perspective import reference_loss, reference_profile

from alberti.losses import PerspectiveLoss, perspective_loss, perspective_profile
from alberti.losses._sweep import LineMeans, SobelGradient, sweep_lines
from alberti.losses.perspective import torch_loss

FINITE = [
    (-60.0, 13.0, 1.0),  # left
    (200.0, 9.5, 1.0),  # right, where angles from +x would wrap around
    (12.0, 90.0, 1.0),
    (17.3, -1.2, 1.0),  # just above the first row
    (60.0, -80.0, 1.0),
    (14.2, 11.7, 1.0),  # inside
    (0.0, 0.0, 1.0),  # on the corner, which is inside
    (20000.0, 30000.0, 1.0),
]


def random_images(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


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


FUSED_AGREEMENT = """
import torch
from alberti.losses import _fused
from alberti.losses._fused import FusedLoss, FusedProfiles
from alberti.losses.perspective import torch_loss, torch_profiles

device = "cuda" if torch.cuda.is_available() else "cpu"
exact = torch.float64 if device == "cuda" else torch.float32
generator = torch.Generator().manual_seed(0)
points = torch.tensor({points}).repeat(2, 1, 1).to(device)
points[1, 2:4] = 0
LINES = 44  # 43 steps, so that no line of these points passes exactly between pixels or at 45 degrees


def reference(function, points, *images):
    found = function(points.cpu().to(exact), *(image.cpu().to(exact) for image in images))
    return found.to(device, torch.float32)


def agree(got, expected):
    # a sample that rounds to another pixel changes 1 of 1500 values of the profiles, or 54 of 5000 of the gradient
    differs = (got - expected).abs() > 1e-4 * expected.abs().max()
    assert (got - expected).abs().median() < 1e-5
    assert differs.double().mean() < 0.03, differs.double().mean()


def gradients(loss, leaves, times=1):
    for _ in range(times):
        found = torch.autograd.grad(loss, leaves, retain_graph=True)
    return found


everything = list(range(points.shape[1]))
for height, width, tile, which in (40, 19, (8, 8), [5, 14, 15]), (22, 37, (32, 64), everything), (40, 19, (64, 32), everything):
    if device == "cpu":  # small tiles for points in and beside the image, else one: the interpreter runs programs one by one
        for table in (_fused._GATHER, _fused._TILE, _fused._ADJOINT_TILE):
            table.update(BLOCK_Y=tile[0], BLOCK_X=tile[1])
    chosen = points[:, which]
    pred, target = torch.rand(2, 2, 3, height, width, generator=generator).to(device)
    pred.requires_grad_()
    profiles = FusedProfiles.apply(chosen, LINES, pred)
    expected = reference(lambda points, image: torch_profiles(points, LINES, image)[0], chosen, pred)
    agree(profiles, expected)
    assert (profiles[(chosen == 0).all(dim=-1)] == 0).all()
    weight = torch.randn(profiles.shape, generator=generator).to(device)
    (gradient,) = gradients((profiles * weight).sum(), [pred])
    agree(gradient, gradients((expected * weight).sum(), [pred])[0])
    # Euler: profiles grow in proportion with the image, so that this holds unless a sample's gradient is lost
    size = (profiles * weight).abs().sum()
    assert ((gradient * pred).sum() - (profiles * weight).sum()).abs() < 1e-6 * size

few = points[:, 3:6]
weight = torch.tensor([2.0, -0.5], device=device)
for target_needs, pred_needs in ((False, True), (True, True), (True, False)):
    leaves = [leaf for leaf in (pred.requires_grad_(pred_needs), target.requires_grad_(target_needs)) if leaf.requires_grad]
    losses = FusedLoss.apply(few, LINES, pred, target)
    expected = reference(lambda points, *images: torch_loss(*images, points, num_lines=LINES), few, pred, target)
    torch.testing.assert_close(losses, expected, rtol=5e-3, atol=0)
    found = gradients((losses * weight).sum(), leaves)
    for pair in zip(found, gradients((expected * weight).sum(), leaves), strict=True):
        agree(*pair)
again = gradients((losses * weight).sum(), leaves, times=2)
assert torch.equal(again[0], found[0])  # though the first time wrote into what it had kept

half, target = pred.detach().bfloat16().requires_grad_(), target.detach()
losses = FusedLoss.apply(few[:, :1], LINES, half.to(memory_format=torch.channels_last), target)
assert losses.dtype == torch.float32
losses.sum().backward()  # a gradient whose stride is 0, one point, two dtypes
single = half.detach().float().requires_grad_()
FusedLoss.apply(few[:, :1], LINES, single, target).sum().backward()
assert half.grad.dtype == torch.bfloat16
torch.testing.assert_close(half.grad, single.grad.bfloat16())

equal = target.clone().requires_grad_()
FusedLoss.apply(few, LINES, equal, target).sum().backward()
assert (equal.grad == 0).all()
none = FusedLoss.apply(few[:, :0], LINES, equal, target)
none.sum().backward()
assert none.tolist() == [0, 0] and (equal.grad == 0).all()
assert FusedLoss.apply(torch.zeros_like(few), LINES, single.detach(), target).tolist() == [0, 0]

bad = few.clone()
bad[0, 0, 0] = float("nan")
profiles = FusedProfiles.apply(bad, LINES, target)
assert profiles[0, 0].isnan().all() and profiles[0, 1:].isfinite().all()
losses = FusedLoss.apply(bad, LINES, single, target)
assert losses[0].isnan() and losses[1].isfinite()
losses.sum().backward()  # reads no wild address
blind = single.detach().clone()
blind[1, 0, 5, 5] = float("nan")
losses = FusedLoss.apply(few, LINES, blind, target)
assert losses[1].isnan() and losses[0].isfinite()
print("agreed")
"""


def test_fused_kernels_agree_with_the_definition():
    """Runs on the GPU where there is one, else in Triton's interpreter, which must be chosen before Triton is imported.

    A position is one multiplication and one addition, which a GPU fuses and a CPU rounds twice: where a line passes
    exactly between two pixels, they may choose either. Such points are for the interpreter alone, which rounds as the
    CPU does. Points moved by irrational amounts have no ties; the GPU's float32 is held to the definition in float64
    there, and since a position is off by up to 1e-5 pixels, about one of 50000 samples may still differ: a share is
    counted. Euler's identity holds for either choice, so it fails if the gradient of any sample is lost.
    """
    pytest.importorskip("triton")
    points = [*FINITE, (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, -1.0, 0.0), (7.0, 7.0, -1.0), (-3e7, 20.0, 1.0)]
    points += [(9.5, -0.01, 1.0), (-0.001, 10.0, 1.0), (10.0, -1.1, 1.0)]  # lines reach pixels behind such points
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    if torch.cuda.is_available():
        moved = (2**0.5 / 1e3, -(3**0.5) / 1e3)
        points = [tuple(p + m * any(point) for p, m in zip(point, (*moved, 0.0), strict=True)) for point in points]
    else:
        environment["TRITON_INTERPRET"] = "1"
    script = FUSED_AGREEMENT.format(points=[points])
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "agreed" in done.stdout


def test_a_kernel_is_not_taken_for_another_form_of_itself():
    pytest.importorskip("triton")
    from alberti.losses import _fused

    class Kernel:
        arg_names = ("image", "IMAGES")

        def __getitem__(self, grid):
            return lambda image, IMAGES: Compiled(f"of {IMAGES}")

    class Compiled:
        launched: ClassVar[list[str]] = []

        def __init__(self, name):
            self.name = name

        def __getitem__(self, grid):
            return lambda *arguments: self.launched.append(self.name)

    kernel = Kernel()
    for images in (1, 2, 1, 2):
        _fused._launch(kernel, ("device",), (1, 1, 1), ("image",), {"IMAGES": images})
    assert Compiled.launched == ["of 1", "of 2"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("size", [(40, 19), (96, 320), (128, 128), (512, 512)])
def test_on_a_gpu_every_pixel_has_its_gradient(size, count):
    height, width = size
    points = [[[205.0 % width, 256.0 % height, 1.0], [3.0 * width, 0.6 * height, 1.0], [0.0, 1.0, 0.0]][:count]] * 2
    pred, target = torch.rand(2, 2, 3, height, width, generator=torch.Generator().manual_seed(0)).cuda()
    points = torch.tensor(points).cuda()
    pred.requires_grad_()
    perspective_profile(pred, points)  # the same shapes, for a single image
    (found,) = torch.autograd.grad(perspective_loss(pred, target, points).sum(), pred)
    (expected,) = torch.autograd.grad(torch_loss(pred.double(), target.double(), points.double(), num_lines=1000).sum(), pred)
    assert found.isfinite().all()
    assert (found - expected).norm() < 0.01 * expected.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_the_loss_equals_the_cpu_s():
    pred, target = (random_images(2, 3, 96, 128, seed=s, dtype=torch.float32) for s in (0, 1))
    points = torch.tensor([FINITE[:4], FINITE[4:]])
    on_cpu, on_gpu = pred.clone().requires_grad_(), pred.clone().cuda().requires_grad_()
    expected = perspective_loss(on_cpu, target, points)
    loss = perspective_loss(on_gpu, target.cuda(), points)
    torch.testing.assert_close(loss.cpu(), expected, rtol=5e-3, atol=0)
    expected.sum().backward()
    loss.sum().backward()
    assert (on_gpu.grad.cpu() - on_cpu.grad).norm() < 0.01 * on_cpu.grad.norm()


def test_a_point_that_is_not_finite_reads_no_wild_address():
    """Where points cannot be checked without waiting for the device, they must make NaN, not a fault."""
    image = random_images(1, 3, 12, 12, dtype=torch.float32)
    lines = sweep_lines(torch.tensor([[[float("nan"), 1.0, 1.0], [1.0, 2.0, 1.0]]]), 12, 12, 20)
    (means,) = LineMeans.apply(lines, SobelGradient.apply(image))
    assert means[0, 0].isnan().all()
    assert means[0, 1].isfinite().all()
