"""A run that stops or fails goes on where it was: signals, divergence, other data, other files."""

import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

for name in ("lightning_fabric", "sklearn", "safetensors", "typer", "matplotlib"):
    pytest.importorskip(name)

from test_pretrain import small_run, some_digits  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from fastcl.commands import app as commands  # noqa: E402
from fastcl.pretrain import checkpoint  # noqa: E402
from fastcl.pretrain import run as run_module  # noqa: E402
from fastcl.pretrain.divergence import is_finite  # noqa: E402
from fastcl.pretrain.recipe import Config  # noqa: E402
from fastcl.pretrain.signals import StopRequest  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
runner = CliRunner()
pytestmark = pytest.mark.usefixtures("blank_pictures")


def after(steps: int):
    """A wish to stop that comes after so many steps."""
    asked = itertools.count(1)
    return lambda: next(asked) >= steps


@pytest.mark.parametrize("method", ["moco", "byol"])
def test_run_stopped_within_an_epoch_equals_one_that_never_stopped(tmp_path, method):
    whole = small_run(tmp_path / "whole", method)
    assert whole.train()
    parts = small_run(tmp_path / "parts", method)
    assert not parts.train(stop=after(2)) and (parts.epoch, parts.step) == (0, 2)
    for place in ((1, 1), (1, 2), (2, 0)):  # the last one falls on the end of an epoch
        parts = small_run(tmp_path / "parts", method)
        parts.resume(tmp_path / "parts" / checkpoint.NAME)
        steps = 3 * (place[0] - parts.epoch) + place[1] - parts.step
        # At the end of an epoch too it is asked.
        assert not parts.train(stop=after(steps + (place[0] > parts.epoch and place[1] > 0)))
        assert (parts.epoch, parts.step) == place
    parts = small_run(tmp_path / "parts", method)
    parts.resume(tmp_path / "parts" / checkpoint.NAME)
    assert parts.train()
    files = [tmp_path / name / "metrics.csv" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, parts.method.state_dict()[name]), name


def test_signals_are_heard_once_and_the_second_interrupt_is_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop() and stop.number == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_command_saves_on_a_signal_and_says_how_to_go_on(tmp_path, number):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "fastcl.cli", "pretrain", "--devices", "1", "--limit", "300",
               "--batch-size", "32", "--epochs", "2000", "--out", str(folder)]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # A shell may have told its background processes to ignore Ctrl-C.
    started = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        limit = time.monotonic() + 240
        while not (folder / checkpoint.NAME).exists() and time.monotonic() < limit:
            time.sleep(0.2)
        result = runner.invoke(commands.app, [*command[3:]])
        assert result.exit_code == 1
        assert f"in use by process {started.pid} on" in result.output
        started.send_signal(number)
        output, _ = started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode == 128 + number, output
    assert f"{number.name}: stopped and saved" in output and "Traceback" not in output
    assert "the same command goes on from there" in output
    assert sorted(path.name for path in folder.iterdir()) == [
        checkpoint.NAME, "config.json", "metrics.csv",
    ]  # fmt: skip
    result = runner.invoke(commands.app, [*command[3:], "--stop-after", "1"])
    assert result.exit_code == 0 and "continued" in result.output


def test_second_interrupt_ends_at_once_and_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    arguments = ["pretrain", "--devices", "1", "--limit", "64", "--batch-size", "32", "--epochs",
                 "3", "--out", str(tmp_path)]  # fmt: skip
    monkeypatch.setattr(run_module.Run, "train", interrupted)
    result = runner.invoke(commands.app, arguments)
    assert result.exit_code == 130 and "starts anew: nothing was saved yet" in result.output
    monkeypatch.undo()
    assert runner.invoke(commands.app, [*arguments, "--stop-after", "1"]).exit_code == 0
    monkeypatch.setattr(run_module.Run, "train", interrupted)
    result = runner.invoke(commands.app, arguments)
    assert result.exit_code == 130 and "goes on from the checkpoint" in result.output


@pytest.mark.parametrize("where", ["loss", "weight", "statistics", "velocity"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20])
def test_finite_means_all_of_it(where, value):
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    loss = network(torch.randn(5, 3)).square().sum()
    loss.backward()
    optimizer.step()
    loss = loss.detach()
    with torch.no_grad():
        network[0].weight[0, 0] = 1e18  # large, and a number
        assert is_finite(network, optimizer, loss)
        target = {
            "loss": loss, "weight": network[0].bias, "statistics": network[1].running_var,
            "velocity": optimizer.state[network[0].weight]["momentum_buffer"],
        }[where]  # fmt: skip
        target.view(-1)[0] = value
    assert not is_finite(network, optimizer, loss)


def test_divergence_is_found_within_an_epoch_and_the_checkpoint_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "CHECK_EVERY", 2)
    run = small_run(tmp_path, batch_size=16)
    run.train(stop_after=1)
    before = (tmp_path / checkpoint.NAME).read_bytes()
    run = small_run(tmp_path, batch_size=16, learning_rate=1e30)
    run.resume(tmp_path / checkpoint.NAME)
    with pytest.raises(FloatingPointError, match="step 2 of 6.*lower --lr with --out.*epoch 1"):
        run.train()
    assert (tmp_path / checkpoint.NAME).read_bytes() == before
    run = small_run(tmp_path, batch_size=16, learning_rate=0.01)
    run.resume(tmp_path / checkpoint.NAME)
    assert run.train(), "the advice must work"


def test_weights_ruined_by_the_last_step_are_not_saved(tmp_path):
    run = small_run(tmp_path, batch_size=96, learning_rate=1e38)  # one step, after a finite loss
    with pytest.raises(FloatingPointError, match="nothing was saved: start again"):
        run.train()
    assert not (tmp_path / checkpoint.NAME).exists()


@pytest.mark.parametrize("method", ["moco", "byol"])  # byol's momentum rises over the steps
def test_learning_rate_and_epochs_may_change(tmp_path, method):
    small_run(tmp_path, method).train(stop_after=2)
    run = small_run(tmp_path, method, epochs=6, learning_rate=0.01)
    run.resume(tmp_path / checkpoint.NAME)
    assert run.config.changes == [
        {"until_epoch": 2, "epochs": 4, "learning_rate": small_run(tmp_path).config.learning_rate}
    ]
    assert run.train() and run.epoch == 6
    assert run.history[2]["learning_rate"] <= 0.01 < run.history[1]["learning_rate"]
    assert Config(**checkpoint.load_checkpoint(tmp_path / checkpoint.NAME)["config"]).changes
    with pytest.raises(ValueError, match="epochs must be at least 6"):
        small_run(tmp_path, method, epochs=5, learning_rate=0.01).resume(tmp_path / checkpoint.NAME)
    with pytest.raises(ValueError, match="finished run.*more --epochs"):
        small_run(tmp_path, method, epochs=6, learning_rate=0.5).resume(tmp_path / checkpoint.NAME)


def test_resume_refuses_changed_data(tmp_path):
    images = some_digits()
    small_run(tmp_path, images=images).train(stop_after=1)
    changed = replace(images, train=images.train.clone())
    changed.train[5, 0, 0, 0] += 1
    for other in (changed, replace(images, train_labels=images.train_labels.flip(0))):
        with pytest.raises(ValueError, match="fingerprint"):
            small_run(tmp_path, images=other).resume(tmp_path / checkpoint.NAME)
    with pytest.raises(ValueError, match="samples 96 there, 95 now"):
        small_run(tmp_path, images=replace(images, train=images.train[:95])).resume(
            tmp_path / checkpoint.NAME
        )


BREAKS = {
    "it has no random": lambda s: s.pop("random"),
    "it has an unknown more": lambda s: s.update(more=1),
    "is of another version": lambda s: s["config"].update(more=1),
    "is of another version: .*batch_size": lambda s: s["config"].pop("batch_size"),
    "does not fit the run": lambda s: s["method"].update({"head.0.weight": torch.zeros(2)}),
    "does not fit the run: .*Missing": lambda s: s["method"].pop("head.0.weight"),
    "momentum_buffer of the optimizer": lambda s: s["optimizer"]["state"][0].update(
        momentum_buffer=torch.zeros(2)
    ),
    "does not fit the run: .*parameter group": lambda s: s["optimizer"]["param_groups"][0][
        "params"
    ].pop(),
    "does not fit the run: list": lambda s: s["random"].clear(),
    "sums have shape": lambda s: s["sums"].__setitem__(0, torch.zeros(3)),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    small_run(folder).train(stop_after=1)
    return folder / checkpoint.NAME


@pytest.mark.parametrize("message", BREAKS)
def test_checkpoints_of_another_make_are_named(begun, tmp_path, message):
    state = checkpoint.load_checkpoint(begun)
    BREAKS[message](state)
    path = tmp_path / checkpoint.NAME
    torch.save(state, path)
    with pytest.raises(ValueError, match=message):
        small_run(tmp_path).resume(path)
