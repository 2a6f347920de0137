"""The perspective loss's kernels for GPUs: in Triton's interpreter, and on a GPU where there is one."""

import os
import re
import subprocess
import sys
from typing import ClassVar

import pytest
import torch
from losses.reference_perspective import FINITE, random_images

from alberti.losses import perspective_loss, perspective_profile
from alberti.losses.perspective import torch_loss

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

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from alberti.losses._fused import _GATHER
from alberti.losses._sweep_triton import means_adjoint_kernel as kernel

constants = dict(_GATHER, grads_stride=1, RADIUS=5.0)
warps = constants.pop("num_warps")
if {one}:
    constants["count"] = 1  # Triton writes the number 1 into the code
types = dict(maps="*i64", lines="*i64", sweeps="*fp32", grads="*fp32", sign="fp32")
signature = {{name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names}}
aligned = ["maps", "lines", "sweeps", "height", "width"] + ["n"] * {divisible}
hints = {{(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned}}
source = ASTSource(kernel, signature, constants, hints)
print(triton.compile(source, target=GPUTarget("cuda", 90, 32), options=dict(num_warps=warps)).asm["ptx"])
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


@pytest.mark.parametrize("points", ["one", "several"])
@pytest.mark.parametrize("num_lines", ["a multiple of 16", "any"])
def test_the_compiler_takes_no_pull_for_a_single_bit(points, num_lines):
    """Compiles the means' adjoint for a GPU that need not be there: in other forms `bits & -2` became `bit ? -2 : 0`."""
    pytest.importorskip("triton")
    script = COMPILE.format(one=points == "one", divisible=num_lines != "any")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code = done.stdout
    assert re.search(r"and\.b32[^\n]*, -2;", code), (
        "the flags are cleared in another way now: look for what may go wrong with it"
    )
    assert not re.search(r"selp[^\n]*(FFFFFFFE|, -2,)", code)


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
