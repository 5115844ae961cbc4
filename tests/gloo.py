"""Ranks: processes with a gloo group between them, started once for all tests."""

import datetime
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor

import torch
import torch.distributed as dist
import torch.distributed.nn  # noqa: F401 - here, as its defaults keep the group there is at import

# One process each, so that every rank of a call is a process of its own.
_RANKS: list[ProcessPoolExecutor] = []


def spawn(function, world, path, *arguments):
    """function(rank, *arguments) in `world` processes; what they raise is raised here."""
    while len(_RANKS) < world:
        _RANKS.append(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")))
    # A file of its own: a store not yet collected leaves the addresses of the last group in it.
    store = tempfile.mkdtemp(dir=path) + "/store"
    calls = [
        _RANKS[rank].submit(_one, rank, world, store, function, arguments) for rank in range(world)
    ]
    errors = [error for error in (call.exception() for call in calls) if error is not None]
    if errors:
        raise ExceptionGroup("of the ranks", errors)


def _one(rank, world, store, function, arguments):
    """The group ends with the call: ranks that wait for a failed one find its connection closed."""
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=300),
    )
    try:
        function(rank, *arguments)
    finally:
        dist.destroy_process_group()
