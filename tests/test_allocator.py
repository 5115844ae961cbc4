"""Memory that a step gave back is there for the next one, in the commands that train."""

import sys
from types import SimpleNamespace

import pytest
from forked import printed

from fastcl import cli
from fastcl.commands import allocator

# The fewest page faults of a step that takes 128 MB, 64 of them where pages are huge.
STEPS = """
import resource, torch
{before}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 25)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min(faults() for _ in range(5)))
"""
KEEP = "from fastcl.commands.allocator import keep_memory; assert keep_memory()"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc alone")
def test_pages_stay():
    found = printed({"kept": STEPS.format(before=KEEP), "given back": STEPS.format(before="")})
    assert int(found["kept"]) < 16 < 64 <= int(found["given back"])


def test_who_set_up_malloc_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)  # not even looked at
    for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        with monkeypatch.context() as m:
            m.setenv(name, "")
            assert not allocator.keep_memory()


def test_other_libraries_of_c(monkeypatch):
    monkeypatch.setattr(allocator.os, "environ", {})
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: SimpleNamespace())
    assert not allocator.keep_memory()
    monkeypatch.setattr(allocator.sys, "platform", "win32")
    assert not allocator.keep_memory()


@pytest.mark.parametrize("command, kept", [("pretrain", 1), ("distill", 1), ("doctor", 0)])
def test_commands_that_train(monkeypatch, command, kept):
    pytest.importorskip("typer")
    from fastcl.commands import app

    calls = []
    monkeypatch.setattr(cli, "keep_memory", lambda: calls.append(1))
    monkeypatch.setattr(app, "app", lambda: None)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["fastcl", command])
    cli.main()
    assert len(calls) == kept
