"""Linear probe: only the last layer trains, on all training labels."""

from train.downstream import Downstream


def settings(dataset: str, is_random: bool, split: str) -> Downstream:
    """Return the protocol of method.md 5.2; a short one with kept features for the city.

    Args:
        dataset: name of the data set.
        is_random: a random network gets the same rate (nothing of the trunk trains).
        split: labels to train on; the same for all.
    """
    if dataset == "synthetic":
        # of 0.05, 0.2, 0.5 and 2 the best for random, pretrained and image features alike
        return Downstream(lr=2.0, epochs=20, feature_passes=2, max_voxels=3000)
    return Downstream(lr=0.05, epochs=50, batch_size=16)
