"""Programs that get ready together and measure in turn.

Most of a minute on a GPU goes into imports and compilers, which want every core; a measurement
wants the device for itself. So every program gets ready at once, says so, and waits for its turn;
one that fails or hangs takes only itself away. What a program prints as JSON is a row, handed on
at once.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

READY, DONE, ROW = "ready", "done", "row "


def wait_for_turn() -> None:
    """In the program: everything before was preparation."""
    print(READY, flush=True)
    if not sys.stdin.readline():  # nobody is left to take the rows
        os._exit(1)


def hand_on(row: dict) -> None:
    print(ROW + json.dumps(row), flush=True)


def finish() -> None:
    """In the program: the device is free for the next one."""
    print(DONE, flush=True)


def _listen(name: str, process: subprocess.Popen, news: queue.Queue) -> None:
    for line in process.stdout:
        news.put((name, line.rstrip("\n")))
    news.put((name, None))


def in_turn(
    commands: dict[str, list[str]],  # by name, the most important first
    take: Callable[[dict], None],
    *,
    within: float,  # seconds for all
    patience: float,  # seconds until those that are ready begin without the others
    turn: float,  # seconds one measurement may take
) -> list[str]:
    """Run them; the names of those that did not end well."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or a limit's end would leave them
    begin, news = time.monotonic(), queue.Queue()
    processes = {
        name: subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, bufsize=1, start_new_session=True,
        )
        for name, command in commands.items()
    }  # fmt: skip
    for name, process in processes.items():
        threading.Thread(target=_listen, args=(name, process, news), daemon=True).start()
    state = dict.fromkeys(commands, "preparing")
    until = begin + patience

    def passed() -> float:
        return time.monotonic() - begin

    def handle(name: str, line: str | None) -> None:
        if line == READY:
            state[name] = "ready"
            print(f"{passed():6.1f} s  {name}: ready", flush=True)
        elif line == DONE:
            state[name] = "done"
        elif line is None:
            if state[name] != "done":
                state[name] = "failed"
                print(f"{passed():6.1f} s  {name}: ended unfinished", flush=True)
        elif line.startswith(ROW):
            take(json.loads(line.removeprefix(ROW)))
        else:
            print(f"           {name}: {line}", flush=True)

    def listen(limit: float) -> None:
        with contextlib.suppress(queue.Empty):
            handle(*news.get(timeout=max(limit, 0.01)))

    try:
        while passed() < within:
            ready = [name for name in commands if state[name] == "ready"]
            waiting = [name for name in commands if state[name] == "preparing"]
            if not ready and not waiting:
                break
            if waiting and (not ready or time.monotonic() < until):
                listen(0.5)
                continue
            name = ready[0]
            state[name] = "measuring"
            end = min(time.monotonic() + turn, begin + within)
            try:
                processes[name].stdin.write("go\n")
                processes[name].stdin.flush()
            except BrokenPipeError:
                state[name] = "failed"
            while state[name] == "measuring" and time.monotonic() < end:
                listen(end - time.monotonic())
            if state[name] == "measuring":
                state[name] = "failed"
                print(f"{passed():6.1f} s  {name}: stopped, its turn is over", flush=True)
                _stop(processes[name])
    finally:
        for process in processes.values():
            _stop(process)
    return [name for name in commands if state[name] != "done"]


def _stop(process: subprocess.Popen) -> None:
    """With what it started: compilers of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
