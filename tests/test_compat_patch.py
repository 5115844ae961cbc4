"""One line swaps the losses inside a library; training goes the same way as before."""

import importlib
import importlib.metadata
import pickle
import sys
import types

import pytest
import torch
from peers import peer

import fastcl
from fastcl.compat import lightly, supcontrast

HOMES = {
    "lightly": ("lightly.loss", "NTXentLoss"),
    "open_clip": ("open_clip.loss", "ClipLoss"),
    "pytorch_metric_learning": ("pytorch_metric_learning.losses", "NTXentLoss"),
    "info_nce": ("info_nce", "InfoNCE"),
    "sentence_transformers": (
        "sentence_transformers.sentence_transformer.losses",
        "MultipleNegativesRankingLoss",
    ),
    "solo": ("solo.losses", "simclr_loss_func"),
}


@pytest.mark.parametrize("library", HOMES)
def test_patch_and_unpatch(library):
    home, name = HOMES[library]
    module = peer(home)
    original = getattr(module, name)
    try:
        replaced = fastcl.patch(library)
        assert library != "open_clip" or "open_clip.loss.DistillClipLoss" in replaced
        assert f"{home}.{name}" in replaced and fastcl.patch(library) == replaced
        ours = getattr(module, name)
        assert ours is not original and ours.__module__.startswith("fastcl.compat")
    finally:
        restored = fastcl.unpatch(library)
    assert restored == replaced and getattr(module, name) is original
    assert fastcl.unpatch(library) == []


CHILDREN = {
    "lightly": [("lightly.loss", "DirectCLRLoss", "NTXentLoss"),
                ("lightly.loss", "DCLWLoss", "DCLLoss")],
    "open_clip": [("open_clip.loss", "DistillClipLoss", "ClipLoss"),
                  ("open_clip.loss", "CoCaLoss", "ClipLoss")],
}  # fmt: skip


@pytest.mark.parametrize("library", CHILDREN)
def test_the_librarys_own_subclasses_inherit_from_fastcl(library):
    before = [peer(home).__dict__[child] for home, child, _ in CHILDREN[library]]
    bases = [child.__mro__ for child in before]
    fastcl.patch(library)
    try:
        for home, child, parent in CHILDREN[library]:
            child, parent = (getattr(peer(home), name) for name in (child, parent))
            assert issubclass(child, parent) and parent.__module__.startswith("fastcl.compat")
    finally:
        fastcl.unpatch(library)
    assert [child.__mro__ for child in before] == bases


def test_subclasses_of_sentence_transformers_count_alike_and_stream(monkeypatch):
    losses = peer(HOMES["sentence_transformers"][0])
    a, b = torch.randn(2, 6, 5).unbind()
    model, values = torch.nn.Sequential(torch.nn.Identity()), []
    for patched in (False, True):
        if patched:
            fastcl.patch("sentence_transformers")
            # No scores are formed: nobody calls the similarity.
            util = peer("sentence_transformers.util.similarity")
            monkeypatch.setattr(util, "_convert_to_batch_tensor", None)
        try:
            plain = losses.MultipleNegativesSymmetricRankingLoss(model)
            cached = losses.CachedMultipleNegativesSymmetricRankingLoss(model)
            values.append(plain.compute_loss_from_embeddings([a, b], None))
            values.append(cached.calculate_loss([a.split(4), b.split(4)]))
        finally:
            fastcl.unpatch("sentence_transformers")
    torch.testing.assert_close(values[:2], values[2:])


def test_direct_clr_streams():
    loss, z = peer("lightly.loss"), torch.randn(2, 6, 100)
    before = loss.DirectCLRLoss()(*z)
    fastcl.patch("lightly")
    try:
        patched = loss.DirectCLRLoss()
        torch.testing.assert_close(patched(*z), before)
        patched._through_the_bank = None  # what forms logits
        patched(*z)
    finally:
        fastcl.unpatch("lightly")


def test_unpatch_reaches_what_was_imported_in_between(monkeypatch):
    loss = peer("lightly.loss")
    original = loss.NTXentLoss
    fastcl.patch("lightly")
    try:
        late = types.ModuleType("lightly.late")
        late.NTXentLoss = loss.NTXentLoss
        late.Child = type("Child", (loss.NTXentLoss,), {"__module__": "lightly.late"})
        monkeypatch.setitem(sys.modules, "lightly.late", late)
    finally:
        assert "lightly.late.NTXentLoss" in fastcl.unpatch("lightly")
    assert late.NTXentLoss is original and late.Child.__bases__ == (original,)


def test_the_bank_is_of_the_librarys_class():
    bank = peer("lightly.models.modules.memory_bank").MemoryBankModule
    fastcl.patch("lightly")
    try:
        loss = peer("lightly.loss").NTXentLoss(memory_bank_size=(7, 4))
        assert isinstance(loss.memory_bank, bank)
        with pytest.raises(ValueError, match="does not specify the feature dimension"):
            peer("lightly.loss").NTXentLoss(memory_bank_size=7)
    finally:
        fastcl.unpatch("lightly")
    assert not isinstance(lightly.NTXentLoss().memory_bank, bank)


def test_refuses_what_it_does_not_know(monkeypatch):
    with pytest.raises(ValueError, match="library must be one of lightly"):
        fastcl.patch("numpy")
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "9.9")
    with pytest.raises(ImportError, match="checked against lightly 1.6.0 and not against 9.9"):
        fastcl.patch("lightly")


def test_says_what_is_missing(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ImportError, match="lightly is not installed"):
        fastcl.patch("lightly")


SUPCONTRAST = """
import torch

class SupConLoss(torch.nn.Module):
    def __init__(self, temperature=0.07, contrast_mode="all", base_temperature=0.07):
        super(SupConLoss, self).__init__()  # as the authors write it
        self.temperature = temperature

    def forward(self, features, labels=None, mask=None):
        return features.sum()

class OwnLoss(SupConLoss):
    pass
"""


@pytest.mark.parametrize("name", ["losses", "package.training.losses"])
def test_supcontrast_where_the_user_has_it(name, tmp_path, monkeypatch):
    """A copy of its file, under any name; classes of that package inherit from fastcl's."""
    path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SUPCONTRAST)
    monkeypatch.syspath_prepend(tmp_path)
    home = importlib.import_module(name)
    original, features = home.SupConLoss, torch.randn(4, 2, 5)
    try:
        found = fastcl.patch("supcontrast", module=name)
        assert found == [f"{name}.SupConLoss"] == fastcl.patch("supcontrast", module=name)
        assert home.SupConLoss is supcontrast.SupConLoss
        assert issubclass(home.OwnLoss, supcontrast.SupConLoss)
        torch.testing.assert_close(home.SupConLoss()(features), supcontrast.SupConLoss()(features))
        assert original(0.5)(features) == features.sum() and original().temperature == 0.07
    finally:
        restored = fastcl.unpatch("supcontrast")
        for part in [m for m in sys.modules if m.split(".")[0] == name.split(".")[0]]:
            del sys.modules[part]
    assert restored == found and home.SupConLoss is original
    assert original.__init__.__globals__ is vars(home)
    assert home.OwnLoss.__bases__ == (original,) and fastcl.unpatch("supcontrast") == []


def test_supcontrast_of_other_arguments(monkeypatch):
    module = types.ModuleType("other_losses")
    monkeypatch.setitem(sys.modules, "other_losses", module)
    with pytest.raises(ValueError, match="class SupConLoss, other_losses has none"):
        fastcl.patch("supcontrast", module="other_losses")
    module.SupConLoss = torch.nn.CrossEntropyLoss
    with pytest.raises(ValueError, match="SupConLoss.__init__ must take self, temperature, con"):
        fastcl.patch("supcontrast", module="other_losses")
    for options in ({}, {"module": ""}):
        with pytest.raises(ValueError, match="module must name the home of SupConLoss"):
            fastcl.patch("supcontrast", **options)
    with pytest.raises(ValueError, match="module must be None for lightly, got 'losses'"):
        fastcl.patch("lightly", module="losses")
    assert fastcl.unpatch("supcontrast") == []


def pairs(loss, a, b, _labels):
    return loss(a, b)


def labelled(loss, a, b, labels):
    return loss(torch.cat([a, b]), labels.repeat(2))


def unit(loss, a, b, _labels):
    normalize = torch.nn.functional.normalize
    return loss(normalize(a, dim=1), normalize(b, dim=1), torch.tensor(10.0), torch.tensor(-5.0))


def taught(loss, a, b, _labels):
    a, b = (torch.nn.functional.normalize(x, dim=1) for x in (a, b))
    parts = loss(a, b, torch.tensor(10.0), a.detach(), b.detach(), 20.0, output_dict=True)
    return parts["contrastive_loss"] + parts["distill_loss"]


EXAMPLES = {
    "lightly": [("NTXentLoss", {}, pairs), ("DCLLoss", {}, pairs), ("DCLWLoss", {}, pairs),
                ("NTXentLoss", {"memory_bank_size": (40, 8)}, pairs)],
    "open_clip": [("ClipLoss", {}, unit), ("SigLipLoss", {}, unit),
                  ("DistillClipLoss", {}, taught)],
    "pytorch_metric_learning": [("NTXentLoss", {}, labelled), ("SupConLoss", {}, labelled)],
    "info_nce": [("InfoNCE", {}, pairs)],
}  # fmt: skip


def curve(make, call):
    """Ten steps of a small network on random data."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.ReLU(), torch.nn.Linear(16, 8))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    loss, losses = make(), []
    for _ in range(10):
        x, labels = torch.randn(16, 12), torch.randint(0, 4, (16,))
        value = call(loss, network(x), network(x + 0.1 * torch.randn_like(x)), labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.detach())
    return torch.stack(losses)


@pytest.mark.parametrize("library", EXAMPLES)
def test_training_goes_the_same_way(library):
    module = peer(HOMES[library][0])
    for name, options, call in EXAMPLES[library]:
        before = curve(lambda n=name, o=options: getattr(module, n)(**o), call)
        fastcl.patch(library)
        try:
            after = curve(lambda n=name, o=options: getattr(module, n)(**o), call)
        finally:
            fastcl.unpatch(library)
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
        assert not torch.equal(before, before[0].expand_as(before))


@pytest.mark.parametrize("library", EXAMPLES)
def test_what_the_library_pickled_is_fastcls_after_the_patch(library):
    """A training that saved its loss whole goes on with fastcl's."""
    module, labels = peer(HOMES[library][0]), torch.arange(8) // 2
    a, b = torch.randn(2, 8, 8)
    for name, options, call in EXAMPLES[library]:
        loss = getattr(module, name)(**options)
        held = pickle.dumps(loss)
        fastcl.patch(library)
        try:
            found = pickle.loads(held)
            assert type(found).__module__.startswith("fastcl.compat")
            torch.testing.assert_close(call(found, a, b, labels), call(loss, a, b, labels))
        finally:
            fastcl.unpatch(library)
