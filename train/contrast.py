"""InfoNCE: cross entropy over inner products, computed in float32 whatever autocast says.

In: feature rows and candidates. Out: a scalar. float16 logits at temperature 0.07 lose the second
digit of the loss, so casts to float32 happen here once and not in every loss.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import check


@dataclass(frozen=True)
class Term:
    """One loss of one batch."""

    value: Tensor  # scalar float32, always attached to the graph of the features
    num_contrasted: int  # candidates in the softmax; 0 = nothing to contrast and value is 0


def check_temperature(loss: str, temperature: float) -> None:
    """Refuse a temperature that no softmax can be divided by, before a run begins.

    Raises:
        UserError: it is not above 0.
    """
    check(temperature > 0, f"{loss}.temperature: must be above 0, got {temperature}; 0.07 is usual")


def info_nce(
    queries: Tensor, keys: Tensor, temperature: float, negatives: Tensor | None = None
) -> Tensor:
    """Return the mean over rows i of -log softmax_j(<q_i, k_j> / temperature) at j = i.

    Args:
        queries: [M, D] float, M >= 1.
        keys: [M, D] float; row i is the positive of query i, all rows are in the denominator.
        temperature: > 0.
        negatives: as `info_nce_to`.

    Returns:
        Scalar float32.

    Raises:
        ValueError: no rows, or shapes that differ.

    Source: method.md 2.2 (SLidR NCELoss): queries -> keys only, not symmetrized.
    """
    if queries.shape != keys.shape:
        raise ValueError(
            f"info_nce: keys must be {list(queries.shape)} like queries, got {list(keys.shape)}; "
            "row i of one must belong to row i of the other"
        )
    target = torch.arange(len(queries), device=queries.device)
    return info_nce_to(queries, keys, target, temperature, negatives=negatives)


def info_nce_to(
    anchors: Tensor,
    candidates: Tensor,
    target: Tensor,
    temperature: float,
    weight: Tensor | None = None,
    allowed: Tensor | None = None,
    negatives: Tensor | None = None,
) -> Tensor:
    """Return the weighted mean over anchors of -log softmax_j(<a, c_j> / tau) at the target.

    Args:
        anchors: [A, D] float, A >= 1.
        candidates: [S, D] float.
        target: [A] int64 in 0 .. S - 1, each anchor's positive.
        temperature: > 0.
        weight: [A] float, >= 0, each anchor's share before division by their sum; None = equal.
        allowed: [A, S] bool, the candidates in each anchor's denominator, its target among them;
            None = all.
        negatives: [B, D] float, more candidates that are nobody's positive (other processes').

    Returns:
        Scalar float32.

    Raises:
        ValueError: no anchors, or a temperature that is not positive.

    Source: method.md 2.2 to 2.4; the denominator includes the positive (ordinary softmax).
    """
    if not len(anchors):
        raise ValueError(
            "info_nce: there must be at least one anchor, got 0; return `nothing` instead"
        )
    if not temperature > 0:
        raise ValueError(f"info_nce: temperature must be > 0, got {temperature}; 0.07 is usual")
    with torch.autocast(anchors.device.type, enabled=False):
        logits_AS = anchors.float() @ candidates.float().T / temperature
        if allowed is not None:
            logits_AS = logits_AS.masked_fill(~allowed, -torch.inf)
        if negatives is not None:
            more_AB = anchors.float() @ negatives.float().T / temperature
            logits_AS = torch.cat([logits_AS, more_AB], dim=1)
        if weight is None:
            return F.cross_entropy(logits_AS, target)
        losses_A = F.cross_entropy(logits_AS, target, reduction="none")
        return (losses_A * weight.float()).sum() / weight.float().sum()


def nothing(*features: Tensor) -> Term:
    """Return the term of a batch with nothing to contrast: 0 with zero gradient, graph intact.

    Every parameter still gets a gradient, which distributed training waits for.

    Args:
        features: the tensors the loss would have used, any shape.
    """
    return Term(sum(f[:0].float().sum() for f in features), 0)
