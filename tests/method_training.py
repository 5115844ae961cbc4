"""Training of small methods, ours and the plain ones, side by side."""

import copy

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import nn

STEPS = st.integers(1, 4)
ROWS = st.integers(2, 9)
SEEDS = st.integers(0, 2**31 - 1)
SAMPLES = 20
FEW = settings(max_examples=8)


def network(width=8, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU())


def train(loss, named, batches, after):
    """Losses and last gradients of plain gradient descent; every step has a seed of its own."""
    losses, grads = [], {}
    for step, batch in enumerate(batches):
        torch.manual_seed(step)
        value = loss(*batch)
        parameters = dict(named())
        grads = dict(zip(parameters, torch.autograd.grad(
            value, list(parameters.values()), allow_unused=True), strict=True))  # fmt: skip
        with torch.no_grad():
            for name, p in parameters.items():
                p.sub_(0.1 * grads[name])
        after()
        losses.append(value.detach())
    return torch.stack(losses), grads


def check(ours, reference, batches, **options):
    """Both, from the same weights, through the same batches."""
    ours = ours.double()
    twin = reference(copy.deepcopy(ours), **options)

    def trained(module):
        return [(n, p) for n, p in module.named_parameters() if p.requires_grad]

    result = train(ours, lambda: trained(ours), batches, ours.update)
    expected = train(twin.loss, lambda: trained(twin.nets), batches, twin.after)
    torch.testing.assert_close(result, expected, rtol=1e-7, atol=1e-8)
    for (name, p), (_, q) in zip(trained(ours), trained(twin.nets), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-8, msg=name)
    return twin


def views(steps, rows, seed, count=2):
    torch.manual_seed(seed)
    return [torch.randn(count, rows, 6, dtype=torch.float64).unbind() for _ in range(steps)]


def numbered(steps, rows, seed, count=1):
    """Views and the numbers of their images, some of them twice."""
    found = views(steps, rows, seed, count)
    return [(v[0] if count == 1 else v, torch.randint(SAMPLES, (rows,))) for v in found]


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(30, 8), nn.Dropout(0.3)

    def forward(self, x):  # [b, length] -> [b, 8]
        return self.dropout(self.embedding(x)).mean(1)
