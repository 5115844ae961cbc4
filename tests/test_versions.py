"""The version of a build: of a checkout's tag, of an archive's own, else what version.py says."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from test_packaging import BACKEND, ROOT, UNPACK, tracked

PURE = {**os.environ, "FASTCL_BUILD": "0"}
PLAIN = (ROOT / "fastcl" / "version.py").read_text().split('"')[1]
GIT = ["git", "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]


def git(folder, *words):
    subprocess.run([*GIT, *words], cwd=folder, check=True, capture_output=True)


def version(folder):
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=folder, env=PURE, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def hook(name, folder, out):
    """What a hook of the build backend makes of a folder."""
    done = subprocess.run(
        [sys.executable, "-c", BACKEND, name, out], cwd=folder, env=PURE, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return out / done.stdout.split()[-1]


@pytest.fixture
def checkout(tmp_path):
    copy = tmp_path / "checkout"
    for name in tracked("fastcl", "csrc", "*.toml", "*.py", "*.md", "*.txt", "LICENSE", "*.in"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    git(copy, "init", "-q")
    git(copy, "add", ".")
    git(copy, "commit", "-qm", "first")
    return copy


def test_of_tags(checkout):
    assert version(checkout) == PLAIN  # no tag yet
    git(checkout, "tag", "nightly")
    assert version(checkout) == PLAIN
    git(checkout, "tag", "v3.4.5")
    assert version(checkout) == "3.4.5"
    git(checkout, "commit", "-q", "--allow-empty", "-m", "second")
    assert version(checkout).startswith("3.4.6.dev1+g")
    git(checkout, "tag", "v3.5.0rc1")
    assert version(checkout) == "3.5.0rc1"
    git(checkout, "commit", "-q", "--allow-empty", "-m", "third")
    assert version(checkout).startswith("3.5.0rc2.dev1+g")
    shutil.rmtree(checkout / ".git")
    assert version(checkout) == PLAIN


@pytest.mark.slow
def test_of_an_archive_that_builds_itself(checkout, tmp_path):
    """Also where a stranger's repository with tags of its own lies around it."""
    git(checkout, "tag", "v7.8.9")
    with tarfile.open(hook("build_sdist", checkout, tmp_path)) as archive:
        archive.extractall(checkout / "inside", **UNPACK)
    (sources,) = (checkout / "inside").iterdir()
    assert sources.name == "fastcl-7.8.9"
    git(checkout, "tag", "-f", "v9.9.9")
    path = hook("build_wheel", sources, tmp_path)
    assert path.name == "fastcl-7.8.9-py3-none-any.whl"
    with zipfile.ZipFile(path) as wheel:
        assert wheel.read("fastcl/version.py").decode() == '__version__ = "7.8.9"\n'
        names = {Path(name).suffix for name in wheel.namelist()}
    assert ".so" not in names and ".py" in names


def test_the_build_leaves_the_sources_as_they_are(checkout, tmp_path):
    git(checkout, "tag", "v7.8.9")
    hook("build_wheel", checkout, tmp_path)
    assert f'"{PLAIN}"' in (checkout / "fastcl" / "version.py").read_text()
