"""Fine-tuning on a share of the labels: every layer trains, the new last one at its own rate."""

from train.finetune import Downstream

# (trunk, head) learning rates of method.md 5.2
RATES = {"nuscenes": (0.02, 2.0), "semantickitti": (0.05, 2.0)}


def settings(dataset: str, is_random: bool) -> Downstream:
    """Return the protocol of method.md 5.2.

    Args:
        dataset: name of the data set; others than the table's take SemanticKITTI's rates.
        is_random: a random network trains at one rate, 0.05 (valeoai/SLidR issue 11).
    """
    lr, head_lr = (0.05, None) if is_random else RATES.get(dataset, (0.05, 2.0))
    if dataset == "synthetic":  # our choice: 2.0 diverges on the small network
        return Downstream(
            freeze=False, lr=0.05, head_lr=None if is_random else 0.5, epochs=20, batch_size=4
        )
    batch_size = 10 if dataset == "semantickitti" else 16
    return Downstream(freeze=False, lr=lr, head_lr=head_lr, epochs=100, batch_size=batch_size)
