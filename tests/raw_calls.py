"""Calls of the raw operators with arguments that do not fit, for a process that may end.

``python raw_calls.py FIRST`` runs the calls from FIRST on and writes a line before each, so that
the last line names the one that ended the process. Tensors lie before a page that nobody may read:
one element too many ends the process too.
"""

import ctypes
import itertools
import math
import mmap
import sys

import torch
from contrasts import fields

from fastcl._library import ops

N, M, D, B = 5, 7, 6, 3  # rows, columns, width, items
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
OTHERS = (torch.int64, torch.int32, torch.uint8, torch.uint16, torch.bool, torch.complex64)
_protect = ctypes.CDLL(None, use_errno=True).mprotect
_protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_kept = []


def guarded(x):
    """A copy of x that ends where its process may not read."""
    size, page = x.numel() * x.element_size(), mmap.PAGESIZE
    pages = -(-size // page) + 1
    memory = mmap.mmap(-1, pages * page)
    end = (pages - 1) * page
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert _protect(address + end, page, 0) == 0
    _kept.append(memory)
    if size == 0:
        return torch.empty_like(x)
    flat = torch.frombuffer(memory, dtype=x.dtype, count=x.numel(), offset=end - size)
    flat.copy_(x.flatten())
    return flat.view(x.shape)


def rows(n, dtype=torch.float32, d=D):
    return torch.randn(n, d).to(dtype)


def calls_that_fit():
    """A name, an operator and arguments for it; of every operator with every flag once."""
    q, k, ids, columns = rows(N), rows(M), torch.arange(N), torch.arange(M)
    scale = torch.tensor(2.0)
    wide = torch.float64
    parts, own = [q[:2].clone(), q[2:].clone()], rows(N)
    divided = {"normalize": True, "logit_scale": scale}
    for p in (
        fields(q, k, logit_scale=scale, ids=(ids, columns)),
        fields(q, k, logit_scale=scale, ids=(ids, columns), both=True),
        fields(parts, k, **divided, ids=(ids, columns), both=True),
        fields(q, k, logit_scale=scale, ids=(ids, columns), own=own, unit=False),
        fields(parts, k, **divided, own=own, paired=False),  # the forward finishes the gradient
        fields(q, logit_scale=scale, ids=(ids, ids), positives_in=False),
        fields(parts, **divided, ids=ids % 3, own=own, paired=False),
        fields(q, k, row_weight=torch.rand(N), col_weight=torch.rand(M), both=True),
        fields(q, k, own=own, limit=torch.rand(N), guide=(rows(N), rows(M, d=D))),
    ):
        p = p._replace(scale=3.0)
        needs = not p.symmetric, p.own is not None, True
        yield ops.contrast_forward, [*p, torch.randn(N), True, False]
        kept = ops.contrast_forward(*p, None, True, False)
        grads = [torch.randn(N), torch.randn(N)]
        grads += [torch.randn(M), torch.randn(M)] if p.both else [None, None]
        kept = [kept[0], kept[1], kept[3]]
        yield ops.contrast_backward, [*p, *kept, *grads, True, not len(kept[2]), *needs[1:]]
        yield ops.contrast_backward, [*p, *kept[:2], kept[2][:0], *grads, True, *needs]
        yield ops.contrast_mean, [*p, True, *needs]
        yield ops.contrast_mean, [*p, False, False, False, False]
    for normalize in (False, True):
        p = fields(q, k, logit_scale=scale, ids=(ids, columns), normalize=normalize)
        yield ops.sigmoid_contrast, [*p, 0.5, scale, True, True]
    for dtype in (torch.float32, torch.bfloat16, wide):
        pair = rows(N, dtype), rows(N, dtype)
        widths = [[1, 4], [0.5, 2.0]]
        yield ops.nested_contrast_mean, [*pair, scale, 3.0, *widths, True, True, True]
        yield ops.unit_rows_forward, [[x.to(dtype) for x in parts]]
        lengths = torch.rand(N).to(wide if dtype == wide else torch.float32)
        yield ops.unit_rows_backward, [rows(N, dtype), [x.to(dtype) for x in parts], lengths]
        if dtype != torch.bfloat16:
            for turned in ((False, False), (True, True)):
                a, b = rows(N, dtype), rows(D, dtype, M)
                a, b = (x.T.contiguous() if t else x for x, t in zip((a, b), turned, strict=True))
                yield ops.product, [a, b, *turned]
    yield from tokens_that_fit()
    index = torch.tensor([[0, 1, 2], [3, 4, 0], [6, 6, 6]])
    yield ops.nce, [rows(B), k, index, 1.0, 0.5, scale, torch.randn(M), True]
    scores = rows(N)
    yield ops.sinkhorn_columns, [scores, 2.0]
    yield ops.sinkhorn_masses, [scores, 2.0, torch.randn(D)]
    yield ops.sinkhorn_assign, [scores, 2.0, torch.randn(D)]
    yield ops.sinkhorn, [scores, rows(B), 2.0, 3]
    yield ops.soft_cross_entropy, [scores, rows(N).softmax(1), 2.0, 0.5, True]
    yield ops.bank_update_, [k, torch.tensor([0, 6, 0]), rows(B), 0.5]
    for normalize in (False, True):
        yield ops.queue_push_, [k, torch.tensor(5), rows(B), normalize]
    for dtype in (torch.float32, torch.bfloat16, torch.int32):
        target = [x.to(dtype) for x in (rows(N), rows(B))]
        online = [x.to(dtype) for x in (rows(N), rows(B))]
        yield ops.momentum_update_, [target, online, 0.9, torch.tensor(0.5), torch.tensor(3)]
    yield from views_that_fit()
    yield ops.use_processor, [-1, -1]


def tokens_that_fit():
    query, document = torch.randn(B, N, D), torch.randn(B + 1, M, D)
    hard, nothing = torch.randn(B, 2, 4, D), [None] * 4
    masks = [torch.ones(x.shape[:-1], dtype=torch.bool) for x in (query, document, hard)]
    end = [3.0, True, True, True, True, True]
    yield ops.max_sim_mean, [query, document, hard, *masks, torch.tensor(2.0), *end]
    for dtype in (torch.bfloat16, torch.float64):
        few = [query.to(dtype), document.to(dtype), *nothing, None]
        yield ops.max_sim_mean, [*few, 3.0, False, True, True, False, False]


def views_that_fit():
    whole = torch.tensor([0.0, 0, 4, 5, 1, 0.5, 1.5, 2.5, 0.1, 5, 0, 1, 0.5]).repeat(B, 2, 1)
    whole[:, 1, 7] = 0.5  # in fixed point
    normal, end = [torch.rand(3), torch.rand(3)], [torch.float32, False, True]
    for dtype in (torch.uint8, torch.float32):
        images = (torch.rand(B, 3, 4, 5) * 255).to(dtype)
        yield ops.random_views, [images, None, None, whole, 3, 5, *normal, *end]
        offsets, sizes = torch.tensor([0, 15, 75]), torch.tensor([[5, 1], [4, 5], [2, 2]])
        crops = whole.clone()
        crops[..., 2:4] = sizes[:, None]
        rows = images.permute(0, 2, 3, 1).reshape(-1, 3)
        yield ops.random_views, [rows, offsets, sizes, crops, 7, 1, *normal, *end]
        image, out = images[0].permute(1, 2, 0).contiguous(), torch.empty(2, B, 3, 3, 3)
        yield ops.image_views_, [image, whole, 1, 5, *normal, False, out, 2]
        turned = torch.empty(2, 1, 3, 3, 3, dtype=torch.bfloat16)
        yield ops.image_views_, [image, whole[:1], 0, 1, *normal, True, turned, 0]
        out = torch.empty(2, B, 3, 3, 3)
        yield ops.random_views_, [images, None, None, whole, 5, *normal, False, False, out]
    numbers, views = torch.rand(33, B, 2), torch.rand(33, 1, 2)
    for b, middle, shares in ((B, None, None), (1, torch.ones(2, 1, 2), torch.ones(1, 2))):
        sizes, bounds = torch.full((b, 2), 9), [torch.ones(2, 1, 2), torch.ones(1, 2)]
        yield ops.draw_views, [numbers, sizes, middle, views, views, *bounds, shares]
    yield ops.large_pages_, [torch.empty(N, D)]


def misfits(x):
    """What may stand in the place of a tensor."""
    yield None
    for dtype in (*FLOATS, *OTHERS):
        yield x.to(dtype)
    yield x.to("meta")
    yield x.to_sparse()
    yield torch.zeros((), dtype=x.dtype)
    yield x[None]
    yield x.flatten()
    yield x.new_empty(0)
    yield x.new_ones(10**6).as_strided(x.shape, [1000] * x.dim())  # not contiguous
    yield x.new_ones(()).expand(x.shape)
    if x.dtype == torch.bool:
        yield from (~x, x & False)
    else:
        yield from (x - 2**40, x * 0 - 1, x * 0 + 99, x * 0 + 2**40)
    if not x.is_floating_point() and x.dtype != torch.bool:
        yield from (x * 0 + 2**62, x * 0 - 2**63)
    for dim in range(x.dim()):
        yield x.narrow(dim, 0, x.shape[dim] - 1) if x.shape[dim] else x
        yield x.narrow(dim, 0, x.shape[dim] - 1).clone() if x.shape[dim] else x
        yield x.narrow(dim, 0, 0).clone()
        yield torch.cat([x, x], dim)
        yield x.transpose(dim, -1)
        yield x.transpose(dim, -1).contiguous()


def alternatives(x):
    """Misfits of one argument of any kind."""
    if isinstance(x, torch.Tensor):
        yield from misfits(x)
    elif isinstance(x, list) and x and not isinstance(x[0], torch.Tensor):
        yield from ([], x[:1], x[::-1], x + x, [*x[:-1], 99], [-(2**62), *x[1:]])
    elif isinstance(x, list):
        yield from ([], x[:1], x[::-1], x + x[:1], [*x, rows(2)])
        for i, part in enumerate(x):
            yield from ([*x[:i], other, *x[i + 1 :]] for other in misfits(part))
    elif isinstance(x, bool):
        yield not x
    elif isinstance(x, int):
        yield from (0, -1, 99, -(2**63))
    elif isinstance(x, float):
        yield from (0.0, -1.0, math.inf, -math.inf, math.nan, 1e308)
    else:
        yield from (torch.randn(N), torch.randn(M), torch.randn(3), torch.arange(N))


def calls(pairs=40):
    """Every call that fits, with one argument that does not, and with two drawn at random."""
    draw = torch.Generator().manual_seed(0)

    def drawn(limit):
        return int(torch.randint(limit, (), generator=draw))

    for name_of, arguments in calls_that_fit():
        yield name_of, arguments
        wrong = [list(alternatives(x)) for x in arguments]
        for i, others in enumerate(wrong):
            yield from ((name_of, [*arguments[:i], x, *arguments[i + 1 :]]) for x in others)
        for _ in range(pairs if len(arguments) > 1 else 0):
            both = list(arguments)
            for i in torch.randperm(len(arguments), generator=draw)[:2].tolist():
                both[i] = wrong[i][drawn(len(wrong[i]))]
            yield name_of, both


def in_guarded_memory(x):
    if isinstance(x, list):
        return [in_guarded_memory(part) for part in x]
    plain = isinstance(x, torch.Tensor) and x.device.type == "cpu" and x.layout == torch.strided
    return guarded(x) if plain and x.is_contiguous() else x


def described(x):
    if isinstance(x, list):
        return [described(part) for part in x]
    if not isinstance(x, torch.Tensor):
        return x
    layout = "" if x.layout != torch.strided or x.is_contiguous() else f"/{x.stride()}"
    return f"{x.dtype}{list(x.shape)}{layout}@{x.device}".replace("torch.", "")


def main(first):
    torch.manual_seed(0)
    for number, (operator, arguments) in itertools.islice(enumerate(calls()), first, None):
        print(number, operator, [described(x) for x in arguments], flush=True)
        try:
            operator(*[in_guarded_memory(x) for x in arguments])
        except Exception as error:
            print("error", " ".join(str(error).split()), flush=True)
        ops.use_processor(-1, -1)
        _kept.clear()


def read_beyond():
    """The control: one element behind a tensor."""
    x = guarded(torch.zeros(4))
    print("beyond", flush=True)
    ctypes.c_float.from_address(x.data_ptr() + x.numel() * x.element_size()).value  # noqa: B018


if __name__ == "__main__":
    read_beyond() if "beyond" in sys.argv else main(int(sys.argv[1]))
