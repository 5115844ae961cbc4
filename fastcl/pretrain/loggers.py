"""Where the figures of a run go beside its folder: TensorBoard or Weights & Biases."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from lightning_fabric.loggers import Logger, TensorBoardLogger

CHOICES = "none", "tensorboard", "wandb"
FOLDER = "tensorboard"


class WandbLogger(Logger):
    """Weights & Biases, which Fabric has no logger for.

    Args:
        folder: Of the run; its name is that of the run there.
    """

    def __init__(self, folder: Path) -> None:
        import wandb

        # One id for one folder: a run that goes on stays one run there.
        identity = folder.resolve().name
        self._run = wandb.init(
            project="fastcl", name=identity, id=identity, dir=folder, resume="allow"
        )

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str:
        return self._run.id

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._run.log(metrics, step=step)

    def log_hyperparams(self, params: dict) -> None:
        self._run.config.update(params, allow_val_change=True)

    def finalize(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "success" else 1)


def check_logger(name: str) -> None:
    """Raises ValueError for an unknown name, ModuleNotFoundError where its package is absent."""
    if name not in CHOICES:
        raise ValueError(f"logger must be one of {', '.join(CHOICES)}, got {name!r}")
    packages = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}.get(name)
    if packages is not None and not any(find_spec(package) for package in packages):
        raise ModuleNotFoundError(
            f"logger {name} needs {packages[0]}: pip install {packages[0]}", name=packages[0]
        )


@contextmanager
def logging_to(name: str, run) -> Iterator[None]:  # run: Run
    """A logger of that name for a run; of the first process alone."""
    if name == "none" or not run.fabric.is_global_zero:
        yield
        return
    logger = WandbLogger(run.folder) if name == "wandb" else _tensorboard(run.folder)
    run.logger, status = logger, "failed"
    try:
        logger.log_hyperparams({n: x for n, x in vars(run.config).items() if x is not None})
        yield
        status = "success"
    finally:
        logger.finalize(status)
        run.logger = None


def _tensorboard(folder: Path) -> TensorBoardLogger:
    return TensorBoardLogger(folder, name=FOLDER, version="")


def log_row(logger: Logger | None, row: dict) -> None:
    """One line of metrics.csv, without what is no number."""
    if logger is not None:
        numbers = {name: x for name, x in row.items() if isinstance(x, (int, float))}
        logger.log_metrics(numbers, numbers.pop("step"))
        logger.save()
