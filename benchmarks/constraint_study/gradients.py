"""Gradients of each constraint at one-step estimates: how large, which way, on which edges; see __main__.py."""

import itertools
import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from figures import SHOWN
from shared import Streets, Study, bend
from torch import Tensor

from alberti.diffusion.constraints import CONSTRAINTS, Constraint
from alberti.diffusion.objective import predict_x0
from alberti.diffusion.sample import to_uint8
from alberti.losses.orientation import blur, edges, gray, present, stray_share

PUBLISHED_WEIGHT = 0.01
STRAY_DEGREES = 3.0
EDGE_SHARE = 0.01
"""Of the picture's largest edge energy; below it a pixel is no edge. A tenth of the strongest edge's contrast."""
EDGE_DEGREES = 5.0


def stray(decoded: Tensor, image: Tensor, vanishing_points: Tensor, alpha_bar: Tensor, *, num_lines: int = 1000) -> Tensor:
    """The share of stray edges alone, as guidance uses it: the orientation constraint without its price for lost edges."""
    return stray_share(decoded, vanishing_points, tolerance=STRAY_DEGREES)


MEASURED: dict[str, Constraint] = {**CONSTRAINTS, "stray": stray}


def gradients(study: Study, streets: Streets, figures: dict[str, np.ndarray]) -> dict[str, Any]:
    """For each noise level and constraint: means over pictures and noise draws of what ``_gradient_rows`` measures."""
    result: dict[str, Any] = {}
    for t in study.times:
        rows: list[dict[str, dict[str, list[float]]]] = []
        for part in streets.batches(study.batch):
            drawn = [_gradient_rows(study, part, t, draw) for draw in range(study.draws)]
            rows += [found for found, _ in drawn]
            rows += [_agreement(one, other) for (_, one), (_, other) in itertools.combinations(drawn, 2)]
        result[str(t)] = {
            "alpha_bar": round(float(study.schedule.alpha_bars[t]), 4),
            **{name: _pooled(row[name] for row in rows) for name in rows[0]},
        }
        print(f"gradients t={t}: {json.dumps(result[str(t)])}", flush=True)
    result["bent"] = _bent_gradients(study, streets, figures)
    return {"n": len(streets.ids), "draws": study.draws, "by_timestep": result}


def _gradient_rows(study: Study, streets: Streets, t: int, draw: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Per-picture figures of every loss at one noise draw, and its gradients at x0.

    ``norm_x0``: of the gradient at the x0 estimate, of weight 1 (the denoising loss is the mean over a latent's elements).
    ``ratio``: to the denoising loss's norm, at the published weight. ``equal_weight``: at which both norms are equal.
    ``cos_denoising``: between both gradients. In the picture, cosines of the step down the constraint: ``cos_sharpening`` with
    picture - blurred picture (sigma 1), ``cos_straightening`` with the step down the share of stray edges, ``cos_truth`` with
    truth - picture. The shares of ``on_edges``.
    """
    level, noise = study.level(streets, t), study.noise(streets, draw)
    x_t = study.schedule.add_noise(streets.latents, noise, level)
    output, x0 = study.predict(streets, x_t, t)
    plain = (output - study.schedule.target(streets.latents, noise, level)).square().mean(dim=(1, 2, 3))
    # the loss is |output - target|^2, quadratic in x0 - truth: its gradient is 2 loss / |x0 - truth|^2 times that difference
    difference = x0 - streets.latents
    energy = difference.square().sum(dim=(1, 2, 3)).clamp(min=1e-20)
    denoising = 2 * (plain / energy).view(-1, 1, 1, 1) * difference
    taken = {"denoising": denoising}
    rows: dict[str, Any] = {"denoising": {"value": plain.tolist(), "norm_x0": _norms(denoising).tolist()}}
    leaf = x0.detach().requires_grad_()
    picture = study.decode(leaf)
    for name, constraint in MEASURED.items():
        value, at_picture = _picture_gradient(study, constraint, picture, streets, level)
        (taken[name],) = torch.autograd.grad(picture, leaf, at_picture, retain_graph=True)
        ratio = _norms(taken[name]) / _norms(denoising)
        rows[name] = {
            "value": value.tolist(),
            "norm_x0": _norms(taken[name]).tolist(),
            "norm_output": (_norms(taken[name]) * _slope(study, streets, x_t, t)).tolist(),
            "ratio": (PUBLISHED_WEIGHT * ratio).tolist(),
            "equal_weight": (1 / ratio.clamp(min=1e-12)).tolist(),
            "cos_denoising": _cosines(taken[name], denoising).tolist(),
            **_where(at_picture, picture.detach(), streets),
        }
    return rows, taken


def _picture_gradient(
    study: Study, constraint: Constraint, picture: Tensor, streets: Streets, level: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    pixels = picture.detach().requires_grad_()
    value = study.value(constraint, pixels, streets, level)
    (gradient,) = torch.autograd.grad(value.sum(), pixels)
    return value.detach(), gradient


def _slope(study: Study, streets: Streets, x_t: Tensor, t: int) -> Tensor:
    """|d x0 / d output|, one number a sample: x0 is linear in the output."""
    one = torch.ones_like(x_t)
    level, kind = study.level(streets, t), study.schedule.prediction_type
    step = predict_x0(one, x_t, level, kind) - predict_x0(0 * one, x_t, level, kind)
    return step.abs().mean(dim=(1, 2, 3))


def _where(gradient: Tensor, picture: Tensor, streets: Streets) -> dict[str, list[float]]:
    pixels = picture.detach().requires_grad_()
    share = stray_share(pixels, streets.points, tolerance=STRAY_DEGREES)
    (bending,) = torch.autograd.grad(share.sum(), pixels)
    directions = {"sharpening": picture - blur(picture, 1.0), "straightening": -bending, "truth": streets.images - picture}
    cosines = {f"cos_{name}": _cosines(-gradient, direction).tolist() for name, direction in directions.items()}
    return cosines | on_edges(gradient, picture, streets.points)


def on_edges(gradient: Tensor, picture: Tensor, points: Tensor) -> dict[str, list[float]]:
    """Shares of a gradient's energy on edges that point at a vanishing point within 5 degrees, on stray edges and elsewhere.

    Per picture. ``area_*`` are the shares of pixels of each kind, to read them with. Edges are those of ``picture``.
    """
    energy, sines = edges(picture, points)
    sines = torch.where(present(points)[:, :, None, None], sines, torch.ones_like(sines)).amin(dim=1)
    edge = energy > EDGE_SHARE * energy.amax(dim=(1, 2), keepdim=True)
    true = edge & (sines < math.sin(math.radians(EDGE_DEGREES)) ** 2)
    density = gradient.square().sum(dim=1)
    kinds = {"true": true, "stray": edge & ~true, "flat": ~edge}
    total = density.sum(dim=(1, 2)).clamp(min=1e-20)
    result = {f"share_{name}": ((density * mask).sum(dim=(1, 2)) / total).tolist() for name, mask in kinds.items()}
    return result | {f"area_{name}": mask.float().mean(dim=(1, 2)).tolist() for name, mask in kinds.items()}


def _agreement(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, dict[str, list[float]]]:
    """Cosines between the gradients that two noise draws of the same picture give."""
    return {name: {"cos_draws": _cosines(one[name], other[name]).tolist()} for name in one}


def _pooled(rows: Iterable[dict[str, list[float]]]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, found in row.items():
            values.setdefault(name, []).extend(found)
    medians = {"ratio", "equal_weight"}
    return {name: float(f"{np.median(v) if name in medians else np.mean(v):.5g}") for name, v in values.items()}


def _norms(values: Tensor) -> Tensor:
    return values.flatten(1).norm(dim=1)


def _cosines(one: Tensor, other: Tensor) -> Tensor:
    return F.cosine_similarity(one.flatten(1), other.flatten(1), dim=1)


def _bent_gradients(study: Study, streets: Streets, figures: dict[str, np.ndarray]) -> dict[str, Any]:
    """The same shares at renders that are bent, sharp and without noise; one street's gradients for the figure."""
    bent, result = bend(streets, study.seed), {}
    level, shown = study.level(streets, 300), streets.part(slice(SHOWN, SHOWN + 1))
    x_t = study.schedule.add_noise(shown.latents, study.noise(shown, 0), level[:1])
    estimate = study.decode_all(study.predict(shown, x_t, 300)[1])
    figures["where/true"] = to_uint8(shown.images)[0]
    for label, picture in (("bent", bent[SHOWN : SHOWN + 1]), ("estimate", estimate)):
        figures[f"where/{label}"] = to_uint8(picture)[0]
        for name, constraint in MEASURED.items():
            drawn = _picture_gradient(study, constraint, picture, shown, None if label == "bent" else level[:1])[1]
            figures[f"where/{label}/{name}"] = gray(drawn)[0, 0].cpu().numpy()
    for name, constraint in MEASURED.items():
        value, gradient = _picture_gradient(study, constraint, bent, streets)
        result[name] = _pooled([{"value": value.tolist(), **_where(gradient, bent, streets)}])
    print(f"gradients at bent renders: {json.dumps(result)}", flush=True)
    return result
