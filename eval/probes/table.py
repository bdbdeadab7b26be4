"""The downstream protocols by name.

A protocol module has `settings(dataset, is_random, split) -> train.downstream.Downstream`.
"""

from pipeline.tables import Table

PROBES = Table(
    kind="protocol",
    modules={
        "linear": "eval.probes.linear",
        "few_shot": "eval.probes.few_shot",
        "semi_supervised": "eval.probes.semi_supervised",
    },
    install={},
)
