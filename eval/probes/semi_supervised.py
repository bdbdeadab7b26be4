"""Few labels and all other training scans without: mean teacher with LaserMix (method.md 6.5)."""

from dataclasses import replace

from eval.rates import finetuning
from train.downstream import Downstream, MeanTeacher

# Ours to choose: LaserMix's mix at weight 1. Its consistency weight of 250 comes with a softmax
# over 16 to 20 classes, where a squared difference is a few thousandths.
ON = MeanTeacher(mix_weight=1.0, consistency_weight=250.0)


def settings(dataset: str, is_random: bool, split: str) -> Downstream:
    """Return the fine-tuning protocol with the mean teacher on.

    Args:
        dataset: name of the data set.
        is_random: a random network trains at one rate.
        split: labels to train on.
    """
    return replace(finetuning(dataset, is_random, split), mean_teacher=ON)
