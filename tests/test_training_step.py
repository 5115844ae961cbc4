"""What a step may do otherwise: parts of a batch, compiled, other memory, other weights."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

for name in ("lightning_fabric", "sklearn", "safetensors", "rich", "matplotlib", "typer"):
    pytest.importorskip(name)

from safetensors.torch import save_file  # noqa: E402
from test_pretrain import small_run, some_digits, some_photographs  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from fastcl.commands.app import app  # noqa: E402
from fastcl.methods import MoCo, SimCLR  # noqa: E402
from fastcl.pretrain.backbone import build_backbone  # noqa: E402
from fastcl.pretrain.inputs import Batch  # noqa: E402
from fastcl.pretrain.loggers import check_logger, logging_to  # noqa: E402
from fastcl.pretrain.run import build_fabric  # noqa: E402
from fastcl.pretrain.start import start_from  # noqa: E402
from fastcl.pretrain.step import Step  # noqa: E402

FURTHER = [pytest.param(x, marks=pytest.mark.slow) for x in ("instdisc", "supcon", "dino", "byol")]

# --- parts of a batch -----------------------------------------------------------------------


def stepped(build, accumulate: int):
    """State, loss and top-1 after one step of plain SGD on eight rows."""
    torch.manual_seed(3)
    method = build(nn.Sequential(nn.Flatten(), nn.Linear(12, 10), nn.Tanh()))
    images, fabric = torch.rand(8, 3, 2, 2), build_fabric(1, "32")
    optimizer = torch.optim.SGD(method.parameters(), 0.1)
    model, optimizer = fabric.setup(method, optimizer)

    def inputs(part):
        return part.images, 1 - part.images

    step = Step(fabric, method, model, optimizer, inputs, accumulate)
    found = step(Batch(images, torch.arange(8), None), 0.5)
    return method.state_dict(), found


def moco(backbone):
    return MoCo(backbone, width=10, dim=6, queue_size=16)


def test_accumulated_moco_is_that_of_the_whole_batch():
    """No row of a batch is a negative of another: parts differ in batch statistics alone."""
    (whole, found), (parts, again) = stepped(moco, 1), stepped(moco, 4)
    torch.testing.assert_close(found, again)
    for name, x in whole.items():
        torch.testing.assert_close(x, parts[name])
    assert int(parts["queue.pointer"]) == 8, "one update, and no key is lost"


def test_accumulated_simclr_is_the_mean_of_small_contrasts():
    def simclr(backbone):
        method = SimCLR(backbone, width=10, dim=6)
        method.head = nn.Linear(10, 6)  # without batch statistics
        return method

    _, (whole, _) = stepped(simclr, 1)
    _, (parts, _) = stepped(simclr, 2)
    torch.manual_seed(3)
    method = simclr(nn.Sequential(nn.Flatten(), nn.Linear(12, 10), nn.Tanh()))
    images = torch.rand(8, 3, 2, 2)
    expected = torch.stack([method(x, 1 - x) for x in images.chunk(2)]).mean()
    torch.testing.assert_close(parts, expected.detach())
    assert whole - parts > 0.1, "fewer negatives, a smaller loss"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"accumulate": 0}, "accumulate must be 1 or more, got 0"),
        ({"accumulate": 3}, "multiple of the 1 devices times accumulate 3 from 6 to the 96"),
        ({"accumulate": 32}, "multiple of the 1 devices times accumulate 32 from 64 to the 96"),
    ],
)
def test_parts_must_be_equal_and_of_two_images(tmp_path, choices, message):
    with pytest.raises(ValueError, match=message):
        small_run(tmp_path, **choices)


@pytest.mark.parametrize("method", ["moco", "swav", *FURTHER])
def test_accumulated_runs_train_and_resume(tmp_path, method):
    images = (some_photographs if method in ("swav", "dino") else some_digits)(64)
    choices = {"images": images, "backbone": "small", "accumulate": 2, "epochs": 2}
    whole = small_run(tmp_path / "whole", method, **choices)
    whole.train()
    first = small_run(tmp_path / "parts", method, **choices)
    first.train(stop_after=1)
    second = small_run(tmp_path / "parts", method, **choices)
    checkpoint = tmp_path / "parts" / "checkpoint.pt"
    second.resume(checkpoint)
    second.train()
    assert whole.history == second.history
    with pytest.raises(ValueError, match="accumulate 2 there, 1 now"):
        small_run(tmp_path, method, **(choices | {"accumulate": 1})).resume(checkpoint)


# --- compiled, and other memory --------------------------------------------------------------


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_run_is_the_eager_one(tmp_path, monkeypatch, backend):
    """What inductor makes of it takes twenty seconds and is torch's."""
    called, real = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda f: called.append(f) or real(f, backend=backend))
    eager = small_run(tmp_path / "eager", epochs=2)
    assert eager.train() and not called
    compiled = small_run(tmp_path / "compiled", epochs=2, compile=True)
    assert compiled.train() and len(called) == 2, "the twin too"
    for one, two in zip(eager.history, compiled.history, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    other = compiled.method.state_dict()
    assert other.keys() == eager.method.state_dict().keys()
    for name, x in eager.backbone.state_dict().items():
        torch.testing.assert_close(other[f"backbone.{name}"], x, rtol=1e-3, atol=1e-4)
    assert "forward" not in vars(compiled.backbone), "what follows is not compiled"
    small_run(tmp_path / "compiled", epochs=2).resume(tmp_path / "compiled" / "checkpoint.pt")


def test_a_method_that_listens_inside_its_network_is_not_compiled(tmp_path):
    with pytest.raises(ValueError, match="compile: dim takes features from inside its network"):
        small_run(tmp_path, "dim", compile=True)


def test_a_compiler_that_fails_is_told(tmp_path, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no compiler")

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f: real(f, backend=broken))
    run = small_run(tmp_path, compile=True)
    with pytest.raises(ValueError, match="compile failed here, train without it:.*no compiler"):
        run.train()
    assert "forward" not in vars(run.backbone)


def test_memory_format_changes_no_number_beyond_rounding(tmp_path):
    images = some_photographs()
    losses = []
    for on, layout in ((False, torch.contiguous_format), (True, torch.channels_last)):
        run = small_run(
            tmp_path / str(on), images=images, backbone="small", channels_last=on, epochs=1
        )
        run.train()
        losses.append(run.history[0]["loss"])
        assert run.backbone.layers[3].weight.is_contiguous(memory_format=layout)
        (view, _) = run._step.inputs(run.feed.batch(0, 0))
        assert view.is_contiguous(memory_format=layout)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# --- weights to start from -------------------------------------------------------------------


@pytest.fixture
def network():
    torch.manual_seed(9)
    return build_backbone("small", channels=1, size=8)[0]


def equal(one: nn.Module, two: nn.Module) -> bool:
    state = two.state_dict()
    return all(torch.equal(x, state[name]) for name, x in one.state_dict().items())


def test_files_of_every_kind_fill_a_backbone(tmp_path, network):
    state = {name: x.clone() for name, x in network.state_dict().items()}
    whole = state | {"fc.weight": torch.zeros(3, 128), "fc.bias": torch.zeros(3)}
    save_file(whole, tmp_path / "a.safetensors")
    torch.save(whole, tmp_path / "b.pth")
    torch.save({"state_dict": whole}, tmp_path / "c.pt")
    (tmp_path / "run").mkdir()
    save_file(state, tmp_path / "run" / "backbone.safetensors")
    (tmp_path / "hub").mkdir()
    save_file(state, tmp_path / "hub" / "model.safetensors")
    for name in ("a.safetensors", "b.pth", "c.pt", "run", "hub"):
        other = build_backbone("small", channels=1, size=8)[0]
        assert not equal(network, other)
        start_from(other, tmp_path / name)
        assert equal(network, other), name


def test_a_run_starts_from_weights_with_its_twin(tmp_path, network):
    path = tmp_path / "w.pth"
    torch.save(network.state_dict(), path)
    run = small_run(tmp_path / "run", weights=str(path))
    assert equal(network, run.backbone)
    twin = [x for x in run.method.target.state_dict().values() if x.dim() == 4]
    own = [x for x in network.state_dict().values() if x.dim() == 4]
    assert all(torch.equal(x, y) for x, y in zip(own, twin, strict=True))
    assert equal(small_run(tmp_path / "other").backbone, small_run(tmp_path / "again").backbone)


def test_weights_of_another_network_name_the_keys(tmp_path, network):
    state = dict(network.state_dict())
    del state["layers.0.weight"]
    state["conv1.weight"] = torch.zeros(3)
    state["layers.1.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "w.pth")
    before = {name: x.clone() for name, x in network.state_dict().items()}
    with pytest.raises(ValueError) as error:
        start_from(network, tmp_path / "w.pth")
    for text in ("layers.0.weight missing", "conv1.weight unknown",
                 "layers.1.bias is [5] and must be [32] of another shape"):  # fmt: skip
        assert text in str(error.value)
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("none.pth", None, FileNotFoundError, "weights: no file at"),
        ("a.pth", b"nothing", ValueError, "cannot be read|more than tensors"),
        ("a.safetensors", b"nothing", ValueError, "cannot be read"),
        ("a.pth", [1, 2], ValueError, "is no mapping of names to tensors"),
        ("a.pth", SimpleNamespace(a=1), ValueError, "holds more than tensors or is none"),
    ],
)
def test_files_that_are_no_weights_are_named(tmp_path, network, name, content, error, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(error, match=message):
        start_from(network, path)


def test_command_starts_from_weights(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "w.pth")
    common = ["pretrain", "--limit", "40", "--batch-size", "20", "--devices", "1", "--epochs", "1"]
    given = ["--weights", str(tmp_path / "w.pth"), "--accumulate", "2", "--no-channels-last"]
    result = CliRunner().invoke(app, [*common, *given, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    given = ["--weights", str(tmp_path / "none.pth"), "--out", str(tmp_path / "other")]
    result = CliRunner().invoke(app, [*common, *given])
    assert result.exit_code == 1 and "error: weights: no file at" in result.output
    assert not (tmp_path / "other" / "config.json").exists()


# --- loggers ----------------------------------------------------------------------------------


def test_loggers_get_every_epoch(tmp_path, monkeypatch):
    told = {"rows": [], "config": {}, "ended": None}

    def init(**options):
        told["options"] = options
        return SimpleNamespace(
            id="x", config=told["config"], log=lambda row, step: told["rows"].append((step, row)),
            finish=lambda exit_code: told.update(ended=exit_code),
        )  # fmt: skip

    class Config(dict):
        def update(self, values, allow_val_change):
            super().update(values)

    told["config"] = Config()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    run = small_run(tmp_path, epochs=2)
    with logging_to("wandb", run):
        run.train()
    assert [step for step, _ in told["rows"]] == [3, 6] and told["ended"] == 0
    assert [row["loss"] for _, row in told["rows"]] == [row["loss"] for row in run.history]
    assert told["config"]["method"] == "moco" and told["options"]["id"] == tmp_path.name
    with pytest.raises(FloatingPointError), logging_to("wandb", small_run(tmp_path / "b")):
        raise FloatingPointError
    assert told["ended"] == 1


def test_tensorboard_has_the_history(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = small_run(tmp_path, epochs=2)
    with logging_to("tensorboard", run):
        run.train()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    expected = [(row["step"], pytest.approx(row["loss"])) for row in run.history]
    assert found == expected


def test_unknown_and_absent_loggers_are_told(monkeypatch):
    with pytest.raises(ValueError, match="logger must be one of none, tensorboard, wandb"):
        check_logger("mlflow")
    monkeypatch.setattr("fastcl.pretrain.loggers.find_spec", lambda name: None)
    for name in ("tensorboard", "wandb"):
        with pytest.raises(ModuleNotFoundError, match=f"pip install {name}"):
            check_logger(name)
    check_logger("none")
