"""The command `fastcl`. Without the libraries of the command line it says how to get them."""

import signal
import sys
from importlib.util import find_spec

from .commands.allocator import TRAINING, keep_memory
from .commands.extras import missing, remedy


def main() -> None:
    """Entry point of `fastcl` and `python -m fastcl.cli`."""
    packages = missing(["cli"], find_spec)
    if packages:
        if sys.argv[1:] == ["doctor"]:  # the doctor needs nothing
            from .commands.doctor import report

            print(report())
            return
        sys.exit(f"The command line of fastcl needs {remedy(packages)}")
    if sys.argv[1:] and sys.argv[1] in TRAINING:
        keep_memory()
    try:
        from .commands.app import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        # One more Ctrl-C would only break into the interpreter's tidying up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
