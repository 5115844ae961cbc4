"""What the drop-in losses hold where the library asks for more memory than there is."""

import os
import subprocess
import sys
from pathlib import Path

from peers import peer

PROGRAM = """
import resource, torch
from fastcl.compat.pytorch_metric_learning import CrossBatchMemory, NTXentLoss, SupConLoss
torch.manual_seed(0)
def steps(n):
    losses = [NTXentLoss(), SupConLoss()]
    for loss in [*losses, *(CrossBatchMemory(loss, 32, n) for loss in losses)]:
        z, labels = torch.randn(n, 32, requires_grad=True), torch.randint(1024, (n,))
        value = loss(z, labels)
        value.backward()
        assert value.isfinite() and z.grad.isfinite().all() and z.grad.abs().sum() > 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = steps(256)
print(steps(8192) - before)
"""


def test_eight_thousand_embeddings_with_labels():
    """About 65,000 positive pairs and 67 million negative ones. The library's NTXentLoss forms
    their product; the matrix of the similarities alone is 256 MB."""
    peer("pytorch_metric_learning.losses")
    path = os.pathsep.join([str(Path(__file__).parents[1]), *(p for p in sys.path if p)])
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 128  # MB
