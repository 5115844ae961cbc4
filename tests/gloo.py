"""Processes with a gloo group between them."""

import datetime

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def spawn(function, world, path, *arguments):
    """function(rank, *arguments) in `world` processes; the first error is raised here."""
    mp.spawn(_one, args=(world, str(path / "store"), function, arguments), nprocs=world)


def _one(rank, world, store, function, arguments):
    torch.set_num_threads(1)
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
