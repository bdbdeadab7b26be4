"""Published fine-tuning rates by data set (method.md 5.2)."""

from dataclasses import dataclass

from train.downstream import Downstream


@dataclass(frozen=True)
class Rates:
    """Learning rates and batch of one data set."""

    trunk: float = 0.05
    head: float = 2.0  # of the new last layer
    batch_size: int = 10


# SLidR's configs for nuScenes and SemanticKITTI, OLIVINE's for the others. The rates of 5 to 100 %
# of the labels were never published; one pair of rates for all, as CSC does on nuScenes.
RATES = {
    "nuscenes": Rates(0.02, 2.0, 16),
    "semantickitti": Rates(),
    "scribblekitti": Rates(),
    "semanticstf": Rates(),
    "rellis3d": Rates(batch_size=2),
    "daps3d": Rates(head=0.2, batch_size=2),
}
BATCHES = {("rellis3d", "10pct"): 10}  # where a data set's batch depends on the labels
RANDOM_LR = 0.05  # one rate for a network from scratch (valeoai/SLidR issue 11)


def finetuning(dataset: str, is_random: bool, split: str) -> Downstream:
    """Return the fine-tuning protocol of method.md 5.2.

    Args:
        dataset: name of the data set; others than the table's take SemanticKITTI's rates.
        is_random: a random network trains at one rate.
        split: labels to train on.
    """
    if dataset == "synthetic":  # our choice: 2.0 diverges on the small network
        head_lr = None if is_random else 0.5
        return Downstream(freeze=False, lr=0.05, head_lr=head_lr, epochs=20, batch_size=4)
    rates = RATES.get(dataset, Rates())
    lr, head_lr = (RANDOM_LR, None) if is_random else (rates.trunk, rates.head)
    batch_size = BATCHES.get((dataset, split), rates.batch_size)
    return Downstream(freeze=False, lr=lr, head_lr=head_lr, epochs=100, batch_size=batch_size)
