"""How good stage one's segments are where the truth is known."""

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.index import read_index
from pipeline.segment_report import report_segments
from pipeline.segment_truth import kept_ids, purity
from tests.pipeline.recordings import recording


def run_stages(folder, *arguments):
    stages = [part for name in ("frames", "segments") for part in ("--stage", name)]
    command = ["run", "--stores", str(folder), *stages, *map(str, arguments)]
    main(command, standalone_mode=False)


def test_purity_by_hand():
    ids = np.array([1] * 10 + [2] * 10 + [0] * 5 + [3] * 4)
    objects = np.array([7] * 9 + [8] + [7] * 8 + [9] * 2 + [7] * 5 + [0] * 4)
    # segment 1 is 90 % object 7: pure; segment 2 is 80 %: not; segment 3 is unlabeled: left out
    assert purity(ids, objects) == pytest.approx(10 / 20)
    assert np.isnan(purity(np.zeros(3, int), np.ones(3, int)))


def test_kept_ids_by_hand():
    objects_t = np.array([5] * 12 + [6] * 12)
    ids_t = np.array([1] * 12 + [2] * 12)
    ids_s = np.array([1] * 12 + [3] * 12)  # object 6 changed its segment
    assert kept_ids(ids_t, objects_t, ids_s, objects_t, np.array([5, 6])) == 0.5
    assert np.isnan(kept_ids(ids_t, objects_t, ids_s, objects_t, np.array([99])))


def test_segments_of_the_city_are_one_object_each(stores):
    folder = stores / "synthetic-tiny"
    found = report_segments(folder, read_index(folder / "index.parquet"))
    assert found.num_pairs == 6
    assert found.purity >= 0.9
    assert found.purity_successor >= 0.9
    assert found.clustered > 0.2
    assert found.kept_moving > 0.3  # measured 0.41; fast ones leave a trail that falls apart


@pytest.mark.slow
def test_segments_of_the_demo_city_are_one_object_each(demo_city, tmp_path):
    run_stages(tmp_path, "--root", demo_city)
    folder = tmp_path / "synthetic-demo"
    found = report_segments(folder, read_index(folder / "index.parquet"))
    assert found.num_pairs == 56
    assert found.purity >= 0.9
    assert found.purity_successor >= 0.9


@pytest.mark.data
@pytest.mark.slow
def test_segments_of_real_kitti(tmp_path):
    root = recording("semantickitti")
    run_stages(tmp_path, "--dataset", "semantickitti", "--root", root)
    folder = tmp_path / "semantickitti"
    found = report_segments(folder, read_index(folder / "index.parquet"))
    assert found.num_pairs == 5
    assert found.purity > 0.8  # measured 0.85
    assert found.clustered > 0.25
