"""Every loss where vectors and blocks end, in every instruction set, against float64.

A vector of 16 lanes that runs past the end of a block must find nothing there that means anything:
once it found the ids of the next block, and took its padding for positives.
"""

import pytest
import torch
from cases import CASES
from hypothesis import example, given, settings
from hypothesis import strategies as st
from processors import built, running, together
from test_losses import check

pytestmark = built

# Losses of two views have twice as many rows: 129 and 193 leave blocks of 8 mod 16 rows where
# blocks are whole vectors of 8 lanes, and 193 x 128 a last block of one row; 256 and 257 are the
# largest single tile and the smallest two.
SIZES = st.one_of(
    st.integers(1, 34), st.sampled_from((128, 129, 193, 256, 257)), st.integers(1, 400)
)


@settings(max_examples=min(6, settings.default.max_examples))
@example(n=129, d=128, seed=0)
@example(n=193, d=128, seed=0)
@example(n=300, d=33, seed=0)
@given(n=SIZES, d=st.sampled_from((16, 24, 33, 128)), seed=st.integers(0, 99))
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@together
def test_losses(case, sets, n, d, seed):
    """One problem in several sets: what is judged by is most of the time, and the same."""
    for name in sets:
        with running(name):
            torch.manual_seed(seed)
            check(case, n, d, 0.1, torch.float32)
