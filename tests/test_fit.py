"""The Python door: a method, data and views of one's own, trained as the command trains."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

for name in ("lightning_fabric", "safetensors", "PIL", "spdl"):
    pytest.importorskip(name)

from fastcl import views  # noqa: E402
from fastcl.methods import MoCo, SimCLR  # noqa: E402
from fastcl.pretrain import HeldOut, fit  # noqa: E402

IMAGES = torch.from_numpy(
    np.random.default_rng(0).integers(0, 256, (48, 3, 8, 8), dtype=np.uint8)
)  # fmt: skip
LABELS = torch.arange(48) % 3
ROOT = Path(__file__).resolve().parents[1]
GIVEN = {"epochs": 3, "batch_size": 16, "learning_rate": 0.05}


def noisy(images):
    """Two views with noise of their own."""
    x = images.float() / 255
    return x + 0.1 * torch.randn_like(x), x + 0.1 * torch.randn_like(x)


def network():
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))


def moco():
    return MoCo(network(), width=10, dim=6, queue_size=32, momentum=0.9)


def test_it_trains_the_method_in_place_and_leaves_a_folder(tmp_path):
    method = moco()
    before = {name: x.clone() for name, x in method.state_dict().items()}
    rows = fit(method, IMAGES, noisy, out=tmp_path, **GIVEN)
    assert [row["step"] for row in rows] == [3, 6, 9]
    assert all(not torch.equal(x, before[name]) for name, x in method.state_dict().items())
    assert int(method.queue.pointer) == 9 * 16, "update was called"
    with open(tmp_path / "metrics.csv") as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == [r["loss"] for r in rows]
    assert rows[0]["spread"] > 0


def test_called_again_it_goes_on_to_the_same_numbers(tmp_path):
    whole = moco()
    rows = fit(whole, IMAGES, noisy, out=tmp_path / "whole", **GIVEN)
    calls = []

    def stopping(images):
        calls.append(1)
        if len(calls) == 5:
            raise InterruptedError
        return noisy(images)

    with pytest.raises(InterruptedError):
        fit(moco(), IMAGES, stopping, out=tmp_path / "parts", **GIVEN)
    again = moco()
    assert fit(again, IMAGES, noisy, out=tmp_path / "parts", **GIVEN) == rows
    state = again.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in whole.state_dict().items())


class Distance(nn.Module):
    """A method of nobody's, without update, head or backbone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(192, 4)

    def forward(self, view1, view2):
        return (self.layer(view1.flatten(1)) - self.layer(view2.flatten(1))).square().mean()


class Dataset:
    """Map-style, with images as arrays."""

    def __len__(self):
        return 48

    def __getitem__(self, i):
        return IMAGES[i].permute(1, 2, 0).numpy(), i % 3


def test_any_module_and_any_dataset(tmp_path):
    """A dataset that is read gives what the tensor of its images gives."""
    losses = []
    for name, data in (("tensor", IMAGES), ("dataset", Dataset())):
        torch.manual_seed(4)
        given = {**GIVEN, "optimizer": "adamw", "learning_rate": 1e-3}
        rows = fit(Distance(), data, noisy, out=tmp_path / name, **given)
        losses.append([row["loss"] for row in rows])
    assert losses[0] == pytest.approx(losses[1]) and losses[0][-1] < losses[0][0]


def test_views_of_fastcl_see_the_images_of_a_dataset_as_they_are(tmp_path):
    seen = []

    class Watched(views.SimCLR):
        def write(self, image, *rest):
            seen.append(tuple(image.shape[:2]))
            super().write(image, *rest)

    class Sizes(Dataset):
        def __getitem__(self, i):
            return IMAGES[i].permute(1, 2, 0).numpy()[: 4 + i % 4], i % 3

    for parts in (1, 2):
        given = GIVEN | {"out": tmp_path / str(parts), "accumulate": parts}
        assert len(fit(Distance(), Sizes(), Watched(8), **given)) == 3
    assert set(seen) == {(4 + i, 8) for i in range(4)}


def test_what_is_held_out_scores_the_backbone(tmp_path):
    """Images that are bright above or below: pixels tell, and so do features of them; by the other
    labels all are wrong."""
    labels = torch.arange(48) % 2
    images = IMAGES // 8
    images[labels == 0, :, :4] += 200
    images[labels == 1, :, 4:] += 200
    held_out = HeldOut(labels[:32], images[32:], labels[32:])
    given = GIVEN | {"dataset": images[:32], "views": noisy}
    fit(moco(), out=tmp_path, held_out=held_out, **given)
    found = json.loads((tmp_path / "results.json").read_text())
    names = [score["features"] for score in found["scores"]]
    assert names == ["raw pixels", "untrained backbone", "trained backbone"]
    assert all(score["knn"] == 1.0 and score["probe"] == 1.0 for score in found["scores"])
    wrong = HeldOut(labels[:32], images[32:], 1 - labels[32:])
    fit(moco(), out=tmp_path / "wrong", held_out=wrong, **given)
    found = json.loads((tmp_path / "wrong" / "results.json").read_text())
    assert all(score["knn"] == 0.0 for score in found["scores"])
    with pytest.raises(ValueError, match="a method with a backbone, Distance has none"):
        fit(Distance(), out=tmp_path / "none", held_out=held_out, **given)


TWO = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, "tests")
from test_fit import GIVEN, IMAGES, Dataset, HeldOut, moco, noisy
from fastcl.pretrain import fit

if __name__ == "__main__":
    out, labels = Path(sys.argv[1]), torch.arange(48) % 2
    method = moco()
    for epochs in (1, 3):  # the second call goes on
        rows = fit(method, Dataset(), noisy, out=out / "run", devices=2,
                   held_out=HeldOut(labels, IMAGES, labels), **(GIVEN | {"epochs": epochs}))
        method = moco()
    rank = torch.distributed.get_rank()
    torch.save({"rows": rows}, out / f"{rank}.pt")
"""


@pytest.mark.slow
def test_two_devices_train_one_method(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], cwd=ROOT, env=environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt")["rows"] for rank in range(2))
    assert [row["loss"] for row in first] == [row["loss"] for row in second]
    assert [row["step"] for row in first] == [3, 6, 9]
    assert json.loads((tmp_path / "run" / "results.json").read_text())["scores"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["devices"] == 2


def test_labels_reach_the_method(tmp_path):
    labels = torch.arange(48) % 4
    method = SimCLR(network(), width=10, dim=6, loss="sup_con")
    with pytest.raises(ValueError, match="labels must be given"):
        fit(method, IMAGES, noisy, out=tmp_path / "none", **GIVEN)
    assert len(fit(method, IMAGES, noisy, out=tmp_path, labels=labels, **GIVEN)) == 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": noisy}, TypeError, "method must be a torch module, got function"),
        ({"views": 3}, TypeError, "views must be callable, got int"),
        ({"dataset": 3}, TypeError, "dataset must be a tensor or map-style, got int"),
        ({"dataset": IMAGES.float()}, ValueError, "dataset must be uint8"),
        ({"batch_size": 49}, ValueError, "batch_size must be .* from 2 to the 48 images, got 49"),
        ({"accumulate": 3}, ValueError, "a multiple of devices times accumulate, 3, from 6"),
        ({"devices": 3}, ValueError, "a multiple of devices times accumulate, 3, from 6"),
        ({"devices": 0}, ValueError, "devices must be 1 or more, got 0"),
        (
            {"held_out": HeldOut(LABELS, IMAGES[:9], LABELS[:8])},
            ValueError,
            r"held_out.test_labels must have shape \[9",
        ),
        (
            {"held_out": HeldOut(LABELS, IMAGES[:, :1], LABELS)},
            ValueError,
            r"held_out.images must be \[3, 8, 8\] each like those of the dataset, got \[1, 8, 8\]",
        ),
        ({"held_out": HeldOut(LABELS, 3, LABELS)}, TypeError, "held_out.images must be a tensor"),
        ({"held_out": HeldOut(LABELS - 9, IMAGES, LABELS)}, ValueError, "labels must have a label"),
        ({"epochs": 0}, ValueError, "epochs"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate"),
        ({"optimizer": "adam"}, ValueError, "optimizer"),
        ({"precision": "16"}, ValueError, "precision"),
        ({"warmup": 2.0}, ValueError, "warmup must be from 0 to 1"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, ValueError, r"labels must have shape \[48"),
        ({"logger": "x"}, ValueError, "logger must be one of"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(tmp_path, change, error, message):
    given = {"method": moco(), "dataset": IMAGES, "views": noisy, **GIVEN} | change
    with pytest.raises(error, match=message):
        fit(out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()
