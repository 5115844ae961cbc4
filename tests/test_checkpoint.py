"""Checkpoints: a kill at any moment leaves a readable one."""

import os
import resource
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


def test_no_changed_byte_changes_what_is_read(tmp_path):
    path = tmp_path / checkpoint.NAME
    state = {"weights": torch.randn(50), "names": ["a"], "count": torch.arange(9)}
    checkpoint.save_checkpoint(path, state)
    whole = path.read_bytes()
    assert torch.load(path, weights_only=True)["names"] == ["a"], "still a file of torch.save"
    refused = 0
    for i in range(0, len(whole) - 4, 5):
        path.write_bytes(whole[:i] + bytes(b ^ 0x41 for b in whole[i : i + 4]) + whole[i + 4 :])
        try:
            found = checkpoint.load_checkpoint(path)
        except ValueError:
            refused += 1
        else:  # in the mark of the checksum itself
            assert torch.equal(found["weights"], state["weights"]) and found["names"] == ["a"]
            assert torch.equal(found["count"], state["count"])
    assert refused >= len(whole) // 5 - 4
    for length in range(0, len(whole) - 80, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="no readable checkpoint"):
            checkpoint.load_checkpoint(path)


class Code:
    """Not data."""


def test_code_is_refused_without_advice_to_run_it(tmp_path):
    torch.save({"format": 1, "more": Code()}, tmp_path / "code.pt")
    with pytest.raises(ValueError, match="it holds code .*Code.*only data are read") as caught:
        checkpoint.load_checkpoint(tmp_path / "code.pt")
    assert "weights_only" not in str(caught.value) and "safe_globals" not in str(caught.value)


@pytest.mark.parametrize("numbers", [3000, 300_000])
def test_full_disk_is_named_and_leaves_the_previous_checkpoint(tmp_path, numbers):
    path, told = tmp_path / checkpoint.NAME, tmp_path / "told"
    checkpoint.save_checkpoint(path, {"epoch": 1})
    told.touch()

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
        try:
            checkpoint.save_checkpoint(path, {"weights": torch.zeros(numbers)})
        except OSError as error:
            told.write_text(str(error))

    os.waitpid(in_child(fill), 0)
    assert "File too large" in told.read_text() and str(path) in told.read_text()
    assert checkpoint.load_checkpoint(path)["epoch"] == 1
    assert sorted(tmp_path.iterdir()) == [path, told], "no half file is left"
