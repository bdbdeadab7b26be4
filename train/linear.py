"""A linear layer on features that do not change, whoever made them."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.progress import Progress
from train.downstream import Downstream, groups_of, make_sgd, set_cosine, take_step
from train.segmentation_loss import segmentation_loss

Features = tuple[Tensor, Tensor]  # of a frame: [V, C] float16, labels [V] int64


def train_linear(
    final: nn.Module,
    features_at: Callable[[int], Iterator[Features]],
    num_frames: int,
    config: Downstream,
) -> None:
    """Train the last layer on features of something frozen.

    Frozen and in eval mode, so the features of one augmented pass are the same in every epoch;
    `feature_passes` of them are computed once and kept (float16) instead of computing them in every
    epoch, which SLidR's protocol does.

    Args:
        final: the layer, from features [V, C] to logits [V, K].
        features_at: the frames' features and labels in the order of an epoch.
        num_frames: frames of an epoch.
        config: protocol.
    """
    optimizer = make_sgd([{"params": final.parameters(), "lr": config.lr}], config)
    kept: list[list[Features]] = []
    progress = Progress("probe", config.epochs * num_frames)
    for epoch in range(config.epochs):
        set_cosine(optimizer, epoch, config.epochs)
        if config.feature_passes is None:
            features = features_at(epoch)
        else:
            if epoch < config.feature_passes:
                kept.append(list(features_at(epoch)))
            order = np.random.default_rng((config.seed, epoch, 1)).permutation(num_frames)
            features = (kept[epoch % len(kept)][i] for i in order)
        for batch in groups_of(features, config.batch_size):
            x = torch.cat([pair[0] for pair in batch]).float()
            y = torch.cat([pair[1] for pair in batch])
            loss = take_step(optimizer, segmentation_loss(final(x), y))
            progress.advance(len(batch), f"loss {loss:.3f}")
    progress.close()
