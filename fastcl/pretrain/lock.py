"""One process at a time writes into a folder."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK, OWNER = ".lock", ".lock.owner"


class FolderInUse(ValueError):
    """Another process is at work in the folder."""


def is_first_process() -> bool:
    """Whether this is rank zero, before any library has been asked: torchrun and Lightning Fabric
    say it in the environment of every process that they start."""
    return all(int(os.environ.get(name, 0)) == 0 for name in ("RANK", "LOCAL_RANK"))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made where it is not there; let go at the end, also of a process
    that is killed.

    Raises:
        FolderInUse: Another process holds it; the message names that one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(folder / LOCK), folder / OWNER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderInUse(
            f"{str(folder)!r} is in use by {_owner(owner)}: wait for it, stop it, or write into "
            f"another folder"
        ) from None
    try:
        # Beside the lock and not in it: whoever tries to take a lock may empty its file.
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        owner.unlink(missing_ok=True)
        # Gone while it is still held: a process that waits for it finds that and starts over.
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def _owner(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has only just taken the lock, or has let go since
        return "another process"
