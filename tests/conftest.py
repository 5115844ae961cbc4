"""What every test gets: a fixed seed, and uninitialised memory that is NaN."""

import pytest
import torch
from hypothesis import settings
from processors import over_instruction_sets, running

settings.register_profile("fastcl", derandomize=True, deadline=None, max_examples=30)
settings.register_profile("emulated", settings.get_profile("fastcl"), max_examples=1)
settings.load_profile("fastcl")


def pytest_collection_modifyitems(items):
    """The longest file begins, so that no process waits for it; GPU tests are skipped."""
    items.sort(key=lambda item: item.path.stem != "test_triton")
    if torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0):
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs CUDA, compute capability 8.0 or newer"))


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc):
    """Sets vary fastest: what does not depend on them is `remembered`."""
    over_instruction_sets(metafunc)


@pytest.fixture(autouse=True)
def instruction_set(request):
    """The set of the test's name, where there is one."""
    if not hasattr(request, "param"):
        yield
        return
    with running(request.param):
        yield


@pytest.fixture(autouse=True)
def _seed_and_poison():
    """torch.empty is filled with NaN, so that an element nobody wrote shows."""
    torch.manual_seed(0)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def blank_pictures(monkeypatch):
    """For who looks at no more of a picture than its file: to draw one takes half a second."""
    figure = pytest.importorskip("matplotlib.figure")
    monkeypatch.setattr(figure.Figure, "draw", lambda self, renderer: None)


@pytest.fixture
def fresh_graphs():
    """What other tests compiled counts against the limit of graphs per function."""
    torch.compiler.reset()
