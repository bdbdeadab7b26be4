"""Frames that raise, hang or kill: stage frames with chosen rows poisoned, in every child process.

`environment({2: "segfault"})` is what a command must be given; a row may carry what it does.
"""

import ctypes
import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

POISONED = Path(__file__).parent / "poisoned"
REPOSITORY = Path(__file__).resolve().parents[2]


def environment(poison, folder=None):
    """Return the variables that poison a command's children.

    Args:
        poison: row -> 'raise', 'hang', 'exit', 'segfault', 'memory', 'worker', 'slow', 'once'.
        folder: where 'slow' notes its calls and 'once' remembers that it struck.
    """
    return {
        "PYTHONPATH": os.pathsep.join([str(POISONED), str(REPOSITORY)]),
        "POISON": json.dumps(poison),
        "POISON_FOLDER": str(folder or ""),
    }


def apply():
    """Poison this process."""
    from pipeline import graph

    poison = json.loads(os.environ["POISON"])
    folder = Path(os.environ["POISON_FOLDER"])
    for name, stage in graph.STAGES.items():
        fill = poisoned(stage.fill, poison, folder)
        graph.STAGES[name] = dataclasses.replace(stage, fill=fill)


def poisoned(fill, poison, folder):
    """Return a stage's function that does something to chosen rows before it fills them."""

    def filled(context, row, out):
        kind = poison.get(str(row), poison.get("*"))
        if kind == "raise":
            raise ValueError(f"made up for row {row}")
        if kind == "hang":
            time.sleep(1000)
        if kind == "exit":
            os._exit(9)
        if kind == "segfault":
            ctypes.string_at(0)
        if kind == "memory":
            eat()
        if kind == "worker":
            if os.getppid() == int(sys.argv[2]):  # and no stranger, where it is dead already
                os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(1000)  # the kernel kills this process with its parent
        if kind == "slow":
            began = time.monotonic()
            time.sleep(0.3)
            note(folder / f"{os.getpid()}-{row}", f"{began} {time.monotonic()}")
        if kind == "once" and not (folder / f"{row}").exists():
            note(folder / f"{row}", "")
            os._exit(9)
        fill(context, row, out)

    return filled


def eat():
    """Ask for memory until there is no more; --worker-memory stops it."""
    held = []
    while True:
        held.append(bytearray(2**26))


def note(path, text):
    path.write_text(text)
