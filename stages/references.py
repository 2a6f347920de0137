"""Stage references: pictures to compare every arm with, measured as an arm's pictures are.

`renders` are the pictures that the depth maps were rendered with. `reconstructions` are the renders sent through the base's
autoencoder. An arm that trains only the UNet cannot be expected to be straighter than those.
"""

from alberti.data.manifest import Dataset
from alberti.device import choose_device
from alberti.files import atomic_folder
from stages.shared.graph import Instance
from stages.shared.layout import Layout
from stages.shared.params import Params
from stages.shared.running import run_stage


def references(layout: Layout, params: Params, _: Instance) -> None:
    """Write `data/references/` (the reconstructions) and `metrics/references/{renders,reconstructions}.{json,csv}`."""
    from alberti.diffusion.model import DepthDiffusion
    from alberti.diffusion.reconstruct import reconstruct
    from alberti.metrics.features import feature_extractor
    from stages.shared.measures import measure, write_measures

    condition = Dataset.open(layout.data("condition"))
    model = DepthDiffusion.load(layout.base, device=choose_device())
    with atomic_folder(layout.references) as out:
        reconstruct(model, condition, out, params.references.batch_size, final=layout.references)
    extractor = feature_extractor(params.evaluate_images.extractor, choose_device())
    with atomic_folder(layout.metrics("references")) as out:
        write_measures(out / "renders.json", *measure(condition, condition, extractor))
        write_measures(out / "reconstructions.json", *measure(Dataset.open(layout.references), condition, extractor))


if __name__ == "__main__":
    run_stage(references)
