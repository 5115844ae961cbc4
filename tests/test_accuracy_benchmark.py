"""benchmarks.accuracy: who is killed goes on to the same weights, and the table is its rows."""

import copy
import multiprocessing
import time

import pytest
import torch

from benchmarks import accuracy, accuracy_table, report
from benchmarks.accuracy_methods import CLASSES, Crops, Setting, own_method
from benchmarks.accuracy_training import Training
from fastcl.pretrain.data import Images

STOP = 5  # in the second epoch of four steps


def tiny_images(count: int = 40) -> Images:
    draws = torch.Generator().manual_seed(0)
    train = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=draws)
    labels = torch.arange(count) % 2
    return Images("tiny", "photographs", train, train[:24], labels, labels[:24], ("one", "two"))


def tiny(method: str, epochs: int = 2) -> Setting:
    return Setting(method, 32, epochs, batch=8)


def twice(setting: Setting) -> dict[str, torch.nn.Module]:
    own = own_method(setting).train()
    return {"one": own, "other": own_method(setting).train()}


def training(setting: Setting, methods=twice) -> Training:
    return Training(setting, methods(setting), tiny_images())


def state(run: Training) -> dict:
    return {name: copy.deepcopy(runner.state()) for name, runner in run.runners.items()}


def assert_same(one: Training, other: Training) -> None:
    torch.testing.assert_close(state(one), state(other), rtol=0, atol=0)


def assert_goes_on(setting: Setting, methods, folder) -> None:
    """Stopped between two steps, it ends at the weights of a run that was not."""
    whole = training(setting, methods)
    whole.run(folder / "whole.pt", {"commit": "whole"})
    part, begun = training(setting, methods), accuracy.beginning()
    step = part.one

    def stopping() -> None:
        if part.step == STOP:
            raise KeyboardInterrupt
        step()

    part.one = stopping
    with pytest.raises(KeyboardInterrupt):
        part.run(folder / "part.pt", begun, every=0.0)
    rest = training(setting, methods)
    assert rest.run(folder / "part.pt", {"commit": "another"}) == begun
    assert_same(rest, whole)
    untrained = training(setting, methods)
    with pytest.raises(AssertionError):
        assert_same(untrained, whole)


@pytest.mark.parametrize(
    "method", [pytest.param(x, marks=[] if x == "moco" else [pytest.mark.slow]) for x in CLASSES]
)
def test_a_stopped_run_goes_on(method, tmp_path):
    assert_goes_on(tiny(method), twice, tmp_path)


def killed(path) -> None:
    training(tiny("moco", epochs=50)).run(path, {}, every=0.0)


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    """By SIGKILL, wherever it is."""
    path = tmp_path / "checkpoint.pt"
    process = multiprocessing.get_context("spawn").Process(target=killed, args=(path,))
    process.start()
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode != 0
    rest, whole = (training(tiny("moco", epochs=50)) for _ in range(2))
    rest.load(path)
    assert 0 < rest.step < rest.steps
    while whole.step < rest.step:
        whole.one()
    assert_same(rest, whole)


def test_crops_depend_on_the_step_alone():
    crops, again = (Crops(tiny("dino"), tiny_images()) for _ in range(2))
    first = [crops.at(step) for step in range(3)]
    for step in (2, 0, 1):
        for one, other in zip(again.at(step), first[step], strict=True):
            assert torch.equal(one, other)
    assert [x.shape[-1] for x in first[0]] == [32, 32, 14, 14]
    assert not torch.equal(first[0][0], first[1][0])


def test_a_row_of_the_same_setting_is_finished(tmp_path):
    path, setting = tmp_path / "rows.csv", tiny("byol")
    assert not accuracy.finished(path, setting)
    report.append(vars(setting) | {"fastcl_knn": 0.5}, path)
    assert accuracy.finished(path, setting)
    assert not accuracy.finished(path, tiny("byol", epochs=3))


def test_the_page_has_the_table_of_the_rows():
    rows, steps = accuracy_table.kept()
    page = accuracy_table.PAGE.read_text()
    assert report.insert(page, "accuracy", accuracy_table.table(rows, steps)) == page
    assert all(accuracy_table.NAMES[row["method"]] in page for row in rows)


def test_an_hour_is_passes_over_the_training_split():
    steps = {"method": "moco", "batch": "125", "fastcl_ms": "900", "lightly_ms": "1800"}
    assert accuracy_table.passes(steps, "fastcl") == pytest.approx(10)
    assert "MoCo v2 10 (5)." in accuracy_table.hour([steps])
