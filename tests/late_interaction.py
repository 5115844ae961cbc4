"""What tests of other libraries' losses over many tokens a text share."""

import torch


def features(*lengths, rows=6, words=50, empty=False):
    """A column of texts per length; some are shorter, and with empty the third has no word."""
    torch.manual_seed(0)
    columns = []
    for length in lengths:
        there = torch.arange(length) < torch.randint(1, length + 1, (rows, 1))
        there[2] &= not empty
        texts = torch.randint(words, (rows, length))
        columns.append({"input_ids": texts, "attention_mask": there.long()})
    return columns


def gradients(loss, model, columns):
    """The loss and the gradient of the model's embedding."""
    value = loss([dict(x) for x in columns])
    value.backward()
    return value.detach(), next(model.parameters()).grad


def assert_equal(ours, theirs):
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def assert_kernel_runs(module, monkeypatch, call):
    """call() comes to the module's max_sim."""
    called = []
    monkeypatch.setattr(
        module, "max_sim", lambda *x, f=module.max_sim, **k: called.append(1) or f(*x, **k)
    )
    call()
    assert called


def assert_equal_without_gradients(losses, columns):
    with torch.no_grad():
        values = [loss(columns) for loss in losses]
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
