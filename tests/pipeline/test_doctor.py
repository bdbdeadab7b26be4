"""What doctor says of engines that differ or do not run."""

import torch

from pipeline import doctor


def result(shift=0.0):
    return {"output": torch.tensor([1.0, -2.0]) + shift, "gradient": torch.tensor([4.0])}


def test_engines_that_agree():
    lines, agree = doctor.compare({"a on cpu": result(), "b on cuda": result(1e-5)})
    # 0.00001 of a largest value of 2
    assert agree and lines == ["engine       b on cuda: equal to a on cpu within 5e-06, ok"]


def test_engines_that_differ_are_named_with_what_differs():
    other = result() | {"gradient": torch.tensor([5.0])}
    lines, agree = doctor.compare({"a on cpu": result(), "b on cpu": result(), "b on cuda": other})
    assert not agree and len(lines) == 2 and lines[0].endswith("ok")
    # 1 of 4
    assert lines[1] == (
        "engine       b on cuda: must equal a on cpu within 1e-04, got 2e-01 in the gradient"
    )


def test_nan_and_other_shapes_are_no_agreement():
    for wrong in (torch.tensor([float("nan")]), torch.zeros(2)):
        lines, agree = doctor.compare({"a": result(), "b": result() | {"gradient": wrong}})
        assert not agree and "got inf in the gradient" in lines[0]


def test_one_engine_alone_and_none():
    assert doctor.compare({"a": result()}) == ([], True)
    assert doctor.compare({}) == ([], True)


def test_an_engine_that_does_not_run_is_reported_and_no_result_is_left(tmp_path):
    line = doctor._run_engine("no_such", "cpu", tmp_path / "x.pt")
    assert line.startswith("not usable on cpu (") and "no_such" in line
    assert not list(tmp_path.iterdir())
