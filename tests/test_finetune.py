"""Fine-tuning from a middle layer and distillation: formulas, learning, and the two commands."""

import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

for name in ("lightning_fabric", "sklearn", "safetensors", "typer", "rich"):
    pytest.importorskip(name)

from typer.testing import CliRunner  # noqa: E402

from fastcl.commands import app as commands  # noqa: E402
from fastcl.commands import distill, finetune  # noqa: E402
from fastcl.methods.heads import batch_norm_head, mlp_head  # noqa: E402
from fastcl.pretrain.backbone import SmallConvNet  # noqa: E402
from fastcl.pretrain.data import load_images  # noqa: E402

runner = CliRunner()
pytestmark = pytest.mark.usefixtures("blank_pictures")


@given(seed=st.integers(0, 2**31 - 1), temperature=st.floats(0.05, 5))
def test_distillation_equals_equation_2(seed, temperature):
    torch.manual_seed(seed)
    student, teacher = torch.randn(2, 7, 5, dtype=torch.float64, requires_grad=True).unbind()
    loss = distill.distillation_loss(student, teacher, temperature=temperature)
    p, q = (F.softmax(x / temperature, 1) for x in (teacher, student))
    torch.testing.assert_close(loss, -(p * q.log()).sum(1).mean(), rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(loss, student, retain_graph=True)
    torch.testing.assert_close(gradient, ((q - p) / (7 * temperature)).detach())
    assert torch.autograd.grad(loss, teacher, allow_unused=True) == (None,)


def test_layers_of_a_head():
    head = batch_norm_head(4, 5, 6, layers=3)
    widths = [4, 5, 5, 6]
    x = torch.randn(3, 4)
    for count, width in enumerate(widths):
        assert finetune.head_layers(head, count)(x).shape == (3, width)
    assert (finetune.head_layers(head, 1)(x) >= 0).all(), "with its ReLU"
    assert len(finetune.head_layers(mlp_head(4, 5, 6), 1)) == 2
    with pytest.raises(ValueError, match="from-layer must be from 0 to 3 in this head, got 4"):
        finetune.head_layers(head, 4)


def test_teacher_and_student_learn_and_the_teacher_stays():
    images = load_images("digits")
    torch.manual_seed(0)
    backbone, head = SmallConvNet(1, 32), batch_norm_head(32, 32, 16, layers=3)
    before = [p.clone() for p in [*backbone.parameters(), *head.parameters()]]
    teacher = finetune.finetune(backbone, head, images, 0.3, steps=120)
    after = [*backbone.parameters(), *head.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert finetune.accuracy(teacher, images) > 0.6
    kept = [p.clone() for p in teacher.parameters()]
    student = finetune.classifier(SmallConvNet(1, 16), images)
    assert finetune.accuracy(student, images) < 0.2
    distill.distill(teacher, student, images, steps=120)
    assert finetune.accuracy(student, images) > 0.5
    assert all(torch.equal(a, b) for a, b in zip(kept, teacher.parameters(), strict=True))


def test_alpha_zero_learns_from_labels_alone():
    images = load_images("digits")
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    student = finetune.classifier(SmallConvNet(1, 16), images)
    distill.distill(wrong, student, images, fraction=0.5, alpha=0.0, steps=120)
    assert finetune.accuracy(student, images) > 0.5


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"alpha": 1.5}, "alpha must be from 0 to 1"),
        ({"temperature": 0.0}, "temperature must be finite and above 0"),
        ({"alpha": 0.5, "fraction": 0.0}, "fraction must be above 0"),
        ({"steps": 0}, "steps must be 1 or more"),
    ],
)
def test_bad_choices(choice, message):
    with pytest.raises(ValueError, match=message):
        distill.distill(nn.Flatten(), nn.Flatten(), load_images("digits"), **choice)


def test_commands(tmp_path):
    folder = str(tmp_path / "run")
    result = runner.invoke(
        commands.app,
        ["pretrain", "--method", "simclrv2", "--epochs", "1", "--limit", "200", "--devices", "1",
         "--out", folder],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    missing = runner.invoke(commands.app, ["distill", folder])
    assert missing.exit_code == 1 and "fastcl finetune" in missing.output
    steps = ["--steps", "30", "--device", "cpu"]
    for command, extra, found in (
        ("finetune", ["--fraction", "0.5", "--from-layer", "1"], finetune.FINETUNED),
        ("distill", ["--alpha", "0.5"], distill.DISTILLED),
    ):
        result = runner.invoke(commands.app, [command, folder, *extra, *steps])
        assert result.exit_code == 0, result.output
        told = json.loads((tmp_path / "run" / found / finetune.RESULTS).read_text())
        assert f"accuracy {told['accuracy']:.1%}" in result.output and told["fraction"] == 0.5
    bad = runner.invoke(commands.app, ["finetune", folder, "--from-layer", "9", *steps])
    assert bad.exit_code == 1 and "from-layer must be from 0 to 3" in bad.output
