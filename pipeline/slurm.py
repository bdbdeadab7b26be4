"""SLURM through dask-jobqueue: a YAML file in; a cluster, or the script of one of its jobs, out.

The keys are dask-jobqueue's own, plus `jobs`. `interface` must be given: without it the scheduler
would listen on an address that compute nodes may not reach.
"""

import inspect
from pathlib import Path
from typing import Any

import yaml
from dask_jobqueue import SLURMCluster
from dask_jobqueue.core import Job
from dask_jobqueue.slurm import SLURMJob

from pipeline.child import REPOSITORY
from pipeline.errors import UserError, check, unknown_name

REQUIRED = ("jobs", "interface", "cores", "memory", "walltime")


def open_slurm(path: Path) -> SLURMCluster:
    """Start a scheduler here and ask the queue for its workers.

    Raises:
        UserError: the file cannot be used, or there is no such interface.
    """
    settings = read_settings(path)
    jobs = settings.pop("jobs")
    try:
        cluster = SLURMCluster(scheduler_options={"dashboard_address": "127.0.0.1:0"}, **settings)
    except ValueError as error:  # an interface that this machine lacks
        raise UserError(f"{path}: {str(error).splitlines()[0]}; correct it") from error
    cluster.scale(jobs=jobs)
    return cluster


def job_script(path: Path) -> str:
    """Return the script that sbatch would be given, nothing started."""
    settings = read_settings(path)
    settings.pop("jobs")
    options = {"scheduler": "tcp://ADDRESS-OF-THE-SCHEDULER:PORT", "name": "NAME-OF-THE-JOB"}
    return SLURMJob(**options, **settings).job_script()


def num_workers(path: Path) -> int:
    """Return the number of worker threads that all jobs have together."""
    settings = read_settings(path)
    return settings["jobs"] * settings["cores"]


def read_settings(path: Path) -> dict[str, Any]:
    """Return the file's content, checked, with what our workers need added.

    Raises:
        UserError: no such file, no mapping, a key that is missing, unknown or of another type.
    """
    try:
        settings = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: file must exist, got none; see docs/cluster.md") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: must be YAML, got '{str(error).splitlines()[0]}'") from error
    check(isinstance(settings, dict), f"{path}: must be a mapping of keys; see docs/cluster.md")
    missing = [key for key in REQUIRED if key not in settings]
    check(not missing, f"{path}: must have the keys {', '.join(missing)}; see docs/cluster.md")
    known = {"jobs", *_parameters(SLURMJob), *_parameters(Job)} - {"scheduler", "name", "nanny"}
    for key in settings:
        if key not in known:
            raise unknown_name(f"{path}: key", str(key), known)
    for key in ("jobs", "cores"):
        check(
            isinstance(settings[key], int) and settings[key] > 0,
            f"{path}: {key} must be a whole number above 0, got '{settings[key]}'; correct it",
        )
    check(
        isinstance(settings["walltime"], str),
        f"{path}: walltime must be text, got {settings['walltime']!r}; put it in quotes, "
        "YAML reads 12:00:00 as a number",
    )
    # one thread per worker process, unless the file says otherwise
    settings.setdefault("processes", settings["cores"])
    prologue = list(settings.get("job_script_prologue") or [])
    search = f"export PYTHONPATH={REPOSITORY}${{PYTHONPATH:+:$PYTHONPATH}}"
    options = [*(settings.get("worker_extra_args") or []), "--no-dashboard"]
    return {
        **settings,
        "job_script_prologue": [*prologue, search],
        "worker_extra_args": options,
    }


def _parameters(cls: type) -> set[str]:
    return set(inspect.signature(cls.__init__).parameters) - {"self", "base_class_kwargs"}
