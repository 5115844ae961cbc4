"""MoCo by the Trainer of transformers on handwritten digits:

    python examples/transformers_trainer.py

Needs transformers, accelerate and scikit-learn. The Trainer takes any module whose output has a
loss; a callback moves the twin and queues the keys after each step of the optimiser.
"""

import tempfile

import torch
from torch import nn
from torch.utils.data import Dataset

from fastcl.methods import MoCo

try:
    import accelerate  # noqa: F401
    from sklearn.datasets import load_digits
    from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: pip install accelerate transformers scikit-learn") from None


class Digits(Dataset):
    """Two views of every digit, as what the model is called with."""

    def __init__(self) -> None:
        self.images = torch.as_tensor(load_digits().images, dtype=torch.float32)[:, None] / 16

    def __len__(self) -> int:
        return len(self.images) // 256 * 256

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        image = self.images[i]  # [1, 8, 8], black is 0
        return {name: image * (torch.rand_like(image) > 0.2) for name in ("view1", "view2")}


class Pretraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        backbone = nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.method = MoCo(backbone, width=32 * 2 * 2, dim=32, queue_size=1024, momentum=0.95)
        self.losses = []

    def forward(self, view1: torch.Tensor, view2: torch.Tensor) -> dict[str, torch.Tensor]:
        loss = self.method(view1, view2)
        self.losses.append(loss.detach())
        return {"loss": loss}


class Update(TrainerCallback):
    def on_step_end(self, args, state, control, model, **_):
        model.method.update()


def main() -> None:
    set_seed(0)
    model = Pretraining()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, use_cpu=True, num_train_epochs=8, learning_rate=3e-3,
            lr_scheduler_type="constant", per_device_train_batch_size=256, report_to="none",
            save_strategy="no", logging_strategy="no", disable_tqdm=True, max_grad_norm=0.0,
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=Digits(), callbacks=[Update()]).train()
    losses = torch.stack(model.losses)
    # From the second epoch on: in the first, random rows of the queue still give way to keys.
    first, last = losses[7:14].mean(), losses[-7:].mean()
    print(f"first loss {first:.4f}\nlast loss {last:.4f}")
    assert last < 0.8 * first


if __name__ == "__main__":
    main()
