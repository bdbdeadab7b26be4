import json

import pytest

from pipeline.errors import UserError
from train.run_folder import METRICS, append_metrics, claim, forget_after, read_metrics


def test_a_folder_belongs_to_one_config(tmp_path):
    folder = tmp_path / "runs" / "mine"
    claim(folder, {"a": {"lr": 0.5}, "b": (1, 2)})
    claim(folder, {"a": {"lr": 0.5}, "b": [1, 2]})
    with pytest.raises(UserError, match=r"another config \(a.lr: 0.5 -> 0.1\); choose another RUN"):
        claim(folder, {"a": {"lr": 0.1}, "b": [1, 2]})
    assert json.loads((folder / "config.json").read_text())["a"] == {"lr": 0.5}


def test_a_broken_config_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json: must be JSON"):
        claim(tmp_path, {})


def test_metrics_forget_the_epochs_that_are_done_again(tmp_path):
    lines = [{"epoch": step // 2, "step": step, "loss": 0.1 + 0.2} for step in range(4)]
    for line in lines:
        append_metrics(tmp_path, line)
    forget_after(tmp_path, 1)
    assert read_metrics(tmp_path) == lines[:2]
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"epoch": 1, "lo')
    assert len(read_metrics(tmp_path)) == 2
    forget_after(tmp_path, 0)
    assert (tmp_path / METRICS).read_text() == ""


@pytest.mark.parametrize("text", ["[1]", '{"epoch": 0}', "7"])
def test_a_line_that_is_no_steps_is_refused(tmp_path, text):
    (tmp_path / METRICS).write_text(f'{{"epoch": 0, "step": 0}}\n{text}\n')
    with pytest.raises(UserError, match="metrics.jsonl: line 2 must have epoch and step, got"):
        read_metrics(tmp_path)


def test_no_metrics_yet(tmp_path):
    assert read_metrics(tmp_path) == []
