from dataclasses import replace

import pytest

from eval.results import write_result
from eval.seeds import SAME, all_results, check_alike
from pipeline.errors import UserError
from tests.eval.test_results import RESULT


def test_seeds_of_a_line_are_one_result_of_the_report(tmp_path):
    """Two seeds of one line, by hand: their numbers side by side, in the order of the folders."""
    one = replace(RESULT, miou=(40.0,), miou_seen=(41.0,), seeds=(0,), per_class_iou=((1, 2, 3),))
    two = replace(one, miou=(44.0,), miou_seen=(45.0,), seeds=(7,), per_class_iou=((5, 6, 7),))
    write_result(tmp_path / "table" / "seal-synthetic-tiny-0", one)
    write_result(tmp_path / "table" / "seal-synthetic-tiny-7", two)
    write_result(tmp_path / "probed", RESULT)
    (plain, _), (line, merged) = all_results(tmp_path)
    assert (plain, line) == ("probed", "table/seal-synthetic-tiny-*")
    assert (merged.miou, merged.miou_seen, merged.seeds) == ((40, 44), (41, 45), (0, 7))
    assert merged.per_class_iou == ([1, 2, 3], [5, 6, 7])
    assert [str(p) for p in tmp_path.glob(f"{line}/results/*.json")] != []  # where the page says
    write_result(tmp_path / "table" / "seal-synthetic-tiny-7", replace(two, config={"lr": 9}))
    with pytest.raises(UserError, match="seeds of one cell must share config"):
        all_results(tmp_path)


@pytest.mark.parametrize("name", SAME)
def test_seeds_that_were_measured_otherwise_are_refused(name):
    check_alike([RESULT, replace(RESULT, seeds=(7,), miou=(1.0,))])
    with pytest.raises(UserError, match=f"seeds of one cell must share {name}, got .*other"):
        check_alike([RESULT, replace(RESULT, **{name: "other"})])
