"""What SCHEDULER= may say, and the SLURM file: read without starting anything."""

import re

import pytest

from pipeline.errors import UserError
from pipeline.scheduler import Where, parse_scheduler
from pipeline.slurm import job_script, num_workers, read_settings

GOOD = """
jobs: 3
interface: ib0
cores: 4
memory: 32GB
walltime: "04:00:00"
queue: gpu
worker_extra_args: ["--resources", "GPU=1"]
job_script_prologue: ["module load cuda"]
"""


@pytest.fixture
def yaml(tmp_path):
    def write(text):
        path = tmp_path / "slurm.yaml"
        path.write_text(text)
        return path

    return write


def test_what_a_scheduler_may_be(tmp_path):
    assert parse_scheduler("serial") == Where("serial")
    assert parse_scheduler("local:3") == Where("local", 3)
    assert parse_scheduler("local").workers >= 1
    assert parse_scheduler("tls://h:8786") == Where("address", address="tls://h:8786")
    assert parse_scheduler(f"slurm:{tmp_path}/a.yaml").path == tmp_path / "a.yaml"


@pytest.mark.parametrize("text", ["", "locale", "local:0", "local:two", "local:", "tcp:h", "slurm:",
                                  "tcp://host", "http://h:1"])  # fmt: skip
def test_what_it_may_not_be(text):
    with pytest.raises(UserError, match="--scheduler: "):
        parse_scheduler(text)


def test_the_job_script_is_what_the_file_says(yaml):
    path = yaml(GOOD)
    assert num_workers(path) == 12
    script = job_script(path).splitlines()
    for line in ("#SBATCH -p gpu", "#SBATCH --cpus-per-task=4", "#SBATCH -t 04:00:00"):
        assert line in script
    assert "module load cuda" in script
    assert any(line.startswith("export PYTHONPATH=") for line in script)
    [start] = [line for line in script if "dask_worker" in line]
    words = "--nthreads 1 --memory-limit 7.45GiB --nworkers 4 .*--interface ib0"
    assert re.search(words, start)
    assert "--resources GPU=1" in start


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("interface: ib0", ""), "must have the keys interface"),
        (("queue: gpu", "que: gpu"), "did you mean 'queue'"),
        (('"04:00:00"', "12:00:00"), "walltime must be text, got 43200; put it in quotes"),
        (("cores: 4", "cores: many"), "cores must be a whole number above 0"),
        (("jobs: 3", "jobs: 0"), "jobs must be a whole number above 0"),
        ((GOOD, "[1, 2"), "must be YAML"),
        ((GOOD, "- 1"), "must be a mapping"),
    ],
)
def test_a_bad_file_is_one_clear_line(yaml, change, match):
    with pytest.raises(UserError, match=match):
        read_settings(yaml(GOOD.replace(*change)))


def test_a_missing_file_and_a_dry_run(yaml, city, stage_one, tmp_path):
    with pytest.raises(UserError, match="file must exist, got none; see docs/cluster.md"):
        read_settings(tmp_path / "none.yaml")
    scheduler = ("--scheduler", f"slurm:{yaml(GOOD)}", "--dry-run")
    outcome = stage_one("run", "--root", city, "--stores", tmp_path / "s", *scheduler)
    assert outcome.code == 0, outcome.err
    assert "#SBATCH -p gpu" in outcome.out
