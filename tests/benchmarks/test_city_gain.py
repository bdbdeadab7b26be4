from dataclasses import replace

import pytest

from benchmarks.city_gain import CELLS, PRETRAIN, SEEDS, commands, run_name, table
from eval.probes.table import PROBES
from pipeline.config import differences, override, to_plain
from tests.eval.test_results import RESULT
from train.recipes import load_recipe

PROTOCOLS = {"probe": "linear", "fewshot": "few_shot"}


def settings_of(command):
    return [value for word, value in zip(command, command[1:], strict=False) if word == "--set"]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_every_setting_exists_and_pretraining_differs_only_in_what_the_cell_says(cell):
    *pretrain, measure = commands(cell, 1, [])
    protocol = PROBES.load(PROTOCOLS[measure[1]])
    override(protocol.settings("synthetic", cell.init == "random", "train"), settings_of(measure))
    assert len(pretrain) == (cell.init == "checkpoint")
    for command in pretrain:
        recipe = override(load_recipe(cell.recipe), settings_of(command))
        plain = override(load_recipe(cell.recipe), [*PRETRAIN, "seed=1"])
        assert len(differences(to_plain(plain), to_plain(recipe))) == len(cell.pretrain)


def test_all_cells_take_equal_steps_and_all_but_cosine_the_same_optimizer():
    steps, optimizers = set(), set()
    for cell in CELLS:
        for command in list(commands(cell, 0, []))[:-1]:
            recipe = override(load_recipe(cell.recipe), settings_of(command))
            steps.add((recipe.split, recipe.epochs, recipe.batch_size))
            optimizers.add((recipe.optimizer, cell.recipe == "cosine_small"))
    assert len(steps) == 1 and len(optimizers) == 2


def test_the_table_has_mean_and_deviation_over_seeds_and_leaves_out_what_is_missing():
    cell = CELLS[0]
    results = {
        run_name(cell.name, seed): replace(
            RESULT, miou=(10.0 + seed,), miou_seen=(20.0 + 2 * seed,)
        )
        for seed in SEEDS
    }
    teacher = next(cell for cell in CELLS if cell.init == "teacher")
    results[run_name(teacher.name, 0)] = replace(RESULT, miou=(40.0,), miou_seen=(40.0,))
    assert table(results).splitlines()[2:] == [
        f"| {cell.about} | 11.0 +- 1.0 | 22.0 +- 2.0 | 3 |",
        f"| {teacher.about} |  | 40.0 | 1 |",
    ]
