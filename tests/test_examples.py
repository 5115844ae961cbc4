"""The examples run, each assertion in them holds, and several ranks print what one process does."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from forked import forked

ROOT = Path(__file__).resolve().parents[1]
# Library examples: what they import.
NEEDS = {
    "accelerate_loop": ("accelerate", "sklearn"),
    "lightning_module": ("pytorch_lightning", "sklearn"),
    "open_clip_loop": ("open_clip", "open_clip_train"),
    "sentence_transformers_trainer": ("accelerate", "datasets", "sentence_transformers"),
    "trainer_compute_loss": ("accelerate", "transformers"),
    "transformers_trainer": ("accelerate", "sklearn", "transformers"),
}
# Started once per rank.
LAUNCHED = {"deepspeed_stage2": ("deepspeed",)}
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
# Some libraries import torchvision, which not every torch has beside it, without a use for it here.
WITHOUT_TORCHVISION = """
import runpy
from benchmarks.absent import stand_in_for_torchvision
with stand_in_for_torchvision():
    runpy.run_path("examples/{}.py", run_name="__main__")
"""


def _printed(*command):
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # Paths are relative to here, and the program runs in the root.
    path = os.pathsep.join([str(ROOT), *(os.path.abspath(x) for x in given if x)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for _ in range(3):
        result = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        # Now and then a rank of gloo aborts as its interpreter ends, with nothing of fastcl in it.
        if "terminate called without an active exception" not in result.stderr:
            break
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def _losses(*command):
    return [float(x) for x in re.findall(r"loss (\d+\.\d+)", _printed(*command))]


def test_plain_loop():
    losses = _losses("examples/plain_loop.py")
    assert len(losses) == 4 and losses[-1] < losses[0]


def _need(libraries):
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed: make test-peers")


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_in_a_library(name):
    _need(NEEDS[name])
    first, last = _losses("-c", WITHOUT_TORCHVISION.format(name))
    assert last < first


ALONE = """
import importlib.abc, runpy, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {libraries}:
            raise ModuleNotFoundError(f"No module named {{name!r}}")
sys.meta_path.insert(0, Absent())
runpy.run_path("examples/{name}.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def told_alone():
    """Exit status and words of every example without its libraries."""
    every = (NEEDS | LAUNCHED).items()
    return forked({name: ALONE.format(libraries=needs, name=name) for name, needs in every})


@pytest.mark.parametrize("name", NEEDS | LAUNCHED)
def test_without_its_library_an_example_names_it_in_a_line(told_alone, name):
    status, words = told_alone[name]
    assert status == 1
    assert re.fullmatch(rf"No module named '{(NEEDS | LAUNCHED)[name][0]}': pip install .+", words)


@pytest.mark.slow
def test_two_ranks_by_torchrun():
    one = _losses("examples/ddp_two_ranks.py")
    two = _losses(*LAUNCHER, "examples/ddp_two_ranks.py")
    assert len(one) == 20 and len(set(one)) > 10
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) <= 2e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHED)
def test_two_ranks_in_a_library(name):
    """Each compares its gradients with those of one process itself."""
    _need(LAUNCHED[name])
    losses = _losses(*LAUNCHER, f"examples/{name}.py")
    assert len(losses) == 20 and losses[-1] < 0.5 * losses[0]


# Smaller and shorter than they are by default; an example asserts itself that it has learned.
BEYOND = {
    "graph_nodes": ("--nodes", "1500"), "time_series": ("--steps", "30"),
    "sounds": ("--steps", "30"), "recommender": (),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BEYOND)
def test_beyond_pictures(name, tmp_path):
    picture = tmp_path / "picture.png"
    plotted = ("--plot", str(picture)) if importlib.util.find_spec("matplotlib") else ()
    losses = _losses(f"examples/{name}.py", *BEYOND[name], *plotted)
    assert losses[-1] < losses[0]
    assert not plotted or picture.read_bytes().startswith(b"\x89PNG")


def test_every_example_is_run():
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert names == {*NEEDS, *LAUNCHED, *BEYOND, "plain_loop", "ddp_two_ranks"}
