"""Installs the wheels of dist/ into fresh environments, runs the README's example and the doctor.

`python wheels/try_wheels.py [--torch REQUIREMENT] [--beside PYTHON] [--python PYTHON]...` prints a
row for everything that was tried, and fails where one does.
"""

import argparse
import csv
import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
LIMIT = 10.0  # seconds that an install may take where torch is already there
LOOK = """
import sys
print(sys.version.split()[0])
import torch
print(torch.__version__)
"""
DOCTOR = "from fastcl.commands.doctor import report; print(report())"
# _C without the package around it, which imports torch.
LOAD = """
import importlib.util, sys
from pathlib import Path
folder = Path(next(p for p in sys.path if (Path(p) / "fastcl").is_dir())) / "fastcl"
(library,) = folder.glob("_C.*.so")
spec = importlib.util.spec_from_file_location("fastcl._C", library)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert module.build_info(), "no build"
"""
COLUMNS = ["wheel", "python", "torch", "install s", "install", "example", "doctor"]
Row = dict[str, str]


def example() -> str:
    """The five lines of the README that swap a loss."""
    text = (ROOT / "README.md").read_text()
    return re.search(r"## Drop-in\s+```python\n(.*?)```", text, re.DOTALL).group(1)


def fresh(folder: Path, python: str, torch: str | None, beside: str | None) -> str:
    """The Python of a new environment that has torch, or that sees the packages of another."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    own = str(folder / "bin" / "python")
    if torch:
        command = [own, "-m", "pip", "install", "--quiet", torch, "numpy"]
        subprocess.run(command, check=True)
    if beside:
        ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
        there, here = (
            subprocess.run([p, "-c", ask], capture_output=True, text=True, check=True).stdout
            for p in (beside, own)
        )
        (Path(here.strip()) / "beside.pth").write_text(there)
    return own


def attempt(command: list[str], cwd: Path) -> str:
    """Empty where it worked, else its last line."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip() or "failed").splitlines()[-1]


def installed(own: str, wheel: Path, cwd: Path, row: Row, more: list[str]) -> None:
    start = time.monotonic()
    error = attempt([own, "-m", "pip", "install", "--quiet", *more, str(wheel)], cwd)
    seconds = time.monotonic() - start
    row["install s"] = f"{seconds:.1f}"
    row["install"] = error or ("ok" if seconds < LIMIT else f"over {LIMIT:.0f} s")


def doctor(own: str, pure: bool, cwd: Path) -> str:
    """Whether it says what is there: a compiled part, or none."""
    done = subprocess.run([own, "-c", DOCTOR], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    missing = "not built; every operator still works, by its reference" in done.stdout
    if missing != pure or re.search(r"info_nce fails", done.stdout):
        return "says something else: " + done.stdout.replace("\n", " | ")
    return "says: reference" if pure else "says: compiled"


def tried(python: str, torch: str | None, beside: str | None, wheel: Path) -> Row:
    """One wheel in one fresh environment."""
    pure, row = wheel.name.endswith("-none-any.whl"), {"wheel": wheel.name}
    with tempfile.TemporaryDirectory() as name:
        cwd = Path(name)
        own = fresh(cwd / "env", python, torch, beside)
        told = subprocess.run([own, "-c", LOOK], cwd=cwd, capture_output=True, text=True)
        bare = told.returncode != 0
        row["python"], row["torch"] = (*told.stdout.split(), "none")[:2]
        installed(own, wheel, cwd, row, ["--no-deps"] if bare else [])
        if bare:
            row["example"] = "_C alone: " + (attempt([own, "-c", LOAD], cwd) or "ok")
            row["doctor"] = "not tried"
            return row
        row["example"] = attempt([own, "-c", example()], cwd) or "ok"
        row["doctor"] = doctor(own, pure, cwd)
    return row


def wheels(python: str) -> list[Path]:
    """Those of dist/ for a Python."""
    ask = "import sys; print('cp%d%d' % sys.version_info[:2])"
    tag = subprocess.run([python, "-c", ask], capture_output=True, text=True).stdout.strip()
    return sorted([*DIST.glob(f"*-{tag}-*.whl"), *DIST.glob("*-none-any.whl")])


def good(row: Row) -> bool:
    return (
        row["install"] == "ok"
        and row["example"] in ("ok", "_C alone: ok")
        and row["doctor"].startswith(("says: ", "not tried"))
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", action="append", default=[], help="installed into a fresh one")
    parser.add_argument("--beside", action="append", default=[], help="a Python that has a torch")
    parser.add_argument("--python", action="append", default=[], help="one without any torch")
    parser.add_argument("--out", type=Path, help="the rows as a file, too")
    chosen = parser.parse_args()
    places: list[tuple[str, str | None, str | None]] = [
        *((sys.executable, torch, None) for torch in chosen.torch),
        *((beside, None, beside) for beside in chosen.beside if shutil.which(beside)),
        *((python, None, None) for python in chosen.python if shutil.which(python)),
    ]
    rows = [
        tried(python, torch, beside, wheel)
        for python, torch, beside in places
        for wheel in wheels(python)
        if torch or beside or "none-any" not in wheel.name
    ]
    absent = [x for x in (*chosen.beside, *chosen.python) if not shutil.which(x)]
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    print(text.getvalue(), end="")
    if chosen.out:
        chosen.out.write_text(text.getvalue())
    for name in absent:
        print(f"not to be had here: {name}")
    print(f"{sum(map(good, rows))} passed, {sum(not good(row) for row in rows)} failed")
    return int(not rows or not all(map(good, rows)))


if __name__ == "__main__":
    sys.exit(main())
