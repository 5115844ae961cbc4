"""The examples of the README and of every documentation page run as they are pasted."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from peers import HOMES, peer

import fastcl
from fastcl import pretext
from fastcl.commands import choices

ROOT = Path(__file__).resolve().parents[1]
FENCE = r"^```python\n(.*?)^```$"
EXAMPLES = {
    f"{page.stem}-{number}": code
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for number, code in enumerate(re.findall(FENCE, page.read_text(), re.M | re.S))
}
SEVERAL_RANKS = [name for name, code in EXAMPLES.items() if "init_process_group(" in code]


def of_page(stem):
    return {name: code for name, code in EXAMPLES.items() if name.startswith(f"{stem}-")}


def test_there_are_examples():
    assert len(EXAMPLES) >= 30 and len(SEVERAL_RANKS) >= 2
    pages = "README", "migration", "pretext", "distributed", "evaluation", "cuda-graphs"
    pages += "positives", "views", "losses", "kernels"
    assert all(of_page(stem) for stem in pages)


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert len(links) > 15 and [link for link in links if not (ROOT / link).exists()] == []


def test_every_pretext_task_has_an_example():
    text = "\n".join(of_page("pretext").values())
    classes = [name for name in pretext.__all__ if name[0].isupper()]
    assert [name for name in classes if f"pretext.{name}(" not in text] == []


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in SEVERAL_RANKS])
def test_example_runs(name, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    for library in re.findall(r"fastcl\.patch\(\s*\"(\w+)", EXAMPLES[name]):
        peer(HOMES.get(library, library))
        request.addfinalizer(lambda library=library: fastcl.unpatch(library))
    names = {"__name__": "example"}
    exec(compile(EXAMPLES[name], name, "exec"), names)
    if name in of_page("pretext"):
        assert names["loss"].isfinite() and names["loss"].dim() == 0
        assert all(p.grad is not None for p in names["task"].parameters())
        assert len(EXAMPLES[name].strip().splitlines()) <= 12


@pytest.mark.slow
@pytest.mark.parametrize("name", SEVERAL_RANKS)
def test_example_runs_on_two_ranks(name, tmp_path):
    script = tmp_path / "example.py"
    # Without the interpreter's tidying up, in which threads of torch's own DDP over gloo abort now
    # and then: "terminate called without an active exception".
    script.write_text(EXAMPLES[name] + "print('done', flush=True)\nimport os\nos._exit(0)\n")
    launcher = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"
    done = subprocess.run(
        [sys.executable, *launcher, script],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done") == 2 and "UserWarning" not in done.stderr


def test_every_picture_is_there_and_every_preset_has_one():
    text = (ROOT / "docs" / "views.md").read_text()
    pictures = re.findall(r"\]\((views/[\w-]+\.png)\)", text)
    there = {f"views/{path.name}" for path in (ROOT / "docs" / "views").glob("*.png")}
    assert set(pictures) == there and set(choices.PRESETS) - {"digits"} <= {
        Path(name).stem for name in pictures
    }
    assert sum((ROOT / "docs" / name).stat().st_size for name in there) < 2**20
