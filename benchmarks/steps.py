"""A list of commands that goes on where it stopped: what the long benchmarks are made of.

In: jobs, each a few commands in order with the file that stands once a command is done. Out: the
commands that are missing, run one by one. Jobs of one benchmark can be shared among processes.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.matrix import parse_shard
from pipeline.errors import UserError


@dataclass(frozen=True)
class Step:
    """One command."""

    command: tuple[str, ...]  # what follows `python -m`
    done: Path | None = None  # stands when it need not run again; None: the command knows


def run_missing(jobs: Sequence[Sequence[Step]], shard: str = "0/1") -> None:
    """Run the steps of a shard of the jobs whose files do not stand yet.

    Args:
        jobs: steps in order.
        shard: 'i/n': every n-th job, from the i-th.

    Raises:
        SystemExit: a command failed, which has said why.
        UserError: no such shard.
    """
    number, count = parse_shard(shard)
    for step in (step for job in jobs[number::count] for step in job):
        if step.done is None or not step.done.exists():
            print("python -m", *step.command, flush=True)
            done = subprocess.run([sys.executable, "-m", *step.command])
            if done.returncode:
                sys.exit(done.returncode)


def run_tool(main: Callable[[], None]) -> None:
    """Run a program; what a user got wrong is one line and exit code 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def sets(settings: Iterable[str]) -> list[str]:
    """Return '--set a=1 --set b=2' as words."""
    return [word for setting in settings for word in ("--set", setting)]


def spread(values: Sequence[float]) -> str:
    """Return 'mean +- std' of a sample, the mean alone for one, nothing for none."""
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} +- {statistics.stdev(values):.1f}" if len(values) > 1 else mean
