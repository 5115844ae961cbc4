"""Several programs, each in a child of one process that has torch already: an import takes two
seconds. A child has its own settings and its own highest resident size."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
PARENT = """
import os, sys, traceback
sys.path[:0] = {paths!r}
{imports}
for program in {programs!r}:
    if os.fork() == 0:
        status = 1
        try:
            exec(program, {{"__name__": "__main__"}})
            status = 0
        except SystemExit as end:
            print(end)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)  # what torch does at its end takes as long as its import
    print(os.waitstatus_to_exitcode(os.wait()[1]), end="\\0", flush=True)
"""


def forked(programs: dict[str, str], imports: str = "import torch, fastcl") -> dict:
    """Exit status and all that was printed, also as an error, of each; one after the other."""
    paths = [str(FOLDER.parent), str(FOLDER)]
    script = PARENT.format(paths=paths, imports=imports, programs=[*programs.values()])
    done = subprocess.run(
        [sys.executable, "-u", "-c", script], cwd=FOLDER.parent, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    found = {}
    for name, text in zip(programs, done.stdout.split("\0")[:-1], strict=True):
        lines = text.splitlines()
        found[name] = int(lines[-1]), "\n".join(lines[:-1])
    return found


def printed(programs: dict[str, str], imports: str = "import torch, fastcl") -> dict[str, str]:
    """What each printed; none may fail."""
    found = forked(programs, imports)
    assert all(status == 0 for status, _ in found.values()), found
    return {name: text for name, (_, text) in found.items()}
