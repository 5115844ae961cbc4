"""A pytest plugin for runs that may be cut off: `-p gpu_rows --rows FILE`.

Every test is a line of the file as soon as it ends, a failed one with its message. A process whose
device has failed for good ends then and there, so that pytest-xdist starts another: otherwise
every later test of that process would fail for the first one's sake.
"""

import os

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--rows", help="append an outcome per test to this file")


def _device_lost() -> bool:
    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    path = item.config.getoption("rows")
    if path and (report.when == "call" or report.outcome != "passed"):
        text = f"{report.outcome} {report.duration:.2f} s {item.nodeid}\n"
        if report.failed:
            text += report.longreprtext[-1500:] + "\n"
        lost = report.failed and _device_lost()
        if lost:
            text += "the device of this process has failed: the process ends\n"
        with open(path, "a") as file:  # short enough to be written whole
            file.write(text)
        if lost and "PYTEST_XDIST_WORKER" in os.environ:
            os._exit(1)
    return report
