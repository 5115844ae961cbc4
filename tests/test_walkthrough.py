"""docs/pretraining.md: its commands run in order, small, and its figures are those of its rows."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch

pytest.importorskip("typer")

from typer.testing import CliRunner  # noqa: E402

from benchmarks import report  # noqa: E402
from fastcl.commands import app as commands  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "pretraining.md"
# What makes a command of the page a matter of seconds; the last of an option counts.
SMALL = {
    "pretrain": "--epochs 1 --limit 48 --batch-size 24 --image-size 32 --devices 1",
    "evaluate": "--limit 48 --fractions '' --embedding tsne",
}


def steps():
    """Commands, and the Python between them, as they come on the page."""
    found = re.finditer(r"^    fastcl (.*)$|^```py\n((?:.*\n)*?)```$", PAGE.read_text(), re.M)
    return [match.groups() for match in found]


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    for name in ("lightning_fabric", "sklearn", "safetensors", "matplotlib"):
        pytest.importorskip(name)
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "photos").mkdir()
    for i in range(60):
        pixels = torch.randint(256, (40, 50, 3), dtype=torch.uint8).numpy()
        image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    ran = []
    for command, code in steps():
        if code:
            names = {"__name__": "example"}
            exec(compile(code, "pretraining", "exec"), names)
            assert names["features"].isfinite().all()
            continue
        name, *words = shlex.split(command)
        more = SMALL.get(name, "")
        if "photos" in words:
            more = more.replace("--devices", "--backbone small --devices")
        else:
            more = more.replace("--image-size 32", "")
        result = CliRunner().invoke(commands.app, [name, *words, *shlex.split(more)])
        assert result.exit_code == 0, result.output
        ran.append(name)
    assert ran == ["views", "pretrain", "evaluate", "export", "views", "pretrain"]
    left = {path.name for path in (tmp_path / "runs" / "digits").iterdir()}
    table = PAGE.read_text().split("| | |")[1].split("\n\n")[0]
    assert set(re.findall(r"`([\w.]+)`", table)) <= left


def test_the_figures_are_those_of_the_rows():
    pytest.importorskip("PIL")
    made = runpy.run_path(str(ROOT / "docs" / "pretraining" / "make.py"))
    text = made["table"](report.read(made["ROWS"]))
    assert f"start -->\n{text}<!-- walkthrough" in PAGE.read_text()
    assert [path.stem for path in sorted(made["FOLDER"].glob("*.png"))] == sorted(
        [*made["PICTURES"], "views"]
    )
