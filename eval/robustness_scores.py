"""mCE and mRR: how much a network loses under corruption, against a baseline and against itself.

In: mIoU on clean and corrupted scans. Out: percent. Severities are averaged first, then the ratio
is taken.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import check


@dataclass(frozen=True)
class Robustness:
    """What corruption costs, percent; corruptions in the order given."""

    errors: dict[str, float]  # CE of each corruption, 100 = as the baseline; lower is better
    resilience: dict[str, float]  # RR of each corruption, 100 = nothing lost
    mce: float
    mrr: float


def score_robustness(
    clean: float, miou: Mapping[str, Sequence[float]], baseline: Mapping[str, float]
) -> Robustness:
    """Return mCE and mRR.

    Args:
        clean: mIoU on clean scans, percent.
        miou: corruption -> mIoU of each severity (or their mean alone), percent.
        baseline: corruption -> the baseline's mIoU, mean of the severities, percent.

    Raises:
        UserError: a number outside 0..100, or a corruption that the baseline lacks.

    Source: method.md 6.3 (Robo3D): CE = sum(100 - mIoU) / sum(100 - base), RR = sum(mIoU) / sum of
    clean.
    """
    missing = [kind for kind in miou if kind not in baseline]
    check(
        bool(miou) and not missing,
        f"robustness: corruptions must be among {', '.join(baseline)}, got "
        f"{', '.join(missing) or 'none'}; evaluate those",
    )
    values = [clean, *(value for values in miou.values() for value in values)]
    check(
        all(0 <= value <= 100 for value in values) and clean > 0,
        f"robustness: mIoU must be in 0..100 percent and above 0 on clean scans, got {values}; "
        "evaluate again",
    )
    means = {kind: statistics.fmean(values) for kind, values in miou.items()}
    errors = {kind: 100 * (100 - mean) / (100 - baseline[kind]) for kind, mean in means.items()}
    resilience = {kind: 100 * mean / clean for kind, mean in means.items()}
    return Robustness(
        errors,
        resilience,
        statistics.fmean(errors.values()),
        statistics.fmean(resilience.values()),
    )
