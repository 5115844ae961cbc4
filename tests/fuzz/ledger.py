"""What is known: failures with their reason, one a line, and one case that shows each.

``NAME:SEED | a part of its message | up to this error | reason``. A run passes over a failure of
that name with that part in its message and an error no larger, and reports a line whose case is
right now.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    name: str
    seed: int
    part: str
    error: float

    def explains(self, name: str, message: str) -> bool:
        error = re.search(r"error ([^ ,]+)", message)
        small = error is not None and float(error[1]) <= self.error
        return name == self.name and self.part in message and small


@dataclass
class Ledger:
    path: Path
    lines: list[Line]

    def explains(self, name: str, message: str) -> bool:
        return any(line.explains(name, message) for line in self.lines)

    @classmethod
    def read(cls, path: Path | None = None) -> "Ledger":
        path, lines = path or Path(__file__).with_name("ledger.txt"), []
        for number, text in enumerate(path.read_text().splitlines(), 1):
            if text.strip() and not text.startswith("#"):
                lines.append(_line(text, f"{path}, line {number}"))
        return cls(path, lines)


def _line(text: str, where: str) -> Line:
    case, *rest = (part.strip() for part in text.split("|"))
    name, _, seed = case.rpartition(":")
    if len(rest) != 3 or not all(rest) or not name or not seed.isdigit():
        raise ValueError(f"{where}: expected NAME:SEED | part | error | reason, got {text!r}")
    return Line(name, int(seed), rest[0], float(rest[1]))
