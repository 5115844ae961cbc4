"""The cached step against the same chunks encoded once, in one process and in two."""

import copy

import pytest
import torch
import torch.distributed as dist
from gloo import spawn
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import fastcl
import fastcl.functional as F
from fastcl import distributed as D

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def _encoder(width, dtype=torch.float64, norm=nn.LayerNorm):
    return nn.Sequential(
        nn.Linear(width, 8), norm(8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 4)
    ).to(dtype)


def _uncached(encoders, inputs, loss, sizes):
    """All chunks encoded in the same order, with their graphs kept."""
    whole = []
    for encoder, x, size in zip(encoders, inputs, sizes, strict=True):
        whole.append(torch.cat([encoder(c) for c in x.split(size)]))
    value = loss(*whole)
    value.backward()
    return value.detach()


def _gradients(*modules):
    return [p.grad.clone() for m in modules for p in m.parameters()]


def _both(encoders, inputs, loss, sizes, trained, low=None):
    """Value, gradients and random state after the step: uncached and cached."""
    out = []
    for step in (_uncached, lambda *a: fastcl.cached_step(*a[:3], chunk_size=a[3])):
        for module in trained:
            module.zero_grad()
        torch.manual_seed(3)
        # A context each: autocast keeps the casts of the weights until it is left.
        with torch.autocast("cpu", dtype=low or torch.bfloat16, enabled=low is not None):
            value = step(encoders, inputs, loss, sizes)
        out.append((value, _gradients(*trained), torch.rand(1)))
    return out


@pytest.mark.parametrize("sizes", [(3, 5), (4, 11), (1, 2), (11, 100)])
def test_two_encoders_with_dropout(sizes):
    encoders = [_encoder(5), _encoder(6)]
    inputs = [torch.randn(11, d, dtype=torch.float64) for d in (5, 6)]

    def loss(image, text):
        return F.clip(image, text, 10.0)

    want, got = _both(encoders, inputs, loss, sizes, encoders)
    torch.testing.assert_close(got, want, **CLOSE)
    assert not got[0].requires_grad


def test_scale_inside_the_loss_and_gradients_are_added():
    encoder, scale = _encoder(5), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    inputs = [torch.randn(6, 5, dtype=torch.float64) for _ in "12"]
    results = []
    for step in (_uncached, lambda *a: fastcl.cached_step(*a[:3], chunk_size=a[3])):
        encoder.zero_grad()
        scale.grad = None
        torch.manual_seed(3)
        for _ in range(2):
            step([encoder, encoder], inputs, lambda a, b: F.clip(a, b, scale.exp()), [4, 3])
        results.append([*_gradients(encoder), scale.grad])
    torch.testing.assert_close(results[1], results[0], **CLOSE)


def test_dropout_differs_without_the_random_state():
    """Negative control: a second encoding from another random state has another gradient."""
    encoder, inputs = _encoder(5), [torch.randn(6, 5, dtype=torch.float64) for _ in "12"]
    want = _both([encoder] * 2, inputs, F.nt_xent, [3, 3], [encoder])[0][1]
    encoder.zero_grad()
    torch.manual_seed(4)
    fastcl.cached_step([encoder] * 2, inputs, F.nt_xent, chunk_size=3)
    assert not torch.allclose(_gradients(encoder)[0], want[0], rtol=1e-3)


def test_batch_norm_statistics_move_once():
    encoder = _encoder(5, norm=nn.BatchNorm1d)
    twin = copy.deepcopy(encoder)
    inputs = [torch.randn(8, 5, dtype=torch.float64) for _ in "12"]
    torch.manual_seed(3)
    _uncached([twin] * 2, inputs, F.nt_xent, [4, 4])
    torch.manual_seed(3)
    fastcl.cached_step([encoder] * 2, inputs, F.nt_xent, chunk_size=4)
    torch.testing.assert_close(list(encoder.buffers()), list(twin.buffers()), **CLOSE)
    torch.testing.assert_close(_gradients(encoder), _gradients(twin), **CLOSE)


def test_autocast():
    """As exact as the uncached step in bfloat16, against float32: twice its error and a little."""
    encoder = _encoder(5, torch.float32).eval()
    inputs = [torch.randn(8, 5) for _ in "12"]
    exact = _both([encoder] * 2, inputs, F.nt_xent, [3, 3], [encoder])[0]
    plain, got = _both([encoder] * 2, inputs, F.nt_xent, [3, 3], [encoder], torch.bfloat16)
    for ours, theirs, want in zip([got[0], *got[1]], [plain[0], *plain[1]],
                                  [exact[0], *exact[1]], strict=True):  # fmt: skip
        budget = 2 * (theirs - want).abs().max() + 4 * 2**-8 * (1 + want.abs().max())
        assert (ours - want).abs().max() <= budget
        assert (ours - want).norm() <= 0.1 * want.norm()  # no gradient is lost


def test_a_frozen_encoder_is_encoded_once():
    image, text, calls = _encoder(5), _encoder(6).requires_grad_(False), []
    text.register_forward_hook(lambda *_: calls.append(1))
    inputs = [torch.randn(6, d, dtype=torch.float64) for d in (5, 6)]
    fastcl.cached_step([image, text], inputs, lambda q, k: F.info_nce(q, k), chunk_size=2)
    assert len(calls) == 3 and all(p.grad is None for p in text.parameters())
    assert all(p.grad is not None for p in image.parameters())


class _Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.text = _encoder(5), _encoder(6)

    def forward(self, image, text, *, flip=False):
        out = self.image(image), self.text(text)
        return out[::-1] if flip else out


def test_one_module_of_two_towers_and_other_inputs():
    """Tuples and mappings of tensors, and an encoder that returns two embeddings."""
    model = _Pair()
    x = {"image": torch.randn(5, 5, dtype=torch.float64), "flip": True}
    x["text"] = torch.randn(5, 6, dtype=torch.float64)
    torch.manual_seed(3)
    outs = [model(x["image"][c], x["text"][c], flip=True) for c in (slice(0, 3), slice(3, 5))]
    F.info_nce(*(torch.cat(z) for z in zip(*outs, strict=True))).backward()
    want = _gradients(model)
    for inputs, flip in ((x, False), ((x["image"], x["text"]), True)):
        model.zero_grad()
        torch.manual_seed(3)
        fastcl.cached_step(
            [model],
            [inputs],
            lambda a, b, flip=flip: F.info_nce(b, a) if flip else F.info_nce(a, b),
            chunk_size=3,
        )
        torch.testing.assert_close(_gradients(model), want, **CLOSE)


def test_scaled_backward():
    encoder, inputs = _encoder(5), [torch.randn(6, 5, dtype=torch.float64) for _ in "12"]
    want = _both([encoder] * 2, inputs, F.nt_xent, [3, 3], [encoder])[0]
    encoder.zero_grad()
    torch.manual_seed(3)
    value = fastcl.cached_step(
        [encoder] * 2, inputs, F.nt_xent, chunk_size=3, backward=lambda x: (1024 * x).backward()
    )
    torch.testing.assert_close(value, want[0], **CLOSE)
    torch.testing.assert_close([g / 1024 for g in _gradients(encoder)], want[1], **CLOSE)


def test_bad_input():
    encoder, x = _encoder(5), torch.randn(4, 5, dtype=torch.float64)

    def step(encoders, inputs, size=2):
        fastcl.cached_step(encoders, inputs, F.nt_xent, chunk_size=size)

    for arguments, name in (
        (([encoder], [x, x]), "inputs must be one per encoder, 1"),
        (([], []), "inputs"),
        (([encoder] * 2, [x, x], 0), "chunk_size must be 1 or more, got 0"),
        (([encoder] * 2, [x, x], [1]), "chunk_size must be one per encoder"),
        (([encoder] * 2, [x, x[:0]]), r"inputs\[1\] must have tensors of one length above 0"),
        (([encoder] * 2, [x, (x, x[:2])]), r"inputs\[1\] must have tensors of one length"),
    ):
        with pytest.raises(ValueError, match=name):
            step(*arguments)
    with pytest.raises(TypeError, match=r"inputs\[0\] must be a tensor, .* got int"):
        step([encoder], [3])
    assert all(p.grad is None for p in encoder.parameters())


def _clip(scale, mode):
    return lambda image, text: D.clip(image, text, scale.exp(), mode=mode)


def _parts(rank):
    """Unequal batches: 3 and 7 pairs."""
    generator = torch.Generator().manual_seed(2)
    rows = slice(0, 3) if rank == 0 else slice(3, 10)
    return [torch.randn(10, d, dtype=torch.float64, generator=generator)[rows] for d in (5, 6)]


def _towers(mode):
    torch.manual_seed(0)
    towers = [_encoder(5), _encoder(6)]
    if mode == "eval":
        for tower in towers:
            tower.eval()  # dropout draws per rank: without it one process is comparable
    return towers, torch.tensor(2.0, dtype=torch.float64, requires_grad=True)


def _two_ranks(rank):
    # Under DDP equal to the uncached step under DDP, with dropout, communicating once per encoder.
    results = []
    for cached in (False, True):
        towers, scale = _towers("train")
        reduced = []

        def hook(_, bucket, reduced=reduced):
            reduced.append(1)
            work = dist.all_reduce(bucket.buffer().div_(2), async_op=True).get_future()
            return work.then(lambda future: future.value()[0])

        wrapped = [DistributedDataParallel(tower) for tower in towers]
        for module in wrapped:
            module.register_comm_hook(None, hook)
        torch.manual_seed(3 + rank)
        if cached:
            fastcl.cached_step(wrapped, _parts(rank), _clip(scale, "ring"), chunk_size=[2, 3])
        else:
            # DDP takes one forward per backward: the chunks go through the bare module.
            embeddings = [
                torch.cat([tower(c) for c in x.split(size)])
                for tower, x, size in zip(towers, _parts(rank), (2, 3), strict=True)
            ]
            _clip(scale, "ring")(*embeddings).backward()
            for tower in towers:
                for p in tower.parameters():
                    dist.all_reduce(p.grad.div_(2))
        assert len(reduced) == (2 if cached else 0)
        results.append([*_gradients(*towers), scale.grad])
    torch.testing.assert_close(results[1], results[0], **CLOSE)


def _shards(rank):
    """FSDP2 equal to one process with the global batch, cached and not."""
    towers, scale = _towers("eval")
    rows = [torch.cat(x) for x in zip(_parts(0), _parts(1), strict=True)]
    F.clip(*(t(x) for t, x in zip(towers, rows, strict=True)), scale.exp()).backward()
    want = [*_gradients(*towers), scale.grad]
    mesh = init_device_mesh("cpu", (2,))
    for mode, cached in (("gather", False), ("ring", True)):
        sharded, scale = _towers("eval")
        for tower in sharded:
            for layer in (tower[0], tower[4]):
                fully_shard(layer, mesh=mesh)
            fully_shard(tower, mesh=mesh)
        if cached:
            # Two chunks on both ranks: FSDP gathers its parameters in every forward.
            size = 4 if rank else 2
            fastcl.cached_step(sharded, _parts(rank), _clip(scale, mode), chunk_size=size)
        else:
            loss = _clip(scale, mode)
            loss(*(t(x) for t, x in zip(sharded, _parts(rank), strict=True))).backward()
        got = [p.grad.full_tensor() for t in sharded for p in t.parameters()]
        torch.testing.assert_close([*got, scale.grad], want, rtol=1e-10, atol=1e-10)


def _both_wrappers(rank):
    _two_ranks(rank)
    _shards(rank)


def test_data_parallel_and_fully_sharded(tmp_path):
    spawn(_both_wrappers, 2, tmp_path)
