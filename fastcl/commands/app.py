"""The subcommands of `fastcl`, on typer."""

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..version import __version__
from . import choices, few_labels
from .device import device_named
from .ending import fail, need, one_line
from .export import export
from .pack import pack

app = typer.Typer(
    help="Contrastive learning at the speed of the hardware.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
console = Console()


def _version(asked: bool) -> None:
    if asked:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Contrastive learning at the speed of the hardware."""


def _need(*extras: str) -> None:
    """Leave with the command that installs what is missing."""
    need(extras, find_spec)


@app.command()
def pretrain(
    method: Annotated[choices.Method, typer.Option(help="Which method.")] = choices.MOCO,
    data: Annotated[
        str,
        typer.Option(
            help="digits, or a path: a folder of images, tar shards, a Hugging Face dataset, an "
            ".npz or .npy."
        ),
    ] = "digits",
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the recipe's.")] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="small, resnet18, resnet50, timm:NAME, torchvision:NAME."),
    ] = None,
    stem: Annotated[
        choices.Stem, typer.Option(help="Of the ResNets; auto by image size.")
    ] = choices.Stem.auto,
    image_size: Annotated[
        int | None, typer.Option(min=8, help="Side that images of a folder are resized to.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Images of each split at most, for quick runs.")
    ] = None,
    stream: Annotated[
        choices.Stream, typer.Option(help="Read images while training; auto: those above 1 GiB.")
    ] = choices.Stream.auto,
    bad_images: Annotated[
        choices.BadImages,
        typer.Option(help="That cannot be read: an error, or left out and named."),
    ] = choices.BadImages.error,
    batch_size: Annotated[int | None, typer.Option(help="Over all devices.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    optimizer: Annotated[
        choices.Optimizer | None, typer.Option(help="Default: the recipe's, as for what follows.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0, help="Of every step.")] = None,
    warmup: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the steps in which lr rises.")
    ] = None,
    augmentation: Annotated[
        float, typer.Option(min=0, max=2, help="Strength of the views; 1 is the recipe's.")
    ] = 1.0,
    temperature: Annotated[float | None, typer.Option(help="Of the loss.")] = None,
    queue_size: Annotated[int | None, typer.Option(help="Rows in the method's queue.")] = None,
    momentum: Annotated[
        float | None,
        typer.Option(
            "--twin-momentum", "--momentum", help="Of the method's twin or bank, not of SGD."
        ),
    ] = None,
    precision: Annotated[
        choices.Precision, typer.Option(help="auto: bf16 on a GPU that has it, else 32.")
    ] = choices.Precision.auto,
    devices: Annotated[str, typer.Option(help="auto: every GPU, or one CPU process.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Decides every random number.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: below runs/.")] = None,
    resume: Annotated[
        str, typer.Option(help="auto: go on where the run folder ends; never; or a checkpoint.")
    ] = "auto",
    stop_after: Annotated[
        int | None, typer.Option(min=1, help="Stop after this epoch; repeat to go on.")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="Steps; beside the checkpoint of every epoch.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="What the backbone starts from: a file of timm or torchvision, a run."),
    ] = None,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Parts of every batch, each with negatives of its own.")
    ] = 1,
    compile: Annotated[bool, typer.Option(help="The networks, by torch.compile.")] = False,
    cuda_graph: Annotated[
        bool, typer.Option(help="Replay the whole step as one CUDA graph; of most methods.")
    ] = False,
    channels_last: Annotated[bool, typer.Option(help="How networks lie in memory.")] = True,
    logger: Annotated[
        choices.Logger, typer.Option(help="Where figures go beside the run folder.")
    ] = choices.Logger.none,
) -> None:
    """Pretrain a backbone without labels and say how good its features are."""
    _need("pretrain", "plot")
    # Their advice (more loader workers, SLURM) is not for users of this command.
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning_fabric")
    from ..pretrain.session import pretrain as start

    with one_line():
        start(
            console, method=method.value, data=data, epochs=epochs, backbone=backbone,
            stem=stem.value, image_size=image_size, limit=limit, batch_size=batch_size,
            learning_rate=lr, optimizer=optimizer and optimizer.value, weight_decay=weight_decay,
            warmup=warmup, augmentation=augmentation, temperature=temperature,
            queue_size=queue_size, momentum=momentum,
            precision=precision.value, devices=devices, seed=seed, out=out, resume=resume,
            stop_after=stop_after, stream=stream.value, bad_images=bad_images.value,
            checkpoint_every=checkpoint_every, weights=weights, accumulate=accumulate,
            compile=compile, cuda_graph=cuda_graph, channels_last=channels_last,
            logger=logger.value,
        )  # fmt: skip


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A folder made by fastcl pretrain.")],
    data: Annotated[
        str | None, typer.Option(help="Other data than the run's, with labels, as pretrain takes.")
    ] = None,
    bad_images: Annotated[
        choices.BadImages | None,
        typer.Option(help="That cannot be read: an error, or left out; default: as in the run."),
    ] = None,
    knn_k: Annotated[int, typer.Option(min=1, help="Neighbours that vote.")] = 20,
    temperature: Annotated[float, typer.Option(help="Of the weights of their votes.")] = 0.07,
    fractions: Annotated[
        str, typer.Option(help="Of the labels to fine-tune with; '' fine-tunes nothing.")
    ] = "0.01,0.1",
    finetune_steps: Annotated[
        int | None, typer.Option(min=1, help="Of SGD; default: 30 epochs, 150 at least.")
    ] = None,
    retrieval_k: Annotated[int, typer.Option(min=1, help="Neighbours retrieved.")] = 10,
    embedding: Annotated[
        choices.Embedding, typer.Option(help="Of the plot; auto: UMAP where it is installed.")
    ] = choices.Embedding.auto,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Images of each split at most; default: the run's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of draws and augmentation.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if any.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Where to write; default: the run.")] = None,
) -> None:
    """Measure a run: table, pictures and one report.html."""
    _need("pretrain", "plot")
    from ..evaluate.measure import Choices
    from ..evaluate.session import REPORT, evaluate_run
    from ..pretrain.display import Steps, print_metrics

    with one_line():
        wanted = Choices(
            knn_k=knn_k, temperature=temperature, fractions=_numbers("fractions", fractions),
            finetune_steps=finetune_steps, retrieval_k=retrieval_k, embedding=embedding.value,
            seed=seed,
        )  # fmt: skip
        with Steps(console) as steps:
            found = evaluate_run(
                run, wanted, device=device_named(device), out=out, limit=limit, data=data,
                bad=bad_images and bad_images.value, tell=steps.tell,
            )  # fmt: skip
    config = found.config
    text = f"{config.method}, {config.backbone}, {config.epochs} epochs on {config.data}"
    console.print(text, markup=False, soft_wrap=True)
    print_metrics(console, found.metrics)
    console.print(f"report: {found.folder / REPORT}", markup=False, soft_wrap=True)


def _numbers(name: str, text: str) -> tuple[float, ...]:
    """Numbers between commas."""
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"{name} must be numbers between commas, got {text!r}") from None


app.command()(few_labels.finetune)
app.command()(few_labels.distill)
app.command()(export)
app.command()(pack)


@app.command("warm-up")
def warm_up(
    loss: Annotated[choices.Loss, typer.Argument(help="Function of fastcl.functional.")],
    rows: Annotated[int, typer.Option(min=1, help="Batch size.")],
    width: Annotated[int, typer.Option(min=1, help="Features of a row.")],
    dtype: Annotated[choices.Dtype, typer.Option(help="Of the rows.")] = choices.Dtype.bfloat16,
    queue: Annotated[int, typer.Option(min=1, help="Columns of moco.")] = 65536,
    temperature: Annotated[float | None, typer.Option(help="Default: the function's.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if any.")] = "auto",
) -> None:
    """Compile the kernels of a loss, also for an odd last batch, before a run needs them."""
    from .warm_up import DTYPES
    from .warm_up import warm_up as compile_kernels

    try:
        compile_kernels(
            loss.value, rows=rows, width=width, dtype=DTYPES[dtype.value], queue=queue,
            temperature=temperature, device=device_named(device),
        )  # fmt: skip
    except (ValueError, RuntimeError) as error:
        fail(error)
    console.print(f"{loss.value} is ready on {device_named(device)}", markup=False)


@app.command()
def views(
    data: Annotated[str, typer.Argument(help="An image, or what fastcl pretrain takes.")],
    preset: Annotated[choices.Preset, typer.Option(help="Whose views.")] = choices.SIMCLR,
    size: Annotated[int, typer.Option(min=1, help="Side of a view in pixels.")] = 224,
    count: Annotated[int, typer.Option(min=1, help="Images, one in each column.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of images and views.")] = 0,
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("views.png"),
) -> None:
    """Draw what the network sees: your images, and a row for every view of them."""
    _need("views", *(["pretrain"] if data == "digits" else []))
    from .views import write_sheet

    with one_line():
        write_sheet(data, preset=preset.value, size=size, count=count, seed=seed, out=out)
    console.print(f"views: {out}", markup=False, soft_wrap=True)


@app.command()
def doctor() -> None:
    """Say what is installed, which kernel runs where, and what to do about what is missing."""
    from .doctor import report

    print(report())
