"""`fastcl pack`: images as tar shards."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from . import choices
from .ending import fail, one_line
from .extras import remedy


def pack(
    data: Annotated[str, typer.Argument(help="A folder of images, or what pretrain takes.")],
    out: Annotated[Path, typer.Argument(help="Folder of the shards.")],
    shorter_side: Annotated[
        int | None, typer.Option(min=8, help="Pixels that larger images are resized to.")
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(min=1, max=95, help="JPEG of this quality of every image, not only resized."),
    ] = None,
    per_shard: Annotated[int, typer.Option(min=1, help="Images of a shard.")] = 4096,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of the images.")] = 0,
    bad_images: Annotated[
        choices.BadImages, typer.Option(help="Of images that cannot be read: stop, or leave out.")
    ] = choices.BadImages.error,
) -> None:
    """Write images as tar shards that webdataset and fastcl read; the same command goes on, and
    checks what is there."""
    if find_spec("PIL") is None:
        fail(f"this needs {remedy(['pillow'])}")
    from ..data.pack import pack as write
    from ..pretrain.lock import locked

    console = Console()
    with one_line(), locked(out):
        found = write(
            data, out, shorter_side=shorter_side, quality=quality, per_shard=per_shard, seed=seed,
            bad=bad_images.value,
            tell=lambda text: console.print(text, markup=False, soft_wrap=True),
        )  # fmt: skip
    told = ", ".join(f"{count:,} of {split}" for split, count in found.items())
    console.print(f"packed and checked: {told}, in {out}", markup=False, soft_wrap=True)
