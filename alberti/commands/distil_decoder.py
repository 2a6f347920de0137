"""``alberti distil-decoder``: a small decoder for a base, so that the constraint costs a fraction of the VAE's decoder."""

import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from alberti.commands.options import at_home, check_device, refused_option
from alberti.data.manifest import Dataset
from alberti.diffusion.config import TinyDecoderConfig
from alberti.errors import ConfigError
from alberti.extras import require_extra

_DEFAULT = TinyDecoderConfig()


def distil_decoder(
    model: Annotated[str, typer.Argument(help="The base: a model folder in diffusers' layout, or a hub id.")],
    dataset: Annotated[Path, typer.Argument(help="The data set to learn on, such as data/train.")],
    out: Annotated[Path, typer.Option(help="The model folder to write: the base with `tiny_decoder/`.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the hub id.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps.")] = _DEFAULT.training.steps,
    batch_size: Annotated[int, typer.Option(help="Pictures per step.")] = _DEFAULT.training.batch_size,
    width: Annotated[int, typer.Option(help="Channels at every level; 32 suits pretrained/base.")] = _DEFAULT.width,
    blocks: Annotated[int, typer.Option(help="Residual blocks per level; 2 suits pretrained/base.")] = _DEFAULT.blocks,
    precision: Annotated[str, typer.Option(help="`no` or `bf16`.")] = _DEFAULT.training.precision,
    checkpoints: Annotated[Path, typer.Option(help="Folder that an interrupted run goes on from.")] = Path("checkpoints/tiny"),
    device: Annotated[str | None, typer.Option(help="cuda or cpu; a GPU if there is one.")] = None,
) -> None:
    """Train a small decoder that imitates the base's own, so that fine-tuning with a constraint costs less.

    OUT is the base with that decoder. Use it as `base.path`, with `decoder: tiny` in an arm.
    """
    from alberti.outputs import check_output_folder

    dataset, out, checkpoints = at_home(dataset), at_home(out), at_home(checkpoints)
    if out.exists():
        raise ConfigError(f"--out {out}: exists already; name another folder, or delete it")
    check_output_folder(out, [Path(model).expanduser(), dataset])
    changes = {"steps": steps, "batch_size": batch_size, "precision": precision}
    settings = {"training": _DEFAULT.training.model_dump() | changes, "width": width, "blocks": blocks}
    try:
        config = TinyDecoderConfig.model_validate(settings)
    except ValidationError as error:
        raise refused_option(error) from None
    require_extra("diffusion", "alberti distil-decoder")

    from alberti.diffusion.model import DepthDiffusion
    from alberti.diffusion.tiny import distil_tiny_decoder

    where = check_device(device)
    base = DepthDiffusion.load(os.path.expanduser(model), revision=revision)
    history = distil_tiny_decoder(base, Dataset.open(dataset), config, checkpoints=checkpoints, device=where, out=out)
    print(f"{out}: L1 against the full decoder {history[-1]['l1']:.4f} (pictures in [0, 1])")
