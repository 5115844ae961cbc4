"""What is compiled ahead is what a run needs, on a card that is not there."""

import pytest
import torch

import fastcl
from fastcl.commands.warm_up import LOSSES


@pytest.mark.parametrize("loss", LOSSES)
def test_it_runs(loss):
    fastcl.warm_up(loss, rows=4, width=3, queue=5, device="cpu")
    fastcl.warm_up(loss, rows=2, width=1, queue=1, dtype=torch.float32, device="cpu")


@pytest.mark.parametrize("loss", ["nt_xent", "clip", "siglip", "moco", "info_nce"])
def test_other_batches_need_nothing_more(loss):
    pytest.importorskip("triton")
    from test_launches import SIZES, STEPS, kernels

    step, _ = STEPS[loss]
    width = {"nt_xent": 128, "moco": 128, "clip": 512, "siglip": 768, "info_nce": 512}[loss]
    ready = kernels(lambda: fastcl.warm_up(loss, rows=4096, width=width, device="meta"))
    for n in SIZES:
        if n > 1:  # an argument that is 1 is a constant to Triton
            assert kernels(lambda n=n: step(n).backward()) <= ready, n


def test_bad_arguments():
    with pytest.raises(ValueError, match="loss must be .*, got 'hinge'"):
        fastcl.warm_up("hinge", rows=4, width=4, device="cpu")
    with pytest.raises(ValueError, match="rows must be 1 or more, got 0"):
        fastcl.warm_up("clip", rows=0, width=4, device="cpu")


def test_the_command():
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from fastcl.commands.app import app

    arguments = ["--rows", "4", "--width", "3", "--device", "cpu"]
    result = CliRunner().invoke(app, ["warm-up", "clip", *arguments, "--dtype", "float32"])
    assert result.exit_code == 0 and result.output == "clip is ready on cpu\n"
    result = CliRunner().invoke(app, ["warm-up", "moco", *arguments, "--temperature", "0"])
    assert result.exit_code == 1
