"""What SCHEDULER= says, read without starting anything."""

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError, check


@dataclass(frozen=True)
class Where:
    """Where blocks are computed."""

    kind: str  # serial, local, address or slurm
    workers: int = 1  # of local
    address: str = ""  # of address
    path: Path | None = None  # of slurm: its YAML file


def parse_scheduler(text: str) -> Where:
    """Return what 'serial', 'local[:workers]', 'tcp://host:port' or 'slurm:file.yaml' means.

    Raises:
        UserError: it is none of these.
    """
    kind, _, rest = text.partition(":")
    if text == "serial":
        return Where("serial")
    if kind == "local":
        check(
            ":" not in text or (rest.isdecimal() and int(rest) > 0),
            f"--scheduler: local:workers must give a number above 0, got '{text}'; as in local:4",
        )
        return Where("local", int(rest) if rest else len(os.sched_getaffinity(0)))
    if kind in ("tcp", "tls") and rest.startswith("//") and ":" in rest:
        return Where("address", address=text)
    if kind == "slurm" and rest:
        return Where("slurm", path=Path(rest).expanduser())
    raise UserError(
        f"--scheduler: must be serial, local, local:WORKERS, tcp://HOST:PORT, tls://HOST:PORT or "
        f"slurm:FILE.yaml, got '{text}'"
    )
