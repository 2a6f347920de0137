"""Test sets of depth by name: what lies where, and how it is scored. Light: neither readers nor torch are imported here."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TestSet(BaseModel):
    """One test set. Several are a mapping of names to these."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    __test__ = False  # no class of tests, whatever its name

    layout: Literal["kitti", "kitti_objects", "diode", "folder"]
    """KITTI raw with its annotated depth, KITTI's object benchmark, DIODE, or a folder with depth/ (or with dataset.json)."""
    root: str
    """Where it lies."""
    depth_root: str | None = None
    """KITTI raw: annotated depth that is not in or beside the root."""
    split: str | None = None
    """A file that lists the frames to score; KITTI raw needs one, of the others all frames are scored without."""
    protocol: str
    """A name of ``alberti.metrics.depth.PROTOCOLS``."""
    alignments: dict[str, tuple[str, ...]] = Field(min_length=1)
    """Model -> alignments of its predictions with the ground truth; the first is the headline, the others stand beside it."""
    height: int | None = Field(default=None, gt=0)
    width: int | None = Field(default=None, gt=0)
    """Pixels that pictures are brought to before a model sees them; predictions are enlarged to the ground truth's size. None:
    as they are."""
    scenes: str = "auto"
    """Which frames show one scene, so that intervals resample them together. "auto": the drives of KITTI raw, DIODE's scenes,
    elsewhere every frame alone; "frame": every frame alone; else a CSV file with columns ``id`` and ``scene``."""
