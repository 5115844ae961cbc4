"""CLIP over two ranks, each with its own part of the batch:

    torchrun --nproc-per-node 2 examples/ddp_two_ranks.py

Run alone, `python examples/ddp_two_ranks.py` trains on the whole batch in one process and prints
the same losses: gradients over several ranks are those of one.
"""

import math
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fastcl import distributed


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(32, 16), nn.Linear(24, 16)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, image, text):
        return self.image(image), self.text(text), self.log_scale.exp()


def main() -> None:
    several = "WORLD_SIZE" in os.environ  # set by torchrun
    if several:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    device = torch.device("cpu")
    if several and torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.manual_seed(0)  # the same weights and the same data everywhere
    model = Towers().to(device)
    if several:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    world, rank = distributed.world_size(), distributed.rank()
    for step in range(20):
        image, text = torch.randn(65, 32), torch.randn(65, 24)
        mine = slice(rank, None, world)  # 33 and 32 pairs: ranks may hold different numbers
        features = model(image[mine].to(device), text[mine].to(device))
        loss = distributed.clip(*features, mode="ring")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if rank == 0:
            print(f"step {step:2}: loss {loss.item():.5f}", flush=True)
    if several:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
