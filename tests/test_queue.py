"""The queue against collections.deque, its state, and what bad input gets."""

from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcl import reference
from fastcl._library import ops
from fastcl.queue import Queue, queue_push_

pytestmark = pytest.mark.instruction_sets

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
KERNELS = pytest.mark.parametrize(
    "push", (reference.queue_push_, ops.queue_push_), ids=("reference", "compiled")
)


def _state(size: int, width: int, dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((size, width), torch.nan, dtype=dtype), torch.zeros((), dtype=torch.int64)


def _numbered(start: int, count: int, width: int) -> torch.Tensor:
    """Rows that tell their number: exact in every dtype up to 2048."""
    return (torch.arange(start, start + count) % 251)[:, None] + torch.arange(width) / 4.0


@KERNELS
@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 17), batches=st.lists(st.integers(1, 40), max_size=8))
def test_order_is_that_of_a_deque(push, size, batches):
    queue, pointer = _state(size, 3)
    kept, pushed = deque(maxlen=size), 0
    for count in batches:
        rows = _numbered(pushed, count, 3)
        push(queue, pointer, rows)
        kept.extend(rows)
        pushed += count
        assert int(pointer) == pushed
    for age, row in enumerate(reversed(kept)):
        assert torch.equal(queue[(pushed - 1 - age) % size], row)
    assert int(queue.isnan().any(1).sum()) == size - len(kept)


@KERNELS
@pytest.mark.parametrize("into", DTYPES)
@pytest.mark.parametrize("source", DTYPES)
def test_converts_as_torch_does(push, into, source):
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 65519.0, 65520.0, 7e4])
    tiny = torch.tensor([2.0**-24, 2.0**-25, 1.5 * 2.0**-25, 2.0**-14, 1e-40, 3e38, 1.0, -1.0])
    values = torch.cat([special, tiny, torch.randn(240), torch.randn(256) * 1e-6])
    rows = values.view(-1, 16).to(source)
    queue, pointer = _state(32, 16, into)
    push(queue, pointer, rows)
    assert torch.equal(queue.nan_to_num(12345), rows.to(into).nan_to_num(12345))
    assert torch.equal(queue.isnan(), rows.isnan())


@KERNELS
@pytest.mark.parametrize("width", (1, 7, 8, 129))
def test_misaligned_rows_and_a_large_batch(push, width):
    """Offset views defeat 16-byte copies; 5000 rows take several threads."""
    queue, pointer = _state(1024, width)
    pointer.fill_(1000)
    rows = torch.randn(5000 * width + 1)[1:].view(5000, width)
    push(queue, pointer, rows)
    position = torch.arange(5976 - 976, 6000) % 1024
    assert torch.equal(queue[position], rows[-1000:])
    assert int(pointer) == 6000


def test_the_line_of_the_docstring():
    queue, pointer = _state(8, 4)
    rows = torch.randn(5, 4)
    want = queue.clone()
    want[(pointer + 6 + torch.arange(5)) % 8] = rows
    pointer += 6
    queue_push_(queue, pointer, rows)
    assert torch.equal(queue[[6, 7, 0, 1, 2]], want[[6, 7, 0, 1, 2]]) and int(pointer) == 11


def test_strided_tensors_and_gradients_of_rows():
    base, pointer = torch.zeros(6, 10), torch.zeros((), dtype=torch.int64)
    rows = torch.randn(4, 3, requires_grad=True)
    queue_push_(base[:, 2:5], pointer, rows)
    assert torch.equal(base[:4, 2:5], rows) and base[:, :2].count_nonzero() == 0
    queue_push_(base[:, 2:5], pointer, torch.randn(3, 8).T[:4])
    expanded = torch.ones(1, 3).expand(5, 3)
    queue = torch.zeros(4, 3)
    queue_push_(queue, pointer, expanded)
    assert torch.equal(queue, torch.ones(4, 3)) and not queue.requires_grad


def test_a_backward_over_overwritten_rows_fails():
    queue = Queue(4, 3)
    q = torch.randn(2, 3, requires_grad=True)
    loss = (q @ queue().T).sum()
    queue.push(torch.randn(2, 3))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_overlapping_rows_are_refused():
    queue, pointer = torch.randn(8, 3), torch.zeros((), dtype=torch.int64)
    before = queue.clone()
    with pytest.raises(RuntimeError):
        queue_push_(queue, pointer, queue[2:6])
    assert torch.equal(queue, before) and int(pointer) == 0


BAD = [
    (dict(queue=torch.zeros(4)), ValueError, "queue must have 2 dimensions"),
    (dict(queue=torch.zeros(0, 3)), ValueError, "queue must not be empty"),
    (dict(queue=torch.zeros(4, 3, dtype=torch.int32)), TypeError, "queue must be float16"),
    (dict(queue=torch.zeros(4, 3, requires_grad=True)), ValueError, "not require a gradient"),
    (dict(queue=[1]), TypeError, "queue must be a tensor, got list"),
    (dict(pointer=3), TypeError, "pointer must be a tensor, got int"),
    (dict(pointer=torch.zeros(())), TypeError, "pointer must be int64, got torch.float32"),
    (dict(pointer=torch.zeros(1, dtype=torch.int64)), ValueError, r"shape \[\], got \[1\]"),
    (dict(rows=torch.zeros(2, 4)), ValueError, "rows must have the width of queue, 3, got 4"),
    (dict(rows=torch.zeros(0, 3)), ValueError, "rows must not be empty"),
    (dict(rows=torch.zeros(2, 3, dtype=torch.int64)), TypeError, "rows must be float16"),
    (
        dict(rows=torch.zeros(2, 3, device="meta")),
        ValueError,
        "rows must be on the device of queue",
    ),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input_changes_nothing(change, error, message):
    queue, pointer = torch.randn(4, 3), torch.tensor(2)
    before = queue.clone()
    arguments = dict(queue=queue, pointer=pointer, rows=torch.randn(2, 3)) | change
    with pytest.raises(error, match=message):
        queue_push_(**arguments)
    assert torch.equal(queue, before) and int(pointer) == 2


def test_bad_module():
    for arguments, error in (
        ((0, 3), ValueError), ((4, 0), ValueError), ((2.0, 3), TypeError), ((True, 3), TypeError),
    ):  # fmt: skip
        with pytest.raises(error):
            Queue(*arguments)
    with pytest.raises(ValueError, match="fill must be one of random, empty, got 'full'"):
        Queue(4, 3, fill="full")
    with pytest.raises(TypeError, match="dtype must be floating point"):
        Queue(4, 3, dtype=torch.int64)


def test_random_fill_is_unit_reproducible_and_leaves_the_generator():
    state = torch.get_rng_state()
    a, b = Queue(50, 8), Queue(50, 8, dtype=torch.bfloat16)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(a.rows.norm(dim=1), torch.ones(50))
    assert torch.equal(a.rows.bfloat16(), b.rows)
    assert int(a.filled) == 0 and Queue(3, 2, fill="empty").rows.count_nonzero() == 0


@settings(max_examples=30, deadline=None)
@given(
    before=st.lists(st.integers(1, 12), max_size=4), after=st.lists(st.integers(1, 12), max_size=4)
)
def test_saved_in_the_middle_and_loaded(before, after):
    queue, twin, pushed = Queue(7, 2), Queue(7, 2, fill="empty"), 0
    for part, targets in ((before, (queue,)), (after, (queue, twin))):
        for count in part:
            for target in targets:
                target.push(_numbered(pushed, count, 2))
            pushed += count
        if part is before:
            twin.load_state_dict(queue.state_dict())
    assert torch.equal(queue.rows, twin.rows) and torch.equal(queue.pointer, twin.pointer)
    assert torch.equal(queue.ordered(), _numbered(pushed - min(pushed, 7), min(pushed, 7), 2))
    assert int(queue.filled) == min(pushed, 7)


def test_another_size_is_a_clear_error_and_resizing_keeps_the_newest():
    big, small = Queue(9, 2), Queue(4, 2)
    big.push(_numbered(0, 12, 2))
    with pytest.raises(RuntimeError, match=r"queue of shape \[9, 2\].*call resize\(9\)"):
        small.load_state_dict(big.state_dict())
    small.resize(9)
    small.load_state_dict(big.state_dict())
    small.resize(4)
    assert torch.equal(small.ordered(), _numbered(8, 4, 2))
    small.push(_numbered(12, 1, 2))
    assert torch.equal(small.ordered(), _numbered(9, 4, 2))
    small.resize(6)
    small.push(_numbered(13, 1, 2))
    assert torch.equal(small.ordered(), _numbered(9, 5, 2))


def test_casts_and_place():
    queue = Queue(4, 2)
    where = queue.rows.data_ptr()
    queue.push(torch.ones(3, 2, dtype=torch.float64))
    assert queue().data_ptr() == where and queue.rows.dtype == torch.float32
    queue.half()
    assert queue.rows.dtype == torch.float16 and queue.pointer.dtype == torch.int64
    assert "4, 2" in repr(queue)


@pytest.mark.any_set
def test_opcheck():
    for dtype in (torch.float32, torch.bfloat16):
        for normalize in (False, True):
            arguments = (*_state(5, 3, dtype), torch.randn(7, 3), normalize)
            torch.library.opcheck(ops.queue_push_.default, arguments)


def test_compiles_as_one_graph():
    queue = Queue(5, 2)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(rows):
        queue.push(rows)
        return queue.filled, queue().sum()

    filled, total = step(torch.ones(7, 2))
    assert int(filled) == 5 and total == 10 and int(queue.pointer) == 7


@KERNELS
@pytest.mark.parametrize("into", DTYPES)
@pytest.mark.parametrize("source", DTYPES)
def test_normalises_on_the_way_in(push, into, source):
    """Rounded once: as near as the dtype of the queue allows, whatever the rows came in."""
    rows = (torch.randn(37, 19, dtype=torch.float64) * 3).to(source)
    rows[5], rows[6] = 0, 1e-4  # a zero row stays zero, a short one becomes a unit row
    queue, pointer = _state(64, 19, into)
    pointer.fill_(50)
    push(queue, pointer, rows, True)
    exact = torch.nn.functional.normalize(rows.double(), dim=1, eps=1e-12)
    ours = queue[(50 + torch.arange(37)) % 64].double()
    work = torch.float64 if source == torch.float64 else torch.float32
    step = torch.finfo(into).eps / 2 + 2 * torch.finfo(work).eps
    tiny = torch.finfo(into).smallest_normal * torch.finfo(into).eps  # of a subnormal float16
    assert ((ours - exact).abs() <= step * exact.abs() + tiny).all()
    assert ours[5].count_nonzero() == 0 and int(pointer) == 87


@KERNELS
def test_normalising_keeps_nan_to_its_row(push):
    queue, pointer = torch.zeros(8, 3), torch.zeros((), dtype=torch.int64)
    rows = torch.ones(4, 3)
    rows[2, 1] = torch.nan
    push(queue, pointer, rows, True)
    assert queue.isnan().any(1).tolist() == [False, False, True] + [False] * 5


def test_a_large_normalised_batch_takes_several_threads_and_wraps():
    queue, pointer = _state(1024, 129)
    rows = torch.randn(5000 * 129 + 1)[1:].view(5000, 129)
    queue_push_(queue, pointer, rows, normalize=True)
    exact = torch.nn.functional.normalize(rows[-1024:], dim=1)
    position = torch.arange(5000 - 1024, 5000) % 1024
    torch.testing.assert_close(queue[position], exact, rtol=1e-6, atol=0)


def test_the_module_normalises():
    queue, rows = Queue(8, 3, dtype=torch.bfloat16), torch.randn(5, 3)
    queue.push(rows, normalize=True)
    torch.testing.assert_close(
        queue.rows[:5], torch.nn.functional.normalize(rows, dim=1).bfloat16(), rtol=0, atol=0.004
    )
