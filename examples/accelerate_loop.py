"""MoCo with accelerate on handwritten digits: `python examples/accelerate_loop.py`.

Needs accelerate and scikit-learn. The loop is one's own; accelerate moves module, optimiser and
batches to the device and runs the backward.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fastcl.methods import MoCo

try:
    from accelerate import Accelerator
    from accelerate.utils import set_seed
    from sklearn.datasets import load_digits
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: pip install accelerate scikit-learn") from None


def main() -> None:
    set_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(),
    )  # fmt: skip
    method = MoCo(backbone, width=32 * 2 * 2, dim=32, queue_size=1024, momentum=0.95)
    images = torch.as_tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
    loader = DataLoader(TensorDataset(images), batch_size=256, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)

    accelerator = Accelerator(cpu=True)
    model, optimizer, loader = accelerator.prepare(method, optimizer, loader)
    losses = []
    for _ in range(8):
        for (batch,) in loader:  # [b, 1, 8, 8], black is 0
            views = [batch * (torch.rand_like(batch) > 0.2) for _ in "12"]
            loss = model(*views)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            accelerator.unwrap_model(model).update()  # moves the twin, queues the keys
            losses.append(loss.detach())
    losses = torch.stack(losses)
    # From the second epoch on: in the first, random rows of the queue still give way to keys.
    first, last = losses[7:14].mean(), losses[-7:].mean()
    print(f"first loss {first:.4f}\nlast loss {last:.4f}")
    assert last < 0.8 * first


if __name__ == "__main__":
    main()
