"""SimCLR's loss in a loop of one's own: `python examples/plain_loop.py`."""

import torch
from torch import nn

from fastcl.functional import nt_xent


def main() -> float:
    torch.manual_seed(0)
    images = torch.randn(256, 32)
    encoder = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3)
    for step in range(60):
        batch = images[torch.randperm(len(images))[:128]]
        views = [batch + 0.1 * torch.randn_like(batch) for _ in range(2)]
        loss = nt_xent(encoder(views[0]), encoder(views[1]), temperature=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step:3}: loss {loss.item():.4f}")
    print(f"last loss {loss.item():.4f}")
    return loss.item()


if __name__ == "__main__":
    main()
