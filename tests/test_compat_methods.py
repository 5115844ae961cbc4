"""fastcl's methods and those that users of lightly write of its parts: the same steps.

From the same weights and on the same crops, both libraries' losses agree to rounding, step after
step, where three habits are the same. lightly passes one crop after the other through the network,
fastcl all crops of a size together, which changes the statistics of batch normalisation. Some of
lightly's heads have a bias, or a shift after the last normalisation, that fastcl's have not. Its
loss of BYOL is a quarter of the paper's, less its constant. MoCo v2 is the same as it is.
"""

import sys

import pytest
import torch
from peers import peer
from torch import nn

peer("lightly.loss")

from test_accuracy_benchmark import assert_goes_on, tiny, tiny_images  # noqa: E402

from benchmarks import accuracy, accuracy_peers, accuracy_table, report  # noqa: E402
from benchmarks.accuracy_methods import (  # noqa: E402
    CLASSES,
    EXCHANGED,
    OPTIONS,
    Setting,
    contenders,
)

STEPS, BATCH, RATE = 12, 16, 0.05
SCALE = {"byol": 4.0}
TOGETHER = "simclr", "swav", "dino"
# What lightly's methods have besides, by the names of their parameters.
BESIDES = {
    "simclr": ["head.layers.4.bias"],
    "byol": ["head.layers.3.bias", "predictor.layers.3.bias"],
    "swav": ["prototypes.heads.0.bias"],
}
SMALL_CROPS = "swav", "dino"
SIZES = {
    "moco": {"queue_size": 3 * BATCH}, "byol": {"steps": STEPS},
    "swav": {"prototypes": 20, "freeze": 3},
    "dino": {"prototypes": 20, "steps": STEPS},
}  # fmt: skip
SIZES[EXCHANGED] = SIZES["dino"]


@pytest.fixture
def float64():
    """By default, as lightly keeps a temperature in that."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def backbone() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(),
    )  # fmt: skip


def crops(method: str) -> list[torch.Tensor]:
    images = torch.randn(BATCH, 3, 12, 12)
    large = [images + 0.3 * torch.randn_like(images) for _ in range(2)]
    return large + [x[..., 2:9, 1:8] for x in large if method in SMALL_CROPS]


def own(method: str) -> nn.Module:
    torch.manual_seed(0)
    small = {"hidden": 24, "dim": 16, **SIZES.get(method, {})}
    return CLASSES[method](backbone(), width=32, **OPTIONS[method] | small)


def losses(method: nn.Module, name: str, rate: float) -> torch.Tensor:
    """Of some steps of SGD."""
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, rate, momentum=0.9)
    torch.manual_seed(1)
    found = []
    for _ in range(STEPS):
        loss = method(*crops(name))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.update()
        found.append(loss.detach().reshape(()))
    return torch.stack(found)


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    mine = own(name).double()
    return mine, accuracy_peers.METHODS[name](mine).double()


def same_habits(theirs: nn.Module, name: str, monkeypatch) -> None:
    if name in TOGETHER:
        monkeypatch.setattr(accuracy_peers.Method, "passed", staticmethod(accuracy_peers.together))
    for parameter in BESIDES.get(name, ()):
        theirs.get_parameter(parameter).requires_grad_(False)


def on_our_scale(theirs: torch.Tensor, name: str) -> torch.Tensor:
    return 4 + 4 * theirs if name == "byol" else theirs


@pytest.mark.parametrize("name", [name for name in CLASSES if name != EXCHANGED])
def test_same_steps(name, monkeypatch, float64):
    mine, theirs = pair(name)
    same_habits(theirs, name, monkeypatch)
    ours = losses(mine, name, RATE)
    other = on_our_scale(losses(theirs, name, RATE * SCALE.get(name, 1.0)), name)
    torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9)
    assert (ours[-1] - ours[0]).abs() > 1e-3  # they moved


@pytest.mark.parametrize("name", [*BESIDES, "dino"])
def test_the_habits_are_what_differs(name, float64):
    mine, theirs = pair(name)
    ours = losses(mine, name, RATE)
    other = on_our_scale(losses(theirs, name, RATE * SCALE.get(name, 1.0)), name)
    assert (ours - other).abs().max() > 1e-6


@pytest.mark.parametrize("ours, other", [("dino", EXCHANGED), (EXCHANGED, "dino")])
def test_each_with_the_habit_of_the_other(ours, other, float64):
    """fastcl crop by crop is lightly as it is, and the other way round."""
    mine, theirs = pair(ours)[0], pair(other)[1]
    torch.testing.assert_close(
        losses(mine, "dino", RATE), losses(theirs, "dino", RATE), rtol=1e-9, atol=1e-9
    )


def test_both_start_at_the_same_loss():
    """With the heads and the backbone of the benchmark, in float32."""
    views = [torch.randn(8, 3, 32, 32) for _ in range(2)]
    for name in ("moco", "byol"):
        mine, theirs = contenders(tiny(name)).values()
        torch.testing.assert_close(mine(*views), on_our_scale(theirs(*views), name))


@pytest.mark.parametrize("name", ["moco", "swav", "dino"])
def test_a_stopped_run_goes_on(name, tmp_path):
    """With what lightly keeps beside its state_dict."""
    assert_goes_on(tiny(name), contenders, tmp_path)


def test_rows(tmp_path, monkeypatch):
    """By the command: what is finished is not run again; a second run of it would say the same;
    steps are timed without a checkpoint."""
    monkeypatch.setattr(accuracy, "images_of", lambda setting: tiny_images(256))
    monkeypatch.setattr(accuracy, "SECONDS", 0.0)
    rows, folder = tmp_path / "rows", tmp_path / "checkpoints"
    command = ["", "simclr", "--images", "256", "--epochs", "1"]
    command += ["--rows", str(rows), "--folder", str(folder)]
    for more in ([], [], ["--time"]):
        monkeypatch.setattr(sys, "argv", command + more)
        accuracy.main()
    (row,), (steps,) = (report.read(rows / f"{x}.csv") for x in ("accuracy", "accuracy_steps"))
    again = accuracy.trained(Setting("simclr", 256, 1), folder)
    for who in ("untrained", "fastcl", "lightly"):
        for figure in (f"{who}_knn", f"{who}_probe"):
            assert 0 <= float(row[figure]) <= 1 and row[figure] == f"{again[figure]:.4g}"
    assert row["fastcl_first"] != row["lightly_first"]
    assert int(steps["turns"]) >= accuracy.TURNS
    assert float(steps["q20"]) <= float(steps["ratio"]) <= float(steps["q80"])
    assert [path.name for path in folder.iterdir()] == [f"{Setting('simclr', 256, 1).name}.pt"]
    assert "| SimCLR | 256, 1 |" in accuracy_table.table([row], [steps])
