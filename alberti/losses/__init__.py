"""Training losses: each a function that returns one value per image, (B,).

Names are imported when first used: the losses of depth need no perspective loss.
"""

from typing import TYPE_CHECKING

from alberti.lazy import lazy_names

if TYPE_CHECKING:
    from alberti.losses.perspective import PerspectiveLoss as PerspectiveLoss
    from alberti.losses.perspective import perspective_loss as perspective_loss
    from alberti.losses.perspective import perspective_profile as perspective_profile

__getattr__, __all__ = lazy_names(__name__, {"perspective": ("PerspectiveLoss", "perspective_loss", "perspective_profile")})
