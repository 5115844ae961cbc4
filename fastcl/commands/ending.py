"""How a command ends that does not end well."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from .extras import missing, remedy

OUT_OF_MEMORY = (
    "out of memory: a smaller --batch-size, --image-size, --backbone or --limit takes less"
)


def fail(message: object) -> None:
    """Leave with a message."""
    # Messages quote paths and extras in brackets, which are no markup.
    Console(stderr=True).print(
        f"[bold red]error:[/] {escape(str(message))}", highlight=False, soft_wrap=True
    )
    raise typer.Exit(1)


def need(groups: tuple[str, ...], find_spec) -> None:  # find_spec: of importlib.util
    """Leave with the command that installs what is missing of the optional groups."""
    if packages := missing(groups, find_spec):
        fail(f"this needs {remedy(packages)}")


@contextmanager
def one_line() -> Iterator[None]:
    """Leave with one line for what choices, files, disk or memory cause. A traceback means a fault
    of fastcl."""
    from ..pretrain.signals import Stopped

    try:
        yield
    except Stopped as stopped:
        raise typer.Exit(stopped.code) from None
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted", markup=False)
        raise typer.Exit(130) from None
    except MemoryError as error:
        fail(f"{OUT_OF_MEMORY} ({error})" if str(error) else OUT_OF_MEMORY)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        fail(error)
    except RuntimeError as error:  # torch has no type of its own for the memory of a CPU
        if not any(text in str(error) for text in ("out of memory", "not enough memory", "alloc")):
            raise
        fail(f"{OUT_OF_MEMORY} ({str(error).splitlines()[0]})")
