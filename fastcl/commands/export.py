"""`fastcl export`: the backbone of a run for other programs."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from . import choices
from .ending import fail, one_line
from .extras import remedy


def export(
    run: Annotated[
        Path, typer.Argument(help="A folder made by fastcl pretrain, or a file of its weights.")
    ],
    to: Annotated[
        choices.Format,
        typer.Option(
            help="timm or torchvision: safetensors that load there with strict=True; onnx; "
            "hub-folder: for the Hugging Face hub."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="File or folder; default: below exported/ of the run.")
    ] = None,
) -> None:
    """Write the backbone of a run as other programs load it, and say how they do."""
    if find_spec("safetensors") is None:
        fail(f"this needs {remedy(['safetensors'])}")
    from ..pretrain.export import export_backbone

    with one_line():
        done = export_backbone(run, to=to.value, out=out)
    console = Console()
    console.print(f"exported: {done.path}", markup=False, soft_wrap=True)
    console.print(f"\n{done.use}", markup=False, soft_wrap=True, highlight=False)
