"""`fastcl finetune` and `fastcl distill`: a classifier from a run and few labels."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .device import device_named
from .ending import need, one_line

console = Console()


def finetune(
    run: Annotated[Path, typer.Argument(help="A folder made by fastcl pretrain.")],
    fraction: Annotated[float, typer.Option(help="Of the labels of every class.")] = 0.1,
    from_layer: Annotated[
        int, typer.Option(min=0, help="Layers of the projection head that stay.")
    ] = 1,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of SGD; default: 30 epochs, 150 at least.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of draws and augmentation.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if any.")] = "auto",
) -> None:
    """Train a classifier from a middle layer of the head on a fraction of the labels."""
    need(("pretrain", "plot"), find_spec)
    from ..pretrain.display import Steps
    from .finetune import FINETUNED, finetune_run

    with one_line(), Steps(console) as shown:
        done = finetune_run(
            run, fraction=fraction, from_layer=from_layer, steps=steps, seed=seed,
            device=device_named(device), tell=shown.tell,
        )  # fmt: skip
    console.print(
        f"accuracy {done.accuracy:.1%} with {fraction:.0%} of the labels: {run / FINETUNED}",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def distill(
    run: Annotated[Path, typer.Argument(help="A run that fastcl finetune has seen.")],
    student: Annotated[
        str | None, typer.Option(help="Backbone of the student; default: the teacher's.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Share of the teacher; the rest: labels.")] = 1.0,
    temperature: Annotated[float, typer.Option(help="Divides the logits of both.")] = 1.0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of SGD; default: 30 epochs, 150 at least.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, draws and augmentation.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if any.")] = "auto",
) -> None:
    """Teach a student what the fine-tuned classifier says of all images."""
    need(("pretrain", "plot"), find_spec)
    from ..pretrain.display import Steps
    from .distill import DISTILLED, distill_run

    with one_line(), Steps(console) as shown:
        done = distill_run(
            run, student=student, alpha=alpha, temperature=temperature, steps=steps, seed=seed,
            device=device_named(device), tell=shown.tell,
        )  # fmt: skip
    console.print(
        f"accuracy {done.accuracy:.1%}, student {done.network}: {run / DISTILLED}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
