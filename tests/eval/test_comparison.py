from dataclasses import replace

import pytest

from eval.comparison import compare, spread
from pipeline.errors import UserError
from tests.eval.test_results import RESULT

NUSCENES = replace(
    RESULT,
    dataset="nuscenes",
    place="nuscenes-v1.0-trainval",
    protocol="few_shot",
    num_val=6019,
)


def test_columns_are_one_protocol_one_split_one_data_set():
    results = [
        ("a", RESULT),
        ("b", replace(RESULT, init="random")),
        ("a", replace(RESULT, split="5pct", num_train=20)),
        ("a", replace(RESULT, protocol="few_shot")),
        ("t", replace(RESULT, init="seal/teacher", num_val=1)),
        ("a", replace(RESULT, place="kitti", convention="slidr")),
        ("a", replace(RESULT, taxonomy="coarse", classes=("car", "bus", "other"))),
    ]
    columns = compare(results)
    found = [(c.place, c.title, list(c.runs)) for c in columns]
    assert found == [
        ("kitti", "linear 1pct", ["a"]),
        ("synthetic-tiny", "linear 1pct", ["a", "b"]),
        ("synthetic-tiny", "linear 1pct, points a camera sees", ["t"]),
        ("synthetic-tiny", "linear 1pct, classes coarse", ["a"]),
        ("synthetic-tiny", "linear 5pct", ["a"]),
        ("synthetic-tiny", "few_shot 1pct", ["a"]),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("split_hash", "f" * 16),
        ("convention", "slidr"),
        ("num_val", 3),
        ("classes", ("a",) * 3),
        ("stores", {"frames.zarr": "aa", "label_map": "other"}),
    ],
)
def test_runs_that_were_measured_otherwise_are_refused(name, value):
    other = replace(RESULT, **{name: value})
    name = name.replace("stores", "label_map")
    with pytest.raises(UserError, match=f"report: {name} of linear-.* in a and .* in b; measure"):
        compare([("a", RESULT), ("b", other)])


def test_two_results_of_one_run_in_one_column_are_refused():
    with pytest.raises(UserError, match="run a must have one result of linear-.*, got two; move"):
        compare([("a", RESULT), ("a", replace(RESULT, init="random"))])


def test_published_numbers_come_with_the_papers_columns_only():
    (column,) = compare([("a", NUSCENES)])
    assert 45.84 in [row.value for row in column.published]
    others = (
        RESULT,
        replace(NUSCENES, place="nuscenes-v1.0-mini"),
        replace(NUSCENES, num_val=81),
        replace(NUSCENES, taxonomy="coarse"),
        replace(NUSCENES, protocol="linear", split="train", init="seal/teacher"),
    )
    for other in others:
        (column,) = compare([("a", other)])
        assert column.published == ()


def test_beside_published_numbers_ours_are_counted_their_way_too():
    (column,) = compare([("a", NUSCENES)])
    # (60 + 100 + 0) / 3, (66 + 100) / 3, (72 + 100) / 3
    assert column.shown("a") == ("33.00 \u00b1 3.00 (55.33 \u00b1 2.00)")
    (column,) = compare([("a", RESULT)])
    assert column.shown("a") == "33.00 \u00b1 3.00"
    (column,) = compare([("a", replace(NUSCENES, convention="slidr"))])
    assert column.shown("a") == "33.00 \u00b1 3.00"
    whole = replace(NUSCENES, per_class_iou=((1.0, 2.0, 3.0),) * 3)
    assert compare([("a", whole)])[0].shown("a") == "33.00 \u00b1 3.00"


def test_spread_by_hand():
    assert spread((1.0, 3.0)) == "2.00 \u00b1 1.41"
    assert spread((5.0,)) == "5.00"
