"""The run: resumed equal to one that never stopped, recipes, optimisers, several processes."""

import copy
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

for name in ("lightning_fabric", "sklearn", "safetensors", "rich", "matplotlib"):
    pytest.importorskip(name)

from fastcl.pretrain import checkpoint  # noqa: E402
from fastcl.pretrain.data import Images, load_images  # noqa: E402
from fastcl.pretrain.devices import device_count  # noqa: E402
from fastcl.pretrain.optimizer import LARS, learning_rate_at  # noqa: E402
from fastcl.pretrain.parts import build_method  # noqa: E402
from fastcl.pretrain.recipe import METHODS, RECIPES, resolve  # noqa: E402
from fastcl.pretrain.run import Run, build_fabric  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def some_digits(n: int = 96):
    images = load_images("digits")
    return replace(
        images, train=images.train[:n], train_labels=images.train_labels[:n],
        test=images.test[:40], test_labels=images.test_labels[:40],
    )  # fmt: skip


def some_photographs(n: int = 96, side: int = 16):
    """Noise in colour."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, side, side), dtype=np.uint8)
    images = torch.from_numpy(pixels)
    labels = torch.arange(n) % 4
    return Images("noise", "photographs", images, images[:40], labels, labels[:40], tuple("abcd"))


def small_run(folder, method="moco", *, images=None, **choices):
    """A run of three steps per epoch, on the CPU."""
    images = images or some_digits()
    given = {"epochs": 4, "batch_size": 32, "seed": 5} | choices
    config = resolve(images, method=method, data="digits", precision="32", devices=1, **given)
    return Run(config, images, folder, build_fabric(1, "32"))


# --- resume ---------------------------------------------------------------------------------


# One of every kind of state: queues, banks, teachers, prototypes, several networks, a pretext task.
FEW = "simclr", "moco", "instdisc", "byol", "swav", "dino", "cmc", "rotation"
EACH = [pytest.param(x, marks=[] if x in FEW else [pytest.mark.slow]) for x in METHODS]


@pytest.mark.parametrize("method", EACH)
def test_resumed_run_equals_one_that_never_stopped(tmp_path, method):
    """Two steps per epoch, one epoch before the pause and two after it."""
    images = (some_digits if (method, "digits") in RECIPES else some_photographs)(64)
    choices = {"images": images, "backbone": "small", "epochs": 3}
    whole = small_run(tmp_path / "whole", method, **choices)
    assert whole.train()
    first = small_run(tmp_path / "parts", method, **choices)
    assert not first.train(stop_after=1)
    random.random(), np.random.rand(), torch.rand(9)  # whatever happens between two sessions
    second = small_run(tmp_path / "parts", method, **choices)
    second.resume(tmp_path / "parts" / checkpoint.NAME)
    assert second.epoch == 1 and second.train()

    files = [tmp_path / name / "metrics.csv" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(files[0].read_text().splitlines()) == 4
    expected, actual = whole.method.state_dict(), second.method.state_dict()
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        assert torch.equal(value, actual[name]), name


def test_resume_needs_the_random_state(tmp_path):
    """The negative control: without it, the numbers after the pause are others."""
    small_run(tmp_path).train(stop_after=1)
    state = checkpoint.load_checkpoint(tmp_path / checkpoint.NAME)
    losses = []
    for shift in (0, 1):
        run = small_run(tmp_path)
        run.resume(tmp_path / checkpoint.NAME)
        torch.rand(shift)
        run.train(stop_after=2)
        losses.append(run.history[-1]["loss"])
        checkpoint.save_checkpoint(tmp_path / checkpoint.NAME, state)
    assert losses[0] != losses[1]


def test_random_state_of_every_generator_comes_back():
    device = torch.device("cpu")

    def draw():
        return random.random(), np.random.rand(), np.random.randn(), torch.rand(3).tolist()

    np.random.randn()  # leaves a second number in store
    state = checkpoint.random_state(device)
    expected = draw()
    draw()
    checkpoint.set_random_state(state, device)
    assert draw() == expected


def test_resume_refuses_another_configuration(tmp_path):
    small_run(tmp_path).train(stop_after=1)
    other = small_run(tmp_path, batch_size=16)
    with pytest.raises(ValueError, match="batch_size 32 there, 16 now.*--resume never"):
        other.resume(tmp_path / checkpoint.NAME)


def test_training_moves_backbone_twin_and_queue(tmp_path):
    run = small_run(tmp_path)
    before = {name: value.clone() for name, value in run.method.state_dict().items()}
    run.train(stop_after=1)
    after = run.method.state_dict()
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert not still, f"{still} did not move"


def test_shares_are_measured_and_fill_less_than_the_step(tmp_path):
    run = small_run(tmp_path, epochs=2)  # six steps, of which three are measured
    run.train()
    shares = run.shares.result
    assert set(shares) == {"loss", "queue", "momentum"}
    assert all(share > 0 for share in shares.values()) and sum(shares.values()) < 1


def test_divergence_is_an_error_and_keeps_the_checkpoint(tmp_path):
    run = small_run(tmp_path)
    run.train(stop_after=1)
    with torch.no_grad():
        next(run.method.backbone.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="epoch 2.*--lr.*epoch 1"):
        run.train()
    assert checkpoint.load_checkpoint(tmp_path / checkpoint.NAME)["epoch"] == 1


# --- recipes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"method": "best"}, "method must be one of instdisc, .*, inpainting, got 'best'"),
        ({"method": "cmc"}, "cmc has no recipe for digits"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 97}, "batch-size must be a multiple of the 1 devices from 2 to the 96"),
        ({"batch_size": 1}, "batch-size"),
        ({"learning_rate": 0.0}, "lr must be above 0"),
        ({"learning_rate": float("inf")}, "lr must be above 0 and finite, got inf"),
        ({"weight_decay": float("nan")}, "weight-decay must be finite and from 0 to inf"),
        ({"warmup": 1.5}, "warmup must be finite and from 0 to 1, got 1.5"),
        ({"augmentation": -1.0}, "augmentation must be finite and from 0 to 2"),
        ({"method": "simclr", "queue_size": 64}, "queue_size: this method has no such setting"),
    ],
)
def test_bad_choices_are_named(choice, message):
    given = {"method": "moco", "data": "digits", "precision": "32", "devices": 1, "seed": 0}
    with pytest.raises(ValueError, match=message):
        resolve(some_digits(), **(given | choice))


def test_recipe_adapts_to_batch_and_data():
    given = {"method": "moco", "data": "digits", "precision": "32", "devices": 1, "seed": 0}
    images = some_digits()
    recipe = RECIPES["moco", "digits"]
    config = resolve(images, **given)
    assert config.batch_size == 96 and config.options["queue_size"] == 96
    assert config.learning_rate == pytest.approx(recipe.learning_rate * 96 / 256)
    assert resolve(images, **given, queue_size=500).options["queue_size"] == 500
    assert resolve(images, **given, learning_rate=0.7).learning_rate == 0.7


def test_same_seed_same_weights(tmp_path):
    config = small_run(tmp_path).config
    torch.rand(3)
    one, two = (build_method(config, 1)[0].state_dict() for _ in range(2))
    other = build_method(replace(config, seed=6), 1)[0].state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    name = "head.0.weight"
    assert not torch.equal(one[name], other[name])


def test_devices():
    assert device_count("3") == 3 and device_count("auto") >= 1
    for bad in ("0", "-1", "gpu"):
        with pytest.raises(ValueError, match="devices must be auto or a number from 1"):
            device_count(bad)


def test_learning_rate_rises_and_falls():
    rates = [learning_rate_at(step, 100, 0.5, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.05) and max(rates) == rates[9] == rates[10] == 0.5
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] < 0.001


def test_lars_step_has_the_length_of_the_trust():
    torch.manual_seed(0)
    weight, bias = torch.nn.Parameter(torch.randn(5, 4)), torch.nn.Parameter(torch.randn(4))
    before, before_bias = weight.detach().clone(), bias.detach().clone()
    weight.grad, bias.grad = 100 * torch.randn(5, 4), torch.ones(4)
    LARS([weight, bias], lr=2.0, trust=0.01).step()
    torch.testing.assert_close((weight - before).norm(), 2.0 * 0.01 * before.norm())
    torch.testing.assert_close(bias, before_bias - 2.0)
    still = torch.nn.Parameter(torch.zeros(3, 3))
    still.grad = torch.zeros(3, 3)
    LARS([still], lr=1.0).step()
    assert torch.equal(still, torch.zeros(3, 3)), "no length, no division by it"


# --- several processes ----------------------------------------------------------------------

DISTRIBUTED = (
    "moco",
    "simclr",
    "mocov3",
    "nnclr",
    "instdisc",
    "swav",
    "dino",
    "byol",
    "barlowtwins",
    "vicreg",
    "dim",
)
TWO = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from fastcl.pretrain.data import load_images
from fastcl.pretrain.recipe import resolve
from fastcl.pretrain.run import Run, build_fabric

out = Path(sys.argv[1])
images = load_images("digits")
images = replace(images, train=images.train[:96], train_labels=images.train_labels[:96])
for method in sys.argv[2:]:
    config = resolve(images, method=method, data="digits", precision="32", devices=2, seed=0,
                     epochs=1, batch_size=32)
    fabric = build_fabric(2, "32") if method == "moco" else fabric
    run = Run(config, images, out / method, fabric)
    run.train()
    state = {"state": run.method.state_dict(), "torch": torch.get_rng_state()}
    torch.save(state, out / f"{method}{fabric.global_rank}.pt")
"""


@pytest.mark.slow
def test_every_method_trains_on_colour(tmp_path):
    for method in METHODS:
        run = small_run(
            tmp_path / method, method, images=some_photographs(32, 32), epochs=1, batch_size=16,
            backbone="small",
        )  # fmt: skip
        before = copy.deepcopy(run.backbone.state_dict())
        run.train()
        assert all(not torch.equal(v, run.backbone.state_dict()[k]) for k, v in before.items())


@pytest.mark.slow
def test_two_processes_end_with_equal_weights_and_queues(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), *DISTRIBUTED],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for method in DISTRIBUTED:
        one, two = (torch.load(tmp_path / f"{method}{rank}.pt") for rank in (0, 1))
        assert not torch.equal(one["torch"], two["torch"]), "ranks must draw different views"
        for name, value in one["state"].items():
            assert torch.equal(value, two["state"][name]), f"{method} {name}"
    moco = torch.load(tmp_path / "moco0.pt")["state"]
    assert int(moco["queue.pointer"]) == 96, "the keys of both ranks go into the queue"
    state = checkpoint.load_checkpoint(tmp_path / "moco" / checkpoint.NAME)
    assert len(state["random"]) == 2
