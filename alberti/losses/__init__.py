"""Training losses: each a function that returns one value an image, (B,)."""

from alberti.losses.perspective import PerspectiveLoss, perspective_loss, perspective_profile

__all__ = ["PerspectiveLoss", "perspective_loss", "perspective_profile"]
