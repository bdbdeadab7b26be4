from dataclasses import dataclass, field
from typing import Literal

import pytest

from pipeline.config import config_hash, differences, override, to_plain
from pipeline.errors import UserError, check
from pipeline.stage import NoConfig


@dataclass(frozen=True)
class Optimizer:
    lr: float = 0.5
    betas: tuple[float, float] = (0.9, 0.99)
    kind: Literal["sgd", "adamw"] = "sgd"


@dataclass(frozen=True)
class Recipe:
    epochs: int = 50
    use_flip: bool = True
    name: str | None = None
    optimizer: Optimizer = field(default_factory=Optimizer)
    classes: tuple[int, ...] = ()


def test_override_types_every_value_by_its_field():
    changed = override(
        Recipe(),
        [
            "optimizer.lr=0.1",
            "epochs=3",
            "use_flip=no",
            "name=x",
            "optimizer.betas=(0.8,0.9)",
            "classes=1,2,3",
            "optimizer.kind=adamw",
        ],
    )
    assert changed == Recipe(3, False, "x", Optimizer(0.1, (0.8, 0.9), "adamw"), (1, 2, 3))
    assert override(changed, ["name=none"]).name is None


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epochs", "must be key=value"),
        ("epoch=3", "unknown key 'epoch'; did you mean 'epochs'"),
        ("optimizer.rl=3", "unknown key 'rl'"),
        ("epochs=three", "--set epochs: must be int, got 'three'"),
        ("use_flip=maybe", "--set use_flip: must be bool, got 'maybe'"),
        ("optimizer.kind=adam", "must be"),
        ("epochs.x=1", "'epochs' has no keys below it"),
        ("optimizer.betas=1", "must be"),
    ],
)
def test_bad_overrides_say_what_and_where(assignment, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        override(Recipe(), [assignment])


@dataclass(frozen=True)
class Range:
    low: int = 0
    high: int = 9

    def __post_init__(self):
        check(self.low <= self.high, f"range: low must be at most high, got {self.low} {self.high}")


@dataclass(frozen=True)
class Ranges:
    first: Range = Range()


def test_values_are_checked_together_whatever_their_order():
    words = ["first.low=20", "first.high=30"]
    for assignments in (words, words[::-1]):
        assert override(Ranges(), assignments).first == Range(20, 30)
    with pytest.raises(UserError, match="--set first.low: range: low must be at most high, got 20"):
        override(Ranges(), ["first.low=20"])
    assert override(Range(), ["high=1", "high=3"]) == Range(0, 3)


def test_hash_follows_content_only():
    assert config_hash(Recipe()) == config_hash(Recipe()) == config_hash(to_plain(Recipe()))
    assert config_hash(Recipe()) != config_hash(Recipe(epochs=51))


def test_differences_name_the_leaf():
    lines = differences(to_plain(Recipe()), to_plain(Recipe(optimizer=Optimizer(lr=0.1))))
    assert lines == ["optimizer.lr: 0.5 -> 0.1"]


def test_a_config_without_keys_says_so():
    with pytest.raises(UserError, match="unknown key 'x'; there is nothing to set here"):
        override(NoConfig(), ["x=1"])
