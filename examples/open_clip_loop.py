"""open_clip's own training loop with one line more: `python examples/open_clip_loop.py`.

Needs open-clip-torch. A small CLIP learns names of coloured shapes twice from the same seed, with
open_clip's loss and with fastcl's in its place: the same curve.
"""

from argparse import Namespace
from types import SimpleNamespace

import torch

import fastcl

try:
    import open_clip
    from open_clip_train.train import train_one_epoch
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: pip install open-clip-torch") from None

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1)}
SHAPES = {
    "square": lambda x, y: (x.abs() < 6) & (y.abs() < 6),
    "disc": lambda x, y: x**2 + y**2 < 49,
    "bar": lambda x, y: x.abs() < 3,
    "beam": lambda x, y: y.abs() < 3,
}
ARGS = Namespace(
    device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=True, model="tiny",
    grad_clip_norm=None, horovod=False, rank=0, world_size=1, local_rank=0, log_local=False,
    log_every_n_steps=1, batch_size=16, wandb=False, local_loss=False, gather_with_grad=True,
    siglip=False,
)  # fmt: skip


class Batches(list):
    """A loader as train_one_epoch wants it."""

    num_batches = property(len)
    num_samples = property(lambda self: len(self) * ARGS.batch_size)


def batches(count: int) -> Batches:
    """Every colour and shape once, noisy, with its caption."""
    tokenize = open_clip.SimpleTokenizer(context_length=8)
    y, x = torch.meshgrid(*[torch.arange(-8.0, 8.0)] * 2, indexing="ij")
    found = Batches()
    for _ in range(count):
        images, captions = [], []
        for colour, rgb in COLOURS.items():
            for shape, inside in SHAPES.items():
                image = torch.tensor(rgb).view(3, 1, 1) * inside(x, y)
                images.append(image + 0.2 * torch.randn(3, 16, 16))
                captions.append(f"a {colour} {shape}")
        found.append((torch.stack(images), tokenize(captions)))
    return found


class Curve(list):
    """Takes the place of TensorBoard's writer."""

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if name == "train/loss":
            self.append(value)


def train(steps: int = 40) -> Curve:
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 16, "patch_size": 4, "layers": 2, "width": 64, "head_width": 32},
        text_cfg={"context_length": 8, "layers": 2, "width": 64, "heads": 2},
        output_dict=True,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    data = {"train": SimpleNamespace(dataloader=batches(steps), set_epoch=lambda epoch: None)}
    loss, curve = open_clip.create_loss(ARGS), Curve()
    train_one_epoch(model, data, loss, 0, optimizer, None, None, None, ARGS, tb_writer=curve)
    return curve


def main() -> None:
    before = train()
    fastcl.patch("open_clip")  # the one line
    after = train()
    print(f"first loss {after[0]:.4f}\nlast loss {after[-1]:.4f}, open_clip's {before[-1]:.4f}")
    torch.testing.assert_close(torch.tensor(after), torch.tensor(before), rtol=1e-3, atol=1e-3)
    assert after[-1] < 0.5 * after[0]


if __name__ == "__main__":
    main()
