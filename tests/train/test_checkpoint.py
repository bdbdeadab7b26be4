import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from train.checkpoint import load_checkpoint, load_into, save_checkpoint


def test_what_was_saved_comes_back(tmp_path):
    path = tmp_path / "a" / "checkpoint.pt"
    content = {"network": nn.Linear(2, 3).state_dict(), "next_epoch": 4, "facts": {"a": [1, "b"]}}
    save_checkpoint(path, content)
    found = load_checkpoint(path, "network", "facts")
    assert found["facts"] == content["facts"]
    assert torch.equal(found["network"]["weight"], content["network"]["weight"])
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"]


def test_missing_checkpoint_says_which_command_makes_one(tmp_path):
    with pytest.raises(UserError, match="checkpoint must exist, got nothing; run 'make pretrain'"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def other(path):
    torch.save([1, 2], path)


def code(path):
    torch.save({"format": 1, "network": nn.Linear(1, 1)}, path)


@pytest.mark.parametrize("damage", [cut, flip, other, code, lambda p: p.write_bytes(b"")])
def test_a_broken_checkpoint_is_one_clear_line(tmp_path, damage):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"network": {"w": torch.zeros(2000)}})
    damage(path)
    with pytest.raises(UserError, match="must be a Selkie checkpoint, got .*; train again") as e:
        load_checkpoint(path)
    assert "\n" not in str(e.value)


def test_another_format_or_kind_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"format": 99}, path)
    with pytest.raises(UserError, match="format must be 1, got 99"):
        load_checkpoint(path)
    save_checkpoint(path, {"network": {}})
    with pytest.raises(UserError, match="must hold network, facts, got format, network"):
        load_checkpoint(path, "network", "facts")


def test_another_network_is_refused_and_nothing_loaded():
    module = nn.Linear(2, 3)
    before = module.weight.clone()
    with pytest.raises(UserError, match=r"a.pt: must fit .* 2 other keys .*'bias: \[4\] -> \[3\]'"):
        load_into(module, nn.Linear(2, 4).state_dict(), "a.pt")
    assert torch.equal(module.weight, before)
