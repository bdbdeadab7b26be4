from dataclasses import replace

import pytest

from eval.comparison import compare, spread
from pipeline.errors import UserError
from tests.eval.test_results import RESULT


def test_columns_are_one_protocol_one_split_one_data_set():
    results = [
        ("a", RESULT),
        ("b", replace(RESULT, init="random")),
        ("a", replace(RESULT, split="5pct", num_train=20)),
        ("a", replace(RESULT, protocol="few_shot")),
        ("t", replace(RESULT, init="seal/teacher", num_val=1)),
        ("a", replace(RESULT, place="kitti", convention="slidr")),
    ]
    columns = compare(results)
    found = [(c.place, c.title, list(c.runs)) for c in columns]
    assert found == [
        ("kitti", "linear 1pct", ["a"]),
        ("synthetic-tiny", "linear 1pct", ["a", "b"]),
        ("synthetic-tiny", "linear 1pct, points a camera sees", ["t"]),
        ("synthetic-tiny", "linear 5pct", ["a"]),
        ("synthetic-tiny", "few_shot 1pct", ["a"]),
    ]
    assert [c.num_absent for c in columns] == [0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "value"),
    [("split_hash", "f" * 16), ("convention", "slidr"), ("num_val", 3), ("classes", ("a",) * 3)],
)
def test_runs_that_were_measured_otherwise_are_refused(name, value):
    with pytest.raises(UserError, match=f"report: {name} of linear-.* in a and .* in b; measure"):
        compare([("a", RESULT), ("b", replace(RESULT, **{name: value}))])


def test_published_numbers_come_with_the_papers_columns_only():
    nuscenes = replace(RESULT, dataset="nuscenes", place="nuscenes", protocol="few_shot")
    (column,) = compare([("a", nuscenes)])
    assert 45.84 in [row.value for row in column.published]
    (column,) = compare([("a", RESULT)])
    assert column.published == ()


def test_spread_by_hand():
    assert spread((1.0, 3.0)) == "2.00 \u00b1 1.41"
    assert spread((5.0,)) == "5.00"
