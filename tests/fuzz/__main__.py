"""``python -m fuzz --seconds 60``: random targets until the time is over; ``--cases 10 --seed 0``:
as many of every target, the same on any machine."""

import argparse
import random
import sys
import time
import traceback
from collections.abc import Iterable, Iterator

import torch

from fuzz.ledger import Ledger
from fuzz.targets import TARGETS, run_case

MOST_WRONG = 10  # more of a kind tell no more


def arguments():
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, help="of every target, in place of the seconds")
    parser.add_argument("--seed", type=int, help="of the whole run; default: drawn, and printed")
    parser.add_argument("--only", default="", help="targets whose name contains this")
    parser.add_argument("--without", help="targets whose name does not contain this")
    parser.add_argument("--case", help="NAME:SEED, one case again")
    parser.add_argument("--keep-going", action="store_true", help=f"after {MOST_WRONG} failures")
    return parser.parse_args()


def failure(name: str, seed: int) -> str | None:
    """What is wrong with a case, or None."""
    try:
        run_case(name, seed)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())[:300] or "no message"
        return (
            f"{type(error).__name__}: {text} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"
        )
    return None


def repeated(case: str) -> int:
    name, _, seed = case.rpartition(":")
    if name not in TARGETS or not seed.isdigit():
        sys.exit(f"--case must be NAME:SEED with a name of {', '.join(TARGETS)}, got {case}")
    run_case(name, int(seed))
    print(f"{case} is right")
    return 0


def known(ledger: Ledger, names: list[str]) -> int:
    """Cases of the ledger that are wrong no more, which is an error too."""
    lines = [x for x in ledger.lines if x.name in names]
    cured = [x for x in lines if not x.explains(x.name, failure(x.name, x.seed) or "")]
    for x in cured:
        print(f"CURED {x.name}:{x.seed} is not wrong as {ledger.path.name} has it; see to its line")
    return len(cured)


def at_random(names: list[str], seed: int, seconds: float) -> Iterator[tuple[str, int]]:
    draws, end = random.Random(seed), time.monotonic() + seconds
    while time.monotonic() < end:
        yield draws.choice(names), draws.randrange(2**31)


def of_each(names: list[str], seed: int, cases: int) -> Iterator[tuple[str, int]]:
    """The same of a target, whichever others there are."""
    for name in names:
        draws = random.Random(f"{seed}:{name}")
        for _ in range(cases):
            yield name, draws.randrange(2**31)


def fuzz(drawn: Iterable[tuple[str, int]], names: list[str], keep_going: bool = False) -> int:
    """0 where nothing new is wrong."""
    ledger = Ledger.read()
    wrong, cases = known(ledger, names), 0
    for name, case in drawn:
        if wrong >= MOST_WRONG and not keep_going:
            break
        message = failure(name, case)
        cases += 1
        if message and not ledger.explains(name, message):
            wrong += 1
            print(f"FAILED {name}:{case} {message}", flush=True)
    print(f"{cases} cases of {len(names)} targets: {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    asked = arguments()
    torch.use_deterministic_algorithms(True, warn_only=True)  # torch.empty is filled with NaN
    chosen = random.SystemRandom().randrange(2**31) if asked.seed is None else asked.seed
    if asked.case:
        sys.exit(repeated(asked.case))
    wanted = [x for x in TARGETS if asked.only in x and not (asked.without and asked.without in x)]
    if not wanted:
        sys.exit(f"--only must be part of one of {', '.join(TARGETS)}, got {asked.only}")
    print(f"seed {chosen}", flush=True)
    if asked.cases is None:
        cases = at_random(wanted, chosen, asked.seconds)
    else:
        cases = of_each(wanted, chosen, asked.cases)
    sys.exit(fuzz(cases, wanted, asked.keep_going))
