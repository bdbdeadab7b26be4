"""Only what was measured alike stands in one table; an older network is said to be one."""

from dataclasses import replace

import pytest

from eval.corruptions.table import CORRUPTIONS
from eval.predictor import hash_network
from eval.robustness import RobustnessResult
from eval.robustness_page import robustness_charts, robustness_origin, robustness_tables

FOUND = RobustnessResult(
    name="linear-nuscenes-train",
    protocol="linear",
    dataset="nuscenes",
    place="nuscenes-v1.0-trainval",
    taxonomy="",
    split="train",
    split_hash="0123456789abcdef",
    init="seal/slic",
    network_seed=2,
    network_hash="fedcba9876543210",
    backbone="MinkUNet, 7 parameters",
    engine="native",
    features="intensity",
    stores={"frames.zarr": "aa", "label_map": "bb"},
    clean=50.0,
    miou={kind: [30.0, 20.0, 10.0] for kind in CORRUPTIONS},
    mce=100.0,
    mrr=40.0,
    convention="present",
    num_frames=6019,
    rows_hash="0" * 16,
    seed=0,
    corrupted="on the fly",
    settings=(),
)


@pytest.mark.parametrize(
    "change",
    [
        {"num_frames": 100, "rows_hash": "1" * 16},
        {"rows_hash": "1" * 16},
        {"convention": "slidr"},
        {"corrupted": "nuscenes_c"},
        {"settings": ("fog.heavy.backscatter=1",)},
        {"taxonomy": "coarse"},
        {"seed": 1},
        {"stores": {"frames.zarr": "aa", "label_map": "other"}},
        {"stores": {**FOUND.stores, "corrupted/frames.zarr": "cc"}},
    ],
    ids=str,
)
def test_what_was_measured_otherwise_has_a_table_of_its_own(tmp_path, change):
    found = [("a", FOUND), ("b", replace(FOUND, **change)), ("c", FOUND)]
    tables = [part for part in robustness_tables(tmp_path, found) if "<table" in part]
    shown = [[run for run in "abc" if f"<td>{run}, linear" in part] for part in tables]
    assert shown == [["a", "c"], ["b"]]
    assert len(robustness_charts(found)) == 2


def test_published_rows_stand_beside_whole_and_unchanged_measurements_only(tmp_path):
    others = (
        {"num_frames": 100},
        {"place": "nuscenes-v1.0-mini"},
        {"settings": ("fog.heavy.backscatter=1",)},
        {"taxonomy": "coarse"},
        {"dataset": "synthetic", "place": "synthetic-tiny"},
    )
    assert "(published)" in robustness_tables(tmp_path, [("a", FOUND)])[0]
    for other in others:
        assert "(published)" not in robustness_tables(tmp_path, [("a", replace(FOUND, **other))])[0]


def test_numbers_of_an_earlier_network_say_so(tmp_path):
    path = tmp_path / "a" / "results" / f"{FOUND.name}.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"now")
    (text, _) = robustness_tables(tmp_path, [("a", FOUND)])
    assert "an earlier network than linear-nuscenes-train.pt now" in text
    now = replace(FOUND, network_hash=hash_network(path))
    assert "earlier" not in robustness_tables(tmp_path, [("a", now)])[0]


def test_every_number_has_its_origin():
    (text,) = robustness_origin([("a", FOUND)])
    for word in ("a/robustness/linear-nuscenes-train.json", FOUND.network_hash, FOUND.split_hash):
        assert word in text
    assert robustness_origin([]) == []
