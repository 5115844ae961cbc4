"""The command line: `app` holds the commands, each other module what one of them runs."""

import sys
from pathlib import Path


def is_command() -> bool:
    """Whether this is `fastcl` or `python -m fastcl.cli`, known before anything is imported."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # as long as the module is being looked for
        return "fastcl.cli" in sys.orig_argv
    return Path(program).name in ("fastcl", "fastcl.exe")
