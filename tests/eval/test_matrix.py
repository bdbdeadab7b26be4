"""The matrix of a table on the tiny city, and the table from made-up results."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from eval.__main__ import main
from eval.matrix import Matrix, markdown, parse_shard
from eval.results import write_result
from pipeline.errors import UserError
from tests.eval.test_results import RESULT
from tests.train.small_runs import FOLDER, paths_of, small_recipe
from train.trainer import Machine, pretrain

NATIVE = Machine("native")
SHORT = ("--set", "epochs=1", "--set", "batch_size=4")


def matrix(**changes):
    whole = Matrix((Path("a/x"), Path("a/y")), ("random", "seal"), ("lp", "1pct"), (0, 1))
    return replace(whole, **changes)


def _change(folder, name, value):
    (path,) = folder.iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


def test_every_combination_once_and_a_whole_table_first():
    cells = matrix().cells()
    assert len(set(cells)) == len(cells) == 16
    assert {cell.seed for cell in cells[:8]} == {0}
    assert [(cell.protocol, cell.labels) for cell in cells[:2]] == [
        ("linear", "train"),
        ("few_shot", "1pct"),
    ]


def test_a_run_that_was_trained_anew_is_not_done_before(stores, tmp_path, here):
    pretrain(tmp_path / "runs" / "mine", paths_of(stores), small_recipe("epochs=1"), NATIVE)
    words = ["table", "--stores", stores, "--runs", "runs", "--engine", "native"]
    words += ["--inits", "mine", "--splits", "1pct", "--seeds", "0", *SHORT]
    assert here(main, *words).code == 0
    assert "done before" in here(main, *words).err
    shutil.rmtree(tmp_path / "runs" / "mine")
    again = small_recipe("epochs=1", "losses.temporal_weight=2")
    pretrain(tmp_path / "runs" / "mine", paths_of(stores), again, NATIVE)
    done = here(main, *words)
    assert done.code == 2 and "as asked for now, got init_hash: " in done.error()


def test_a_column_of_the_variant_with_unlabeled_scans(stores, tmp_path, here):
    words = ["table", "--stores", stores, "--runs", "runs", "--engine", "native"]
    words += ["--recipe", "seal_small", "--splits", "semi-1pct", "--seeds", "0", *SHORT]
    done = here(main, *words, "--set", "mean_teacher.confidence=0")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "| data set | init | semi-1pct |"
    assert done.out.splitlines()[-1].endswith("(1) |")
    (path,) = (tmp_path / "runs" / "table" / f"random-{FOLDER}-0" / "results").iterdir()
    assert path.name == "semi_supervised-synthetic-1pct.json"
    bad = here(main, *words, "--splits", "1pct,semi-lp")
    assert bad.code == 2 and "unknown name 'lp'" in bad.error() and "mIoU" not in bad.err


@pytest.mark.parametrize("count", [1, 3, 20])
def test_shards_share_nothing_and_miss_nothing(count):
    cells = matrix().cells()
    parts = [cells[i::count] for i in range(count)]
    assert sorted(map(str, sum(parts, []))) == sorted(map(str, cells))


def test_the_table_from_results(tmp_path):
    for seed, miou in ((0, 40.0), (1, 44.0)):
        one_seed = {"miou": (miou,), "seeds": (seed,), "per_class_iou": RESULT.per_class_iou[:1]}
        result = replace(RESULT, protocol="few_shot", split="1pct", dataset="x", **one_seed)
        write_result(tmp_path / "table" / f"random-x-{seed}", result)
    small = matrix(places=(Path("a/x"),), inits=("random",))
    assert markdown(small, tmp_path).splitlines() == [
        "| data set | init | lp | 1pct |",
        "| --- | --- | --- | --- |",
        "| x | random |  | 42.00 +- 2.83 (2) |",
    ]
    write_result(tmp_path / "table" / "random-x-1", replace(result, split_hash="other"))
    with pytest.raises(UserError, match="seeds of one cell must share split_hash, got .*other"):
        markdown(small, tmp_path)


def test_cells_are_measured_once_and_shards_meet_in_one_table(stores, tmp_path, here):
    words = ["table", "--stores", stores, "--runs", "runs", "--engine", "native"]
    words += ["--recipe", "seal_small", "--splits", "1pct", "--seeds", "0,1", *SHORT]
    first = here(main, *words, "--shard", "0/2")
    assert first.code == 0, first.err
    assert "seed 0: mIoU" in first.err and "seed 1" not in first.err
    assert first.out.splitlines()[-1].endswith("(1) |")
    second = here(main, *words)
    assert "seed 0: done before" in second.err and "seed 1: mIoU" in second.err
    assert second.out.splitlines()[-1].endswith("(2) |")
    folder = tmp_path / "runs" / "table" / f"random-{FOLDER}-1" / "results"
    assert [p.name for p in folder.iterdir()] == ["few_shot-synthetic-1pct.json"]
    printed = here(main, *words, "--print")
    assert printed.out == second.out and "seed" not in printed.err

    _change(tmp_path / "runs" / "table" / f"random-{FOLDER}-0" / "results", "init_hash", "other")
    other = here(main, *words)
    assert other.code == 2 and "init_hash: other ->  (then -> now)" in other.error()
    other = here(main, *words, "--set", "lr=0.3")
    assert other.code == 2 and "config.lr: 0.05 -> 0.3" in other.error()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shard", "2/2"], "--shard: must be i/n with 0 <= i < n, got '2/2'"),
        (["--inits", "random,seel"], "checkpoint must exist, got nothing"),
        (["--splits", "1pc"], "did you mean '1pct'"),
        (["--splits", "1pct,semi-full"], "must hold frames beside the labeled ones, got none"),
        (["--splits", ","], "table: must have inits, splits and seeds"),
        (["--set", "epoch=1"], "did you mean 'epochs'"),
        (["--dataset", "synthetic,synthetic"], "must name each data set once"),
    ],
)
def test_bad_input_is_one_clear_line_and_nothing_is_written(stores, tmp_path, here, more, message):
    words = ["--stores", stores, "--runs", "runs", "--engine", "native", "--seeds", "0"]
    done = here(main, "table", *words, "--recipe", "seal_small", *more)
    assert done.code == 2
    assert message in done.error()
    assert not (tmp_path / "runs").exists()


def test_shards_as_text():
    assert parse_shard("1/3") == (1, 3)
    with pytest.raises(UserError, match="got 'a/3'"):
        parse_shard("a/3")
