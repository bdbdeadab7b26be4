import shutil

import pytest

from eval.start import find_start, load_network
from pipeline.errors import UserError
from pipeline.files import sha256_file
from tests.train.small_runs import paths_of, small_recipe
from train.trainer import Machine, pretrain

NATIVE = Machine("native")


def test_a_checkpoint_is_known_by_its_files_hash_and_must_stay(stores, tmp_path, one_thread):
    run = tmp_path / "run"
    recipe = small_recipe("epochs=1", name="slidr_small")
    checkpoint = pretrain(run, paths_of(stores), recipe, NATIVE)
    start = find_start(run, "checkpoint", "", None)
    assert (start.hash, start.epochs) == (sha256_file(checkpoint)[:16], 1)
    load_network(start, NATIVE, 0)
    pretrain(tmp_path / "again", paths_of(stores), small_recipe("epochs=1", "seed=7"), NATIVE)
    shutil.copy(tmp_path / "again" / "checkpoint.pt", checkpoint)
    with pytest.raises(UserError, match="checkpoint.pt: must stay as it is while it is measured"):
        load_network(start, NATIVE, 0)


def test_random_weights_come_from_no_file_and_from_their_seed(tmp_path):
    start = find_start(tmp_path, "random", "seal_small", None)
    assert (start.hash, start.init, start.checkpoint) == ("", "random", None)
    weights = [load_network(start, NATIVE, seed).final.kernel for seed in (0, 0, 1)]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])
