"""Optimiser states and gradients shared out over two ranks by DeepSpeed, stage 2:

    torchrun --nproc-per-node 2 examples/deepspeed_stage2.py

Needs deepspeed, which on a CPU compiles an operator of its own at the first start. Every rank has a
part of the batch and contrasts it with the parts of all; DeepSpeed averages the gradients over the
ranks, which makes those of one process with the whole batch: compared here at every step.
"""

import copy
import os

import torch
import torch.nn.functional as P
from torch import nn

from fastcl import distributed, functional

try:
    import deepspeed
    from deepspeed.utils import safe_get_full_grad
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: pip install deepspeed") from None

PAIRS, TEMPERATURE = 32, 0.1


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 16))
        self.document = nn.Linear(32, 16)

    def forward(self, query, document):
        return self.query(query), self.document(document)


def gradients_of_one_process(model: Towers, query, document) -> list[torch.Tensor]:
    alone = copy.deepcopy(model)
    alone.zero_grad()
    functional.info_nce(*alone(query, document), temperature=TEMPERATURE).backward()
    return [p.grad for p in alone.parameters()]


def main() -> None:
    if "WORLD_SIZE" not in os.environ:
        raise SystemExit("torchrun --nproc-per-node 2 examples/deepspeed_stage2.py")
    on_gpu = torch.cuda.is_available()
    deepspeed.init_distributed("nccl" if on_gpu else "gloo")
    world, rank = distributed.world_size(), distributed.rank()
    torch.manual_seed(0)  # the same weights and the same data everywhere
    model = Towers()
    settings = {
        "train_micro_batch_size_per_gpu": PAIRS // world,
        "zero_optimization": {"stage": 2},
        "optimizer": {"type": "AdamW", "params": {"lr": 3e-3, "torch_adam": True}},
    }
    engine, *_ = deepspeed.initialize(
        model=model, model_parameters=model.parameters(), config=settings
    )
    mix = torch.randn(24, 32)  # what a document makes of its query
    for step in range(20):
        query = torch.randn(PAIRS, 24, device=engine.device)
        document = P.tanh(query @ mix.to(engine.device))
        expected = gradients_of_one_process(model, query, document)
        mine = slice(rank, None, world)
        rows = engine(query[mine], document[mine])
        loss = distributed.info_nce(*rows, temperature=TEMPERATURE)
        engine.backward(loss)
        for p, grad in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(safe_get_full_grad(p), grad, rtol=1e-4, atol=1e-6)
        engine.step()
        if rank == 0:
            print(f"step {step:2}: loss {loss.item():.5f}", flush=True)
    engine.destroy()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
