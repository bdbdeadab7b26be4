"""Fine-tuning on a share of the labels: every layer trains, the new last one at its own rate."""

from eval.rates import finetuning
from train.downstream import Downstream


def settings(dataset: str, is_random: bool, split: str) -> Downstream:
    """Return the protocol of method.md 5.2.

    Args:
        dataset: name of the data set.
        is_random: a random network trains at one rate.
        split: labels to train on.
    """
    return finetuning(dataset, is_random, split)
