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

from fastcl import commands, doctor  # noqa: E402
from fastcl.version import __version__  # noqa: E402

runner = CliRunner()
FILES = {
    "checkpoint.pt", "metrics.csv", "curves.png", "embedding.png", "backbone.safetensors",
    "config.json", "results.json",
}  # fmt: skip


def table(text: str) -> dict[str, list[str]]:
    """Rows of the printed table: name to its figures."""
    rows = re.findall(r"│ ([a-z ]+?) +│ +([\d.]+%) │ +([\d.]+%) │", text)
    return {name: figures for name, *figures in rows}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one epoch and what it printed."""
    for name in ("lightning_fabric", "kornia", "sklearn", "safetensors", "matplotlib"):
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
    monkeypatch.setattr(commands, "find_spec", lambda name: None if name == "kornia" else name)
    result = runner.invoke(commands.app, ["pretrain"])
    assert result.exit_code == 1
    assert "kornia: pip install 'fastcl[pretrain,plot]'" in result.output


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
        assert "needs typer and rich: pip install 'fastcl[cli]'" in done.stderr
    else:
        assert "missing: typer, rich" in done.stdout
        assert "pip install 'fastcl[pretrain]'" in done.stdout
        assert "the compiled part is missing" in done.stdout


def test_doctor_lists_every_operator():
    result = runner.invoke(commands.app, ["doctor"])
    assert result.exit_code == 0
    for name in ("info_nce_forward", "info_nce_backward", "queue_push_", "momentum_update_"):
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
