"""A run that reads its images while it trains: its numbers and its stops."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

for name in ("lightning_fabric", "sklearn", "safetensors", "typer", "spdl.pipeline"):
    pytest.importorskip(name)

from stream_cases import draw_set, run_of, streamed  # noqa: E402

from fastcl.data import Arrays, square  # noqa: E402
from fastcl.data.folder import Folder  # noqa: E402
from fastcl.data.stream import Stream  # noqa: E402
from fastcl.evaluate.session import read_history  # noqa: E402
from fastcl.pretrain import data as data_module  # noqa: E402
from fastcl.pretrain.augment import Made  # noqa: E402
from fastcl.pretrain.data import load_images  # noqa: E402
from fastcl.pretrain.run import Run  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_set(tmp_path_factory.mktemp("data") / "set")


# --- the stream -----------------------------------------------------------------------------


def test_a_stream_is_the_tensor_that_it_stands_for(folder):
    kept = load_images(str(folder), size=16, stream="never")
    images = streamed(folder)
    assert images.streamed and not kept.streamed and isinstance(images.test, Stream)
    assert images.classes == kept.classes and torch.equal(images.train_labels, kept.train_labels)
    for stream, tensor in ((images.train, kept.train), (images.test, kept.test)):
        assert stream.shape == tensor.shape and len(stream) == len(tensor)
        blocks = list(stream.split(9))
        assert [len(block) for block in blocks] == [len(x) for x in tensor.split(9)]
        assert torch.equal(torch.cat(blocks), tensor) and blocks[0].is_contiguous()
        assert torch.equal(stream[:5], tensor[:5])
        index = torch.tensor([[3, 1], [0, 0]])
        assert torch.equal(stream[index], tensor[index])
        few = torch.tensor([6, 2])
        assert torch.equal(torch.cat(list(stream.take(few).split(1))), tensor[few])
    for one, other in zip(images.statistics(), kept.statistics(), strict=True):
        torch.testing.assert_close(one, other)
    images.train_labels[:3], kept.train_labels[:3] = -1, -1
    assert torch.equal(torch.cat(list(images.with_labels().train.split(20))),
                       kept.with_labels().train)  # fmt: skip


def test_what_is_large_stays_on_the_disk(folder, monkeypatch):
    told = []
    assert not load_images(str(folder), tell=told.append).streamed and not told
    monkeypatch.setattr(data_module, "WHOLE", 50_000)
    assert load_images(str(folder), tell=told.append).streamed
    assert told == ["70 images, 60.7 kB as pixels of 17 x 17: they are read while they are used"]
    monkeypatch.setattr(data_module, "available", lambda: 40_000)
    with pytest.raises(ValueError, match=r"70 images, 60.7 kB.*do not fit into the 40 kB.*stream"):
        load_images(str(folder), stream="never")
    with pytest.raises(ValueError, match="stream must be auto, always, never, got 'yes'"):
        load_images(str(folder), stream="yes")


def test_a_long_reading_says_how_far_it_is(folder, monkeypatch):
    monkeypatch.setattr(square, "TOLD_EVERY", 0.0)
    told = []
    load_images(str(folder), size=16, stream="never", tell=told.append)
    assert re.fullmatch(r"32 of 56 images decoded, \d+ s left", told[0]), told


def test_the_limit_acts_before_anything_is_decoded(folder, monkeypatch):
    read = []
    whole_read = Folder.read
    monkeypatch.setattr(Folder, "read", lambda self, i: read.append(i) or whole_read(self, i))
    images = load_images(str(folder), size=16, limit=4)
    assert len(images.train) == len(images.test) == 4 and len(read) <= 4 + 4 + 3


@pytest.mark.parametrize("method", ["moco", "cmc", "swav", "dino"])
def test_streamed_views_are_those_of_memory_by_the_same_numbers(folder, tmp_path, method):
    """Of images that are squares already, so that both see the same pixels."""
    kept = load_images(str(folder), size=32, stream="never")
    squares = Arrays(kept.train.numpy(), kept.train_labels.numpy(), kept.classes)
    streams = replace(kept, train=Stream(squares, 32, 3), test=Stream(squares, 32, 3))
    streams.train.statistics = kept.statistics()
    runs = [run_of(x, tmp_path / str(i), method) for i, x in enumerate((kept, streams))]
    memory, disk = (run.feed.batch(0, 1) for run in runs)
    assert torch.equal(memory.index, disk.index) and isinstance(disk.images, Made)
    generator = runs[1].feed.loader._generator(0, 1)
    runs[0]._step.inputs.args[0].photographs.chance.generator = generator
    expected, found = runs[0]._step.inputs(memory), runs[1]._step.inputs(disk)
    assert len(expected) == len(found) >= 2
    for x, y in zip(expected, found, strict=True):
        for a, b in zip(*(v if isinstance(v, tuple) else [v] for v in (x, y)), strict=True):
            assert torch.equal(a, b) and a.stride() == b.stride()
    parts = disk.images.chunk(2)
    assert torch.equal(torch.cat([part.groups[0] for part in parts], 1), disk.images.groups[0])
    runs[1].feed.close()


@pytest.mark.parametrize("method", ["rotation", pytest.param("inpainting", marks=pytest.mark.slow)])
def test_streamed_light_views_have_the_numbers_of_memory(folder, tmp_path, method):
    kept = load_images(str(folder), size=16, stream="never")
    images = streamed(folder)
    images.train.statistics = kept.statistics()  # of all images, to the last bit
    runs = []
    for i, x in enumerate((kept, images)):  # one after the other: a run seeds the generators
        runs.append(run_of(x, tmp_path / str(i), method))
        assert runs[i].train()
    for name, value in runs[0].method.state_dict().items():
        assert torch.equal(value, runs[1].method.state_dict()[name]), name
    rows = [run.history for run in runs]
    timed = {"waited", "slowest"}
    for one, other in zip(*rows, strict=True):
        assert all(one[name] == other[name] for name in one.keys() - timed)
        assert one["waited"] is None and 0 <= other["waited"] <= 1
        assert other["slowest"] in ("read", "decode", "views", "copy")
    history = read_history(tmp_path / "1")
    assert [row["waited"] for row in history] == [row["waited"] for row in rows[1]]


# --- stops ----------------------------------------------------------------------------------


def test_checkpoints_within_an_epoch(folder, tmp_path, monkeypatch):
    run = run_of(streamed(folder), tmp_path)
    saved = []
    save = Run.save
    monkeypatch.setattr(Run, "save", lambda self: saved.append((self.epoch, self.step))
                        or save(self))  # fmt: skip
    assert run.train(checkpoint_every=2)
    assert saved == [(0, 2), (1, 0), (1, 1), (2, 0), (2, 2), (3, 0)]  # 3 steps, every second one


KILLED = """
import os, signal, sys, time
import torch
from pathlib import Path
sys.path.insert(0, "tests")
from stream_cases import run_of, streamed
from fastcl.pretrain import checkpoint

folder, out, lives = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(",")
for life in lives:
    child = os.fork()
    if child == 0:
        torch.manual_seed(int(1000 * float(life)))  # whatever another process has drawn
        run = run_of(streamed(folder), out, epochs=8)
        if (out / checkpoint.NAME).exists():
            run.resume(out / checkpoint.NAME)
            print("resumed", run.epoch, run.step, flush=True)
        done = run.train(checkpoint_every=1)
        print("finished", flush=True)
        torch.save(run.method.state_dict(), out / "last.pt")
        os._exit(0)
    if life != "0":
        time.sleep(float(life))
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_killed_at_any_moment_a_run_goes_on_to_the_same_numbers(folder, tmp_path):
    whole_run = run_of(streamed(folder), tmp_path / "whole", epochs=8)
    assert whole_run.train()
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    lives = ",".join(f"{0.3 + 0.17 * i:.2f}" for i in range(12)) + ",0"
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(tmp_path / "killed"), lives], cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.rstrip().endswith("finished"), done.stderr[-2000:]
    places = {line for line in done.stdout.splitlines() if line.startswith("resumed")}
    assert len(places) >= 3 and any(not place.endswith(" 0") for place in places), places
    found = torch.load(tmp_path / "killed" / "last.pt")
    for name, value in whole_run.method.state_dict().items():
        assert torch.equal(value, found[name]), name


# --- several processes ----------------------------------------------------------------------

RANKS = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, "tests")
from stream_cases import streamed
from fastcl.pretrain.recipe import resolve
from fastcl.pretrain.run import Run, build_fabric

ranks, out = int(sys.argv[1]), Path(sys.argv[3])
images = streamed(Path(sys.argv[2]))
config = resolve(images, method="simclr", data="x", precision="32", devices=ranks, seed=0, epochs=2,
                 batch_size=6 * ranks, backbone="small")
run = Run(config, images, out / "run", build_fabric(ranks, "32"))
seen, batch = [], run.feed.batch
def noted(epoch, step):
    found = batch(epoch, step)
    seen.append((epoch, step, found.index.tolist()))
    return found
run.feed.batch = noted
run.train(checkpoint_every=2)
torch.save({"seen": seen, "state": run.method.state_dict()}, out / f"{run.fabric.global_rank}.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_read_every_image_once(folder, tmp_path, ranks):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(script), str(ranks), str(folder), str(tmp_path)], cwd=ROOT,
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(ranks)]
    n = 70 - 14
    steps = n // (6 * ranks)
    assert n % (6 * ranks), "a number of images that the ranks do not divide"
    for epoch in range(2):
        seen = [i for x in found for e, _, index in x["seen"] if e == epoch for i in index]
        assert len(seen) == len(set(seen)) == steps * 6 * ranks and max(seen) < n
    for name, value in found[0]["state"].items():
        assert torch.equal(value, found[1]["state"][name]), name
