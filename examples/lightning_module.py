"""MoCo as a Lightning module on handwritten digits: `python examples/lightning_module.py`.

Needs pytorch-lightning and scikit-learn. A method of fastcl is a plain module that returns a loss;
what belongs to Lightning is four lines.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fastcl.methods import MoCo

try:
    import pytorch_lightning as lightning
    from sklearn.datasets import load_digits
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: pip install pytorch-lightning scikit-learn") from None


class Pretraining(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        backbone = nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.method = MoCo(backbone, width=32 * 2 * 2, dim=32, queue_size=1024, momentum=0.95)
        self.losses = []

    def training_step(self, batch, index):
        images = batch[0]  # [b, 1, 8, 8], black is 0
        views = [images * (torch.rand_like(images) > 0.2) for _ in "12"]
        loss = self.method(*views)
        self.losses.append(loss.detach())
        return loss

    def on_train_batch_end(self, *_):
        self.method.update()  # the optimiser has stepped: moves the twin, queues the keys

    def configure_optimizers(self):
        return torch.optim.AdamW(self.method.parameters(), lr=3e-3)


def main() -> None:
    lightning.seed_everything(0, verbose=False)
    images = torch.as_tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
    loader = DataLoader(TensorDataset(images), batch_size=256, shuffle=True, drop_last=True)
    module = Pretraining()
    lightning.Trainer(
        max_epochs=8, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, loader)  # fmt: skip
    losses = torch.stack(module.losses)
    # From the second epoch on: in the first, random rows of the queue still give way to keys.
    first, last = losses[7:14].mean(), losses[-7:].mean()
    print(f"first loss {first:.4f}\nlast loss {last:.4f}")
    assert last < 0.8 * first


if __name__ == "__main__":
    main()
