"""The run folder: one process and one configuration, files for others to read."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

for name in ("lightning_fabric", "sklearn", "safetensors", "typer", "matplotlib"):
    pytest.importorskip(name)

from test_pretrain import some_digits  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from fastcl.commands import app as commands  # noqa: E402
from fastcl.pretrain import checkpoint, session  # noqa: E402
from fastcl.pretrain.lock import FolderInUse, locked  # noqa: E402
from fastcl.pretrain.recipe import Config  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
runner = CliRunner()
pytestmark = pytest.mark.usefixtures("blank_pictures")

HOLD = """
import sys, time
from pathlib import Path
from fastcl.pretrain.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held(folder):
    """Another process is at work in the folder: its number."""
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert other.stdout.readline() == "held\n"
        yield other.pid
    finally:
        other.kill()
        other.wait()


def test_folder_is_one_process_at_a_time(tmp_path):
    with locked(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert not list((tmp_path / "new").iterdir()), "nothing is left"
    with (
        held(tmp_path) as pid,
        pytest.raises(FolderInUse, match=f"in use by process {pid} on "),
        locked(tmp_path),
    ):
        pytest.fail("two at once")
    with locked(tmp_path):  # a killed process holds nothing
        pass


def test_save_leaves_the_unfinished_file_of_a_living_process(tmp_path):
    other = tmp_path / f"{checkpoint.NAME}.{os.getppid()}.tmp"
    other.write_text("half")
    checkpoint.save_checkpoint(tmp_path / checkpoint.NAME, {"epoch": 1})
    assert other.exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Arguments of a finished run on an npz, and its folder."""
    base = tmp_path_factory.mktemp("finished")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(base / "set.npz", images=pixels, labels=np.arange(60) % 3)
    folder = base / "run"
    arguments = ["pretrain", "--data", str(base / "set.npz"), "--epochs", "1", "--devices", "1",
                 "--image-size", "32", "--out", str(folder)]  # fmt: skip
    old = os.umask(0o022)
    result = runner.invoke(commands.app, arguments)
    os.umask(old)
    assert result.exit_code == 0, result.output
    return arguments, folder, result.output


def test_every_file_is_readable_by_others(finished):
    _, folder, output = finished
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert "--image-size 32 has no effect" in output and "8 x 8" in output


def test_evaluation_leaves_the_pictures_of_pretraining(finished):
    _, folder, _ = finished
    before = {name: (folder / name).read_bytes() for name in (session.CURVES, session.EMBEDDING)}
    arguments = ["--fractions", "", "--embedding", "tsne", "--device", "cpu"]
    result = runner.invoke(commands.app, ["evaluate", str(folder), *arguments])
    assert result.exit_code == 0, result.output
    assert all((folder / name).read_bytes() == data for name, data in before.items())
    assert (folder / "evaluation" / "embedding.png").exists() and (folder / "report.html").exists()
    text = (folder / "report.html").read_text()
    found = json.loads((folder / "evaluation.json").read_text())
    ranks = {m["name"]: m["values"]["trained backbone"] for m in found["metrics"]}
    assert ranks["effective rank"] == found["collapse"]["effective_rank"], "one definition"
    assert "tbody tr:last-child > *" in text, "no rule below the last row"


@pytest.mark.slow
def test_every_command_that_writes_into_a_folder_holds_it(finished, tmp_path):
    _, folder, _ = finished
    quick = ["--fractions", "", "--embedding", "tsne", "--device", "cpu"]
    with held(folder) as pid:
        before = sorted(folder.rglob("*"))
        for arguments in (["evaluate", *quick], ["finetune"], ["distill"]):
            result = runner.invoke(commands.app, [*arguments, str(folder)])
            assert result.exit_code == 1 and f"in use by process {pid} on " in result.output
        assert sorted(folder.rglob("*")) == before
        # A finished run may be read meanwhile.
        result = runner.invoke(
            commands.app, ["evaluate", str(folder), *quick, "--out", str(tmp_path)]
        )
        assert result.exit_code == 0, result.output
    assert (tmp_path / "report.html").exists()
    with held(tmp_path) as pid:
        result = runner.invoke(
            commands.app, ["evaluate", str(folder), *quick, "--out", str(tmp_path)]
        )
    assert result.exit_code == 1 and f"in use by process {pid} on " in result.output


def test_no_evaluation_error_fails_a_finished_run(finished, monkeypatch):
    arguments, folder, _ = finished
    (folder / "results.json").unlink()

    def fails(*_):
        raise IndexError("tuple index out of range")

    for name in ("score_all", "plot_embedding", "plot_curves"):
        monkeypatch.setattr(session, name, fails)
    result = runner.invoke(commands.app, arguments)
    assert result.exit_code == 0, result.output
    for name in ("curves", "picture of the features", "accuracy"):
        assert f"warning: no {name}: tuple index out of range" in result.output
    assert (folder / "backbone.safetensors").exists() and (folder / "results.json").exists()


def test_resume_never_clears_what_fastcl_left_and_nothing_else(tmp_path):
    (tmp_path / "finetuned").mkdir()
    (tmp_path / "evaluation").mkdir()
    own = ["checkpoint.pt", "metrics.csv", "curves.png", "backbone.safetensors", "results.json",
           "report.html", "finetuned/results.json", "evaluation/maps.png"]  # fmt: skip
    for name in [*own, "notes.txt", "evaluation/mine.txt"]:
        (tmp_path / name).write_text("old")
    result = runner.invoke(
        commands.app,
        ["pretrain", "--resume", "never", "--epochs", "2", "--stop-after", "1", "--limit", "64",
         "--batch-size", "32", "--devices", "1", "--out", str(tmp_path)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"checkpoint.pt", "metrics.csv", "config.json", "notes.txt",
                    "evaluation/mine.txt"}  # fmt: skip


def test_evaluation_refuses_changed_data_and_unfinished_weights(finished):
    arguments, folder, _ = finished
    config = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({"fingerprint": "0" * 32}, "the data of the run have changed"),
        ({"epochs": 3}, "is of epoch 1, but the run now goes to epoch 3"),
        ({"more": 1}, "is not the configuration of a run"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        for command in ("evaluate", "finetune"):
            result = runner.invoke(commands.app, [command, str(folder), "--device", "cpu"])
            assert result.exit_code == 1 and message in result.output
    (folder / "config.json").write_text(json.dumps(config))


def test_folder_of_another_run_is_refused_for_a_checkpoint_from_elsewhere(finished, tmp_path):
    arguments, folder, _ = finished
    other = json.loads((folder / "config.json").read_text()) | {"seed": 9}
    (tmp_path / "config.json").write_text(json.dumps(other))
    given = [*arguments[:-1], str(tmp_path), "--resume", str(folder)]
    result = runner.invoke(commands.app, given)
    assert result.exit_code == 1 and "holds another run (seed 9 there, 0 now)" in result.output


def test_default_folders_tell_settings_apart():
    images = some_digits()
    config = small_run_config(images)
    names = {
        str(session.default_folder(config, images, choices))
        for choices in (
            {}, {"learning_rate": 0.1}, {"learning_rate": 0.2}, {"temperature": 0.1},
            {"batch_size": 32}, {"stem": "cifar"}, {"limit": 50}, {"size": 32},
            {"weight_decay": 0.1}, {"augmentation": 0.5}, {"optimizer": "lars"},
            {"precision": "bf16"}, {"devices": 2}, {"queue_size": 64},
        )
    }  # fmt: skip
    assert len(names) == 14
    plain = session.default_folder(
        config, images, {"stem": "auto", "augmentation": 1.0, "devices": 1, "precision": "32"}
    )
    assert plain == Path("runs/moco-digits-small-4ep-seed5")
    places = {
        session.default_folder(replace(config, data=data), images, {})
        for data in ("/a/set.npz", "/b/set.npz")
    }
    assert len(places) == 2


def small_run_config(images) -> Config:
    from fastcl.pretrain.recipe import resolve

    return resolve(images, method="moco", data="digits", precision="32", devices=1, epochs=4,
                   batch_size=32, seed=5)  # fmt: skip


def test_configuration_survives_the_disk(tmp_path):
    config = replace(small_run_config(some_digits()), changes=[{"until_epoch": 1, "epochs": 3}])
    config.save(tmp_path / "config.json")
    assert asdict(Config.load(tmp_path / "config.json")) == asdict(config)
    assert config.samples == 96 and len(config.fingerprint) == 32
