import re
import shlex
import subprocess

import click
import pytest

from pipeline.config import override
from pipeline.errors import UserError
from train.__main__ import main
from train.job_script import Request, job_script, rate_rule
from train.optimizer import Optimizer, scaled_lr
from train.recipes import load_recipe


def recipe(*settings):
    return override(load_recipe("seal"), settings)


def test_the_rate_follows_the_batch_only_where_the_config_says_so():
    assert scaled_lr(Optimizer(lr=0.5), 32) == 0.5
    assert scaled_lr(Optimizer(lr=0.5, lr_scaling="linear"), 32) == 4.0
    assert scaled_lr(Optimizer(lr=0.5, lr_scaling="linear", base_batch=16), 8) == 0.25
    with pytest.raises(UserError, match="base_batch: must be at least 1"):
        Optimizer(base_batch=0)


def test_the_rule_is_told_in_words():
    batch, rate = rate_rule(recipe("batch_size=32", "optimizer.lr_scaling=linear"), 8)
    assert batch.startswith("batch 32 = 4 on each of 8 GPUs")
    assert rate.startswith("highest learning rate 4, optimizer.lr_scaling=linear: 0.5 x 32 / 4")
    assert rate_rule(recipe(), 1)[1] == "highest learning rate 0.5, optimizer.lr_scaling=none"


@pytest.mark.parametrize(
    ("nodes", "gpus", "expected"),
    [
        (1, 1, "exec srun .venv/bin/python -m train pretrain --recipe seal"),
        (1, 4, "--nnodes 1 --nproc-per-node 4 \\\n  --standalone"),
        (2, 4, '--rdzv-endpoint "$first:29500"'),
    ],
)
def test_a_script_is_bash_and_asks_for_what_it_starts(nodes, gpus, expected):
    config = recipe("batch_size=16")
    text = job_script(config, ["--recipe", "seal"], Request(nodes, gpus), "seal-x")
    assert expected in text
    assert f"#SBATCH --nodes={nodes}\n" in text and f"#SBATCH --gpus-per-node={gpus}\n" in text
    assert "#SBATCH --signal=TERM@180\n" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    directives = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+=\S+", line) for line in directives)


def test_a_batch_that_does_not_divide_is_refused(here):
    with pytest.raises(UserError, match="batch_size: must be a multiple of the 8 GPUs, got 4"):
        job_script(recipe(), [], Request(2, 4), "x")
    done = here(main, "sbatch", "--gpus", "3")
    assert done.code == 2 and "multiple of the 3 GPUs" in done.error()
    done = here(main, "sbatch", "--gpus", "0")
    assert done.code == 2 and "--gpus: must be at least 1" in done.error()
    done = here(main, "sbatch", "--gpus", "3", "--batch-per-gpu", "2", "--set", "seed=1")
    assert done.code == 0 and "--set seed=1 --set batch_size=6" in done.out


def test_a_script_trains_what_was_asked_for(here):
    asked = {"run_name": "mine", "intensity": "normalized", "engine": "native"}
    asked |= {"version": "v1.0-mini", "settings": ["seed=1"], "device": "cuda"}
    words = ["--run", "mine", "--intensity", "normalized", "--engine", "native"]
    done = here(main, "sbatch", *words, "--version", "v1.0-mini", "--set", "seed=1")
    assert done.code == 0, done.err
    assert "#SBATCH --job-name=mine\n" in done.out
    words = shlex.split(done.out.splitlines()[-1].partition("pretrain ")[2])
    pretrain = main.commands["pretrain"]
    given, rest, _ = pretrain.make_parser(click.Context(pretrain)).parse_args(words)
    assert not rest
    assert {key: given[key] for key in asked} == asked
