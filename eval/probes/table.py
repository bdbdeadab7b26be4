"""The downstream protocols by name.

A protocol module has `settings(dataset, is_random) -> train.finetune.Downstream`.
"""

from pipeline.tables import Table

PROBES = Table(
    kind="protocol",
    modules={"linear": "eval.probes.linear", "few_shot": "eval.probes.few_shot"},
    install={},
)
