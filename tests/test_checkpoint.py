"""Checkpoints: a kill at any moment leaves a readable one."""

import os
import signal
import time

import pytest
import torch

from fastcl.pretrain import checkpoint


def in_child(work) -> int:
    """Run work in a forked process; its process id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    return child


def test_kill_in_the_middle_of_writing_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / checkpoint.NAME
    checkpoint.save_checkpoint(path, {"epoch": 1, "weights": torch.ones(1000)})

    def half(state, file):
        file.write(b"x" * 500)
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(torch, "save", half)
    child = in_child(lambda: checkpoint.save_checkpoint(path, {"epoch": 2}))
    monkeypatch.undo()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2, "the temporary file must have been there"
    assert checkpoint.load_checkpoint(path)["epoch"] == 1
    checkpoint.save_checkpoint(path, {"epoch": 3})
    assert list(tmp_path.iterdir()) == [path], "the next save clears what the killed one left"
    assert checkpoint.load_checkpoint(path)["epoch"] == 3


def test_kill_at_any_moment_leaves_a_readable_checkpoint(tmp_path):
    path = tmp_path / checkpoint.NAME
    weights = torch.zeros(200_000)
    checkpoint.save_checkpoint(path, {"epoch": 0, "weights": weights})

    def save_forever():
        for epoch in range(1, 1_000_000):
            checkpoint.save_checkpoint(path, {"epoch": epoch, "weights": weights})

    reached = 0
    for attempt in range(12):
        child = in_child(save_forever)
        time.sleep(0.02 + 0.003 * attempt)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        state = checkpoint.load_checkpoint(path)
        assert torch.equal(state["weights"], weights)
        reached = max(reached, state["epoch"])
    assert reached > 0, "no save was finished: the test killed nothing in progress"


def test_unreadable_checkpoints_are_named(tmp_path):
    path = tmp_path / "bad.pt"
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        checkpoint.load_checkpoint(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="no readable checkpoint"):
        checkpoint.load_checkpoint(path)
    torch.save({"format": 99}, path)
    with pytest.raises(ValueError, match="must have format 1, got 99"):
        checkpoint.load_checkpoint(path)
