"""Scripts for sbatch: how many processes, where they meet, and the batch and rate that follow.

In: a recipe and what to ask SLURM for. Out: the text of a script; nothing is submitted.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import check
from train.optimizer import scaled_lr
from train.recipes import Recipe


@dataclass(frozen=True)
class Request:
    """What to ask the batch system for."""

    nodes: int = 1
    gpus: int = 1  # per node
    workers: int = 8  # loader processes per GPU
    hours: int = 24
    warning_s: int = 180  # SIGTERM comes that long before the end; a step and a checkpoint fit in
    port: int = 29500  # where processes of several nodes meet, on the first node

    def __post_init__(self) -> None:
        """Refuse what cannot be asked for."""
        for name in ("nodes", "gpus", "hours"):
            value = getattr(self, name)
            check(value >= 1, f"--{name}: must be at least 1, got {value}")
        check(self.workers >= 0, f"--workers: must be at least 0, got {self.workers}")


def job_script(recipe: Recipe, command: Sequence[str], request: Request, name: str) -> str:
    """Return a script for sbatch that trains a recipe.

    Args:
        recipe: the complete config; its batch_size counts all GPUs together.
        command: options of `python -m train pretrain`, recipe and settings included.
        request: nodes, GPUs, time.
        name: of the run.

    Raises:
        UserError: the batch cannot be shared among the GPUs.
    """
    processes = request.nodes * request.gpus
    check(
        recipe.batch_size % processes == 0,
        f"batch_size: must be a multiple of the {processes} GPUs, got {recipe.batch_size}; "
        "give --batch-per-gpu 4, or such a --set batch_size=",
    )
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={name}",
        f"#SBATCH --nodes={request.nodes}",
        "#SBATCH --ntasks-per-node=1",
        f"#SBATCH --gpus-per-node={request.gpus}",
        f"#SBATCH --cpus-per-task={request.gpus * (request.workers + 1)}",
        f"#SBATCH --time={request.hours}:00:00",
        f"#SBATCH --signal=TERM@{request.warning_s}",
        "#SBATCH --dependency=singleton",
        "#SBATCH --open-mode=append",
        "",
        "# One task per node: torchrun starts a process per GPU. SIGTERM before the end makes the",
        "# run save and stop. Submit this several times: one job runs after the other and goes on",
        "# where that ended; once the run is finished there is nothing to do.",
        *(f"# {line}" for line in rate_rule(recipe, processes)),
        *_launch(command, request),
    ]
    return "\n".join(lines) + "\n"


def rate_rule(recipe: Recipe, processes: int) -> list[str]:
    """Return in words what batch and learning rate a number of processes amounts to."""
    optimizer, batch = recipe.optimizer, recipe.batch_size
    found = scaled_lr(optimizer, batch)
    rule = f"optimizer.lr_scaling={optimizer.lr_scaling}"
    if optimizer.lr_scaling == "linear":
        rule += f": {optimizer.lr:g} x {batch} / {optimizer.base_batch} (optimizer.base_batch)"
    return [
        f"batch {batch} = {batch // processes} on each of {processes} GPUs; "
        "each GPU contrasts within its own part",
        f"highest learning rate {found:g}, {rule}",
    ]


def _launch(command: Sequence[str], request: Request) -> list[str]:
    words = shlex.join(command)
    if request.nodes * request.gpus == 1:
        return [f"exec srun .venv/bin/python -m train pretrain {words}"]
    torchrun = [f"srun .venv/bin/torchrun --nnodes {request.nodes} --nproc-per-node {request.gpus}"]
    meet = ["--standalone"]
    if request.nodes > 1:
        torchrun.insert(0, 'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)')
        meet = [
            '--rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID"',
            f'--rdzv-endpoint "$first:{request.port}"',
        ]
    # the two dashes keep torchrun from taking --run for an abbreviation of its own --run-path
    rest = [*meet, "--max-restarts 0", f"-m -- train pretrain {words}"]
    torchrun[-1] = "exec " + " \\\n  ".join([torchrun[-1], *rest])
    return torchrun
