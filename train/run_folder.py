"""A run's folder: config, checkpoint, metrics; what decides between start, resume and refuse."""

import json
from pathlib import Path
from typing import Any

from pipeline.config import differences
from pipeline.errors import UserError, check
from pipeline.files import write_atomically

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"


def claim(folder: Path, config: dict[str, Any]) -> None:
    """Make the folder with this config, or check that it holds the same one.

    Args:
        folder: `<runs>/<run>`.
        config: everything that decides the run's result, plain.

    Raises:
        UserError: a run of another config stands there.
    """
    path = folder / "config.json"
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: must be JSON, got {error}; choose another RUN=") from error
        changes = differences(found, json.loads(json.dumps(config)))
        check(
            not changes,
            f"{folder}: was started with another config ({'; '.join(changes[:4])}); "
            "choose another RUN=, or remove the folder",
        )
    else:
        write_atomically(path, json.dumps(config, indent=1).encode())


def append_metrics(folder: Path, line: dict[str, Any]) -> None:
    """Append one line to metrics.jsonl."""
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps(line) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl; a last line that a kill cut short is left out.

    Raises:
        UserError: a line that is none of a run's.
    """
    path = folder / METRICS
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
        check(
            isinstance(lines[-1], dict) and {"epoch", "step"} <= lines[-1].keys(),
            f"{path}: line {len(lines)} must have epoch and step, got {text[:60]}; remove the file",
        )
    return lines


def forget_after(folder: Path, epoch: int, step: int = 0) -> None:
    """Drop the metrics of steps that a resumed run does again, and files that a kill left behind.

    Args:
        folder: `<runs>/<run>`.
        epoch: to go on in.
        step: of the run, to go on with; 0 = the first of that epoch.
    """
    kept = [line for line in read_metrics(folder) if line["epoch"] < epoch or line["step"] < step]
    text = "".join(json.dumps(line) + "\n" for line in kept)
    write_atomically(folder / METRICS, text.encode())
    for partial in folder.glob(".*.partial"):
        partial.unlink()


def write_down_batch(folder: Path, rank: int, facts: dict[str, Any]) -> Path:
    """Write what is known of a batch whose loss was not finite, and return the file.

    Args:
        folder: `<runs>/<run>`.
        rank: of the process that had it.
        facts: plain.
    """
    path = folder / f"not_finite-{rank}.json"
    write_atomically(path, json.dumps(facts, indent=1).encode())
    return path
