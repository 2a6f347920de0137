"""The perspective loss as its definition reads, slowly: one line after the other, one sample after the other.

Written from the definition and sharing no code or formula with ``alberti.losses``: plain angles, plain pixels. Finite
vanishing points only. Works on torch tensors, so that its gradient and its time can be compared too.
"""

import math

import torch

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


def gray_gradient(image):
    """(3, H, W) -> derivatives by x and by y of the gray image, (H, W) each: 3x3 Sobel, replicated border."""
    gray = 0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    padded = torch.nn.functional.pad(gray[None, None], (1, 1, 1, 1), mode="replicate")
    kernel = gray.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    by_x = torch.nn.functional.conv2d(padded, kernel[None, None])[0, 0]
    by_y = torch.nn.functional.conv2d(padded, kernel.T[None, None])[0, 0]
    return by_x, by_y


def line_angles(vx, vy, width, height, num_lines):
    """Equal steps from the smallest to the largest angle under which (vx, vy) sees the corner pixels' centres."""
    if 0 <= vx <= width - 1 and 0 <= vy <= height - 1:
        return [2 * math.pi * i / (num_lines - 1) for i in range(num_lines)]
    towards = math.atan2((height - 1) / 2 - vy, (width - 1) / 2 - vx)
    corners = [(x, y) for x in (0, width - 1) for y in (0, height - 1)]
    turns = [(math.atan2(y - vy, x - vx) - towards + math.pi) % (2 * math.pi) - math.pi for x, y in corners]
    low, high = min(turns), max(turns)
    return [towards + low + (high - low) * i / (num_lines - 1) for i in range(num_lines)]


def samples_of_line(vx, vy, angle, width, height):
    """The (column, row) of the pixels that a line reads: one a row if it is steep, one a column if it is flat."""
    cos, sin = math.cos(angle), math.sin(angle)
    if abs(sin) > abs(cos):
        pixels = [(math.floor(vx + (y - vy) * cos / sin + 0.5), y) for y in range(height)]
    else:
        pixels = [(x, math.floor(vy + (x - vx) * sin / cos + 0.5)) for x in range(width)]
    return [(x, y) for x, y in pixels if 0 <= x < width and 0 <= y < height]


def reference_profile(image, point, num_lines):
    """(3, H, W) and a homogeneous finite point (3,) -> list of the lines' values, 0-dimensional tensors."""
    by_x, by_y = gray_gradient(image)
    height, width = by_x.shape
    x, y, w = (float(value) for value in point)
    values = []
    for angle in line_angles(x / w, y / w, width, height, num_lines):
        normal_x, normal_y = -math.sin(angle), math.cos(angle)
        pixels = samples_of_line(x / w, y / w, angle, width, height)
        responses = [(by_x[row, column] * normal_x + by_y[row, column] * normal_y).abs() for column, row in pixels]
        values.append(sum(responses) / len(responses) if responses else by_x.new_zeros(()))
    return values


def reference_loss(pred, target, vanishing_points, num_lines):
    """(B, 3, H, W) twice and (B, K, 3) -> (B,)."""
    losses = []
    for pred_image, target_image, points in zip(pred, target, vanishing_points, strict=True):
        norms = []
        for point in points:
            if not bool(point.any()):
                continue
            pred_profile = torch.stack(reference_profile(pred_image, point, num_lines))
            target_profile = torch.stack(reference_profile(target_image, point, num_lines))
            norms.append(torch.linalg.vector_norm(pred_profile - target_profile))
        losses.append(sum(norms) / len(norms) if norms else pred_image.sum() * 0)
    return torch.stack(losses)
