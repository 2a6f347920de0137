import math

import numpy as np
import pytest
import torch
from torch import Tensor

from alberti.losses.depth import align, gradient_loss, least_squares, silog_loss, ssi_trimmed_loss, valid_pixels

LOSSES = {
    "silog": silog_loss,
    "ssi median": ssi_trimmed_loss,
    "ssi least squares": lambda p, t, m=None: ssi_trimmed_loss(p, t, m, alignment="least_squares"),
    "gradient": gradient_loss,
    "gradient least squares": lambda p, t, m=None: gradient_loss(p, t, m, alignment="least_squares"),
}


@pytest.fixture
def maps() -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, target and mask (3, 9, 11) in float64."""
    generator = torch.Generator().manual_seed(0)
    pred = torch.rand(3, 9, 11, generator=generator, dtype=torch.float64) * 10 + 1
    target = torch.rand(3, 9, 11, generator=generator, dtype=torch.float64) * 10 + 1
    return pred, target, torch.rand(3, 9, 11, generator=generator) < 0.7


@pytest.mark.parametrize("name", LOSSES)
class TestEveryLoss:
    def test_is_zero_with_zero_gradient_on_a_perfect_prediction(self, name, maps):
        _, target, mask = maps
        pred = target.clone().requires_grad_()
        loss = LOSSES[name](pred, target, mask)
        loss.sum().backward()
        assert loss.abs().max() < 1e-12
        assert torch.isfinite(pred.grad).all()

    def test_gradient(self, name, maps):
        pred, target, mask = maps
        torch.autograd.gradcheck(lambda p: LOSSES[name](p, target, mask), pred.requires_grad_())

    def test_a_batch_equals_its_samples(self, name, maps):
        pred, target, mask = maps
        single = [LOSSES[name](pred[i : i + 1], target[i : i + 1], mask[i : i + 1]) for i in range(3)]
        torch.testing.assert_close(LOSSES[name](pred, target, mask), torch.cat(single))

    def test_pixels_without_ground_truth_do_not_count(self, name, maps):
        pred, target, mask = maps
        expected = LOSSES[name](pred, target, mask)
        changed, holes = pred.clone(), torch.where(mask, target, 0.0)
        changed[~mask] = torch.nan
        holes[0, ~mask[0]] = torch.nan
        holes[1, ~mask[1]] = torch.inf
        changed.requires_grad_()
        loss = LOSSES[name](changed, holes)
        torch.testing.assert_close(loss, expected)
        loss.sum().backward()
        assert torch.isfinite(changed.grad).all()
        assert not changed.grad[~mask].any()

    def test_a_sample_without_ground_truth_contributes_zero_and_is_counted(self, name, maps):
        pred, target, mask = maps
        mask[1] = False
        pred.requires_grad_()
        loss = LOSSES[name](pred, target, mask)
        loss.sum().backward()
        assert loss[1] == 0
        assert loss[0] > 0
        assert not pred.grad[1].any()
        assert torch.isfinite(pred.grad).all()
        assert (valid_pixels(target, mask) == mask.flatten(1).sum(1)).all()

    def test_half_precision_is_computed_in_float32(self, name, maps):
        pred, target, mask = (maps[0].bfloat16(), maps[1].bfloat16(), maps[2])
        loss = LOSSES[name](pred, target, mask)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, LOSSES[name](pred.float(), target.float(), mask))

    def test_wrong_shapes_are_named(self, name, maps):
        pred, target, mask = maps
        with pytest.raises(ValueError, match=r"\(3, 9, 11\) and \(3, 9, 10\)"):
            LOSSES[name](pred, target[..., :-1], mask)
        with pytest.raises(ValueError, match="mask"):
            LOSSES[name](pred, target, mask[:1])


def test_silog_of_a_constant_factor():
    target = torch.rand(2, 4, 5) + 1
    expected = 10 * math.sqrt(1 - 0.85) * math.log(1.3)
    torch.testing.assert_close(silog_loss(1.3 * target, target), torch.full((2,), expected), rtol=1e-4, atol=1e-5)


def test_silog_against_the_definition(maps):
    pred, target, mask = maps
    for sample in range(3):
        g = np.log(pred[sample][mask[sample]]) - np.log(target[sample][mask[sample]])
        expected = 10 * math.sqrt((g**2).mean() - 0.85 * g.mean() ** 2)
        assert silog_loss(pred, target, mask)[sample].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("alignment", ["median", "least_squares"])
@pytest.mark.parametrize("loss", [ssi_trimmed_loss, gradient_loss])
def test_scale_and_shift_of_the_prediction_do_not_matter(loss, alignment, maps):
    pred, target, mask = maps
    expected = loss(pred, target, mask, alignment=alignment)
    torch.testing.assert_close(loss(7 * pred - 3, target, mask, alignment=alignment), expected)
    assert loss(3 * target + 2, target, mask, alignment=alignment).abs().max() < 1e-12


def test_ssi_by_hand():
    # Medians 2, mean absolute deviations 1.2 and 2.0: aligned (-1, 0) / 1.2, ... against (-1, 0, ...) / 2.
    target = torch.tensor([[[1.0, 1.0, 2.0, 3.0, 5.0]]])
    pred = torch.tensor([[[1.0, 1.0, 2.0, 3.0, 9.0]]])
    residual = np.abs((pred[0, 0].numpy() - 2) / 2.0 - (target[0, 0].numpy() - 2) / 1.2)
    kept = np.sort(residual)[:4]
    assert ssi_trimmed_loss(pred, target).item() == pytest.approx(kept.sum() / 10, rel=1e-6)
    assert ssi_trimmed_loss(pred, target, trim=0.0).item() == pytest.approx(residual.sum() / 10, rel=1e-6)


def test_the_largest_fifth_of_the_residuals_is_left_out(maps):
    pred, target, mask = maps
    loss = ssi_trimmed_loss(pred, target, mask)
    for i in range(3):
        p, y = pred[i][mask[i]].numpy(), target[i][mask[i]].numpy()
        p, y = (v - np.sort(v)[(len(v) - 1) // 2] for v in (p, y))
        residual = np.sort(np.abs(p / np.abs(p).mean() - y / np.abs(y).mean()))
        kept = residual[: round(0.8 * len(residual))]
        assert loss[i].item() == pytest.approx(kept.sum() / (2 * len(residual)), rel=1e-9)


def test_align_takes_the_lower_median_and_leaves_a_constant_finite():
    values = torch.tensor([[[4.0, 1.0], [3.0, 2.0]], [[5.0, 5.0], [5.0, 5.0]]])
    valid = torch.ones_like(values, dtype=torch.bool)
    aligned = align(values, valid)
    torch.testing.assert_close(aligned[0], torch.tensor([[2.0, -1.0], [1.0, 0.0]]))
    assert not aligned[1].any()


def test_least_squares_against_numpy(maps):
    pred, target, mask = maps
    s, t = least_squares(pred, target, mask)
    for i in range(3):
        p, y = pred[i][mask[i]].numpy(), target[i][mask[i]].numpy()
        expected = np.linalg.lstsq(np.stack([p, np.ones_like(p)], 1), y, rcond=None)[0]
        np.testing.assert_allclose([s[i], t[i]], expected, rtol=1e-9)
    constant_s, constant_t = least_squares(torch.full_like(pred, 4.0), target, mask)
    assert not constant_s.any()
    torch.testing.assert_close(constant_t[0], target[0][mask[0]].mean())


def test_gradient_loss_against_a_plain_loop(maps):
    pred, target, mask = maps
    residual = (align(pred, mask) - align(target, mask)).numpy()
    expected = np.zeros(3)
    for b in range(3):
        for step in (1, 2, 4, 8):
            r, m = residual[b, ::step, ::step], mask[b, ::step, ::step].numpy()
            total = 0.0
            for y in range(r.shape[0]):
                for x in range(r.shape[1]):
                    if x + 1 < r.shape[1] and m[y, x] and m[y, x + 1]:
                        total += abs(r[y, x + 1] - r[y, x])
                    if y + 1 < r.shape[0] and m[y, x] and m[y + 1, x]:
                        total += abs(r[y + 1, x] - r[y, x])
            expected[b] += total / max(m.sum(), 1)
    np.testing.assert_allclose(gradient_loss(pred, target, mask), expected, rtol=1e-9)


def test_bad_options_are_named(maps):
    pred, target, mask = maps
    with pytest.raises(ValueError, match="trim"):
        ssi_trimmed_loss(pred, target, mask, trim=1.0)
    with pytest.raises(ValueError, match="scales"):
        gradient_loss(pred, target, mask, scales=0)
    with pytest.raises(ValueError, match="alignment"):
        gradient_loss(pred, target, mask, alignment="mean")
