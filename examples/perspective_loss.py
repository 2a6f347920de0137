"""The perspective loss in a training loop of your own: python examples/perspective_loss.py

A small network learns to undo a blur. The loss of images is the network's own; the perspective loss is one more line. It needs
each picture's vanishing points, which rendered streets bring and `alberti annotate` finds in photographs.
"""

import torch
import torch.nn.functional as F

from alberti.data.scenes import SceneConfig, render_scenes
from alberti.data.transforms import stack_vanishing_points
from alberti.losses import PerspectiveLoss


def main(streets: int = 8, steps: int = 100, side: int = 64) -> list[float]:
    scenes = list(render_scenes([str(i) for i in range(streets)], seed=1, config=SceneConfig(width=side, height=side)))
    images = torch.stack([torch.from_numpy(scene.image) for scene in scenes]).permute(0, 3, 1, 2) / 255
    points = torch.from_numpy(stack_vanishing_points([scene.vanishing_points for scene in scenes]))
    blurred = F.avg_pool2d(images, 5, stride=1, padding=2)

    network = torch.nn.Conv2d(3, 3, 7, padding=3)
    straight = PerspectiveLoss(num_lines=200)
    optimizer, history = torch.optim.Adam(network.parameters(), lr=1e-2), []
    for step in range(steps):
        sharpened = network(blurred).clamp(0, 1)
        loss = F.l1_loss(sharpened, images) + 0.01 * straight(sharpened, images, points)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
        if step % 10 == 0:
            print(f"step {step}: {history[-1]:.4f}")
    return history


if __name__ == "__main__":
    main()
