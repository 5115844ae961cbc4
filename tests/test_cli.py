"""The command line: a run from start to table, the doctor, and what a user's mistake gets."""

import csv
import json
import re
import subprocess
import sys

import pytest
import torch

pytest.importorskip("rich")
pytest.importorskip("typer")

from typer.testing import CliRunner  # noqa: E402

from fastcl.commands import app as commands  # noqa: E402
from fastcl.commands import doctor  # noqa: E402
from fastcl.version import __version__  # noqa: E402

runner = CliRunner()
pytestmark = pytest.mark.usefixtures("blank_pictures")
FILES = {"checkpoint.pt", "metrics.csv", "curves.png", "embedding.png"}
FILES |= {"backbone.safetensors", "config.json", "results.json"}


def table(text: str) -> dict[str, list[str]]:
    """Rows of the printed table: name to its figures."""
    rows = re.findall(r"│ ([a-z ]+?) +│ +([\d.]+%) │ +([\d.]+%) │", text)
    return {name: figures for name, *figures in rows}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one epoch and what it printed."""
    for name in ("lightning_fabric", "sklearn", "safetensors", "matplotlib"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("runs") / "one"
    arguments = ["--epochs", "1", "--batch-size", "128", "--devices", "1", "--out", str(folder)]
    return folder, arguments, runner.invoke(commands.app, ["pretrain", *arguments])


def test_pretrain_leaves_a_run_folder_and_a_table(finished):
    folder, _, result = finished
    assert result.exit_code == 0, result.output
    assert {path.name for path in folder.iterdir()} == FILES
    assert set(table(result.output)) == {"raw pixels", "untrained backbone", "trained backbone"}
    assert re.search(r"loss [\d.]+%, queue [\d.]+%, momentum [\d.]+%", result.output)
    assert "images/s" in result.output and re.search(r"trained in \d+ s", result.output)
    with open(folder / "metrics.csv") as file:
        (row,) = csv.DictReader(file)
    assert row["epoch"] == "1" and row["step"] == "10" and float(row["loss"]) > 0
    assert json.loads((folder / "config.json").read_text())["method"] == "moco"


def test_evaluate_gives_the_same_figures(finished, tmp_path):
    folder, _, trained = finished
    arguments = ["--fractions", "", "--out", str(tmp_path)]
    result = runner.invoke(commands.app, ["evaluate", str(folder), *arguments])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "evaluation.json").read_text())["metrics"]
    values = {metric["name"]: metric["values"] for metric in found}
    names = ("20-NN accuracy", "linear probe, 5 labels per class")
    again = {
        features: [f"{values[name][features]:.1%}" for name in names]
        for features in values["20-NN accuracy"]
    }
    assert again == table(trained.output) != {}


def test_repeated_command_goes_on_where_the_run_ended(finished):
    folder, arguments, _ = finished
    before = (folder / "backbone.safetensors").read_bytes()
    result = runner.invoke(commands.app, ["pretrain", *arguments])
    assert result.exit_code == 0 and "continued after epoch 1" in result.output
    assert (folder / "backbone.safetensors").read_bytes() == before
    assert "share of the step time: loss" in result.output, "measured when it was trained"


def test_other_settings_in_the_same_folder_are_refused(finished):
    _, arguments, _ = finished
    result = runner.invoke(commands.app, ["pretrain", *arguments, "--seed", "3"])
    assert result.exit_code == 1 and "seed 0 there, 3 now" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "--data", "no/such"], "nothing is at 'no/such'"),
        (["pretrain", "--method", "nothing"], "Invalid value for '--method'"),
        (["pretrain", "--backbone", "vgg"], "backbone must be small"),
        (["pretrain", "--devices", "some"], "devices must be auto"),
        (["pretrain", "--resume", "no/such.pt"], "no checkpoint at 'no/such.pt'"),
        (["evaluate", "no/such"], "is no run folder"),
    ],
)
def test_mistakes_get_one_clear_message(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(commands.app, arguments)
    assert result.exit_code != 0 and message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_missing_extra_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(commands, "find_spec", lambda name: None if name == "sklearn" else name)
    result = runner.invoke(commands.app, ["pretrain"])
    assert result.exit_code == 1
    assert "this needs scikit-learn: pip install scikit-learn" in result.output


BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent} or name in ("fastcl._C", "triton"):
            raise ModuleNotFoundError(f"No module named {{name!r}}")
sys.meta_path.insert(0, Absent())
import importlib.util
find = importlib.util.find_spec
def find_spec(name, package=None):
    try:
        return find(name, package)
    except ModuleNotFoundError:
        return None
importlib.util.find_spec = find_spec
sys.argv = ["fastcl", *{arguments}]
from fastcl.cli import main
main()
"""


@pytest.mark.parametrize(("command", "code"), [("doctor", 0), ("pretrain", 1)])
def test_without_any_optional_package(command, code):
    absent = {name for names in doctor.EXTRAS.values() for name in names}
    script = BARE.format(absent=absent, arguments=[command])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    if command == "pretrain":
        assert "needs typer, rich: pip install typer rich" in done.stderr
    else:
        assert "missing: typer, rich" in done.stdout
        assert "pip install lightning-fabric scikit-learn safetensors pillow" in done.stdout
        assert "the compiled part is missing" in done.stdout


def test_doctor_lists_every_operator():
    result = runner.invoke(commands.app, ["doctor"])
    assert result.exit_code == 0
    for name in ("contrast_forward", "contrast_backward", "queue_push_", "momentum_update_"):
        assert re.search(rf"^ +{name} +cpu +(C\+\+|reference)", result.output, re.MULTILINE)
    assert torch.__version__ in result.output and __version__ in result.output


def test_doctor_asks_the_dispatcher():
    library = torch.library.Library("fastcl_doctor_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: 2 * x, "CompositeExplicitAutograd")
    name = "fastcl_doctor_test::twice"
    assert doctor.kernel_of(name, "CUDA", torch.float32) == "reference"
    library.impl("twice", lambda x: x + x, "CUDA")
    assert doctor.kernel_of(name, "CUDA", torch.float32) == "Triton"
    assert doctor.kernel_of(name, "CUDA", torch.float64) == "reference"
    assert doctor.kernel_of(name, "CPU", torch.float32) == "reference"
    assert doctor.kernel_of("aten::addmm", "CPU", torch.float32) == "C++"


def test_version():
    assert __version__ in runner.invoke(commands.app, ["--version"]).output


HELP = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "numpy"):
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, Absent())
sys.argv = ["/usr/bin/fastcl", *sys.argv[1:]]
from fastcl.cli import main
main()
"""


@pytest.mark.parametrize("arguments", [["--help"], ["pretrain", "--help"], ["--version"]])
def test_help_does_not_wait_for_torch(arguments):
    done = subprocess.run([sys.executable, "-c", HELP, *arguments], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_names_of_options_are_those_of_the_functions():
    from fastcl.commands import choices, warm_up

    assert set(choices.LOSSES) == set(warm_up.LOSSES)
    assert {dtype.value for dtype in choices.Dtype} == set(warm_up.DTYPES)


def test_import_in_any_other_process_brings_everything():
    code = "import fastcl, torch; fastcl.patch; torch.ops.fastcl.momentum_update_"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_options_reach_the_configuration(tmp_path):
    given = ["--optimizer", "adamw", "--weight-decay", "0.03", "--warmup", "0.5", "--augmentation",
             "0.25", "--twin-momentum", "0.9", "--lr", "0.001"]  # fmt: skip
    result = runner.invoke(
        commands.app, ["pretrain", "--epochs", "2", "--stop-after", "1", "--limit", "64",
                       "--batch-size", "32", "--devices", "1", "--out", str(tmp_path), *given],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["optimizer"] == "adamw" and config["options"]["momentum"] == 0.9
    figures = [config[name] for name in ("weight_decay", "warmup", "augmentation", "learning_rate")]
    assert figures == [0.03, 0.5, 0.25, 0.001]
    with open(tmp_path / "metrics.csv") as file:
        (row,) = csv.DictReader(file)
    assert float(row["learning_rate"]) == 0.001, "half of the steps rise"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("Unable to allocate 9 GiB"), "out of memory: a smaller --batch-size.*9 GiB"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory: a smaller"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory: a smaller"),
        (OSError(28, "No space left on device", "runs/a"), "No space left on device: 'runs/a'"),
        (FloatingPointError("the training diverged"), "error: the training diverged"),
    ],
)
@pytest.mark.parametrize("command", ["pretrain", "evaluate", "finetune", "distill"])
def test_what_the_machine_causes_is_one_line(monkeypatch, command, error, message):
    from fastcl.commands import distill, finetune
    from fastcl.evaluate import session as evaluation
    from fastcl.pretrain import session

    def fails(*_, **__):
        raise error

    for module, name in ((session, "pretrain"), (evaluation, "evaluate_run"),
                         (finetune, "finetune_run"), (distill, "distill_run")):  # fmt: skip
        monkeypatch.setattr(module, name, fails)
    result = runner.invoke(commands.app, [command, *([] if command == "pretrain" else ["run"])])
    assert result.exit_code == 1 and re.search(message, " ".join(result.output.split()))
    assert len(result.output.strip().splitlines()) <= 2 and "Traceback" not in result.output


def test_a_fault_of_fastcl_keeps_its_traceback(monkeypatch):
    from fastcl.pretrain import session

    def fails(*_, **__):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(session, "pretrain", fails)
    assert isinstance(runner.invoke(commands.app, ["pretrain"]).exception, RuntimeError)


@pytest.mark.parametrize("device", ["cuda", "tpu"])
@pytest.mark.parametrize("command", ["evaluate", "finetune", "distill"])
def test_devices_that_are_not_there_are_named(command, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("cuda is there")
    result = runner.invoke(commands.app, [command, "run", "--device", device])
    assert result.exit_code == 1 and f"cuda or auto, got '{device}'" in result.output


def test_bar_opens_without_figures_and_goes_on_where_the_run_is():
    from rich.console import Console

    from fastcl.pretrain.display import Display

    console = Console(force_terminal=True, width=120, record=True)
    with Display(console, epochs=4, steps=10, done=1, step=3) as display:
        display._progress.refresh()
        (task,) = display._progress.tasks
        assert task.completed == 13
    assert "nan" not in console.export_text()


def test_partly_labelled_data_train_and_are_measured(tmp_path):
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (90, 8, 8), dtype=np.uint8)
    labels = np.tile([-1, 3, 5], 30)[:, None]
    np.savez(tmp_path / "part.npz", images=pixels, labels=labels)
    folder = str(tmp_path / "run")
    for arguments in (
        ["pretrain", "--method", "supcon", "--data", str(tmp_path / "part.npz"), "--epochs", "1",
         "--devices", "1", "--out", folder],
        ["evaluate", folder, "--fractions", "0.5", "--finetune-steps", "2", "--embedding", "tsne",
         "--device", "cpu"],
        ["finetune", folder, "--steps", "2", "--device", "cpu"],
        ["distill", folder, "--steps", "2", "--alpha", "0.5", "--device", "cpu"],
    ):  # fmt: skip
        result = runner.invoke(commands.app, arguments)
        assert result.exit_code == 0 and "warning: no" not in result.output, result.output
        if arguments[0] in ("finetune", "distill"):
            assert re.search(r"(fine-tuning|distilling), step 2/2", result.output), "progress"
    text = (tmp_path / "run" / "evaluation.json").read_text()
    knn = next(m for m in json.loads(text)["metrics"] if "-NN" in m["name"])
    (known,) = re.findall(r"(\d+) training and \d+ test images", knn["protocol"])
    assert int(known) < 72, "images without a label are left out"
