"""The losses by name.

A loss module has a frozen `Config` and `loss(...)`, which returns a `train.contrast.Term`; its
arguments are the tensors it needs, features first.
"""

from pipeline.tables import Table

LOSSES = Table(
    kind="loss",
    modules={
        "superpixel_nce": "train.losses.superpixel_nce",
        "temporal_nce": "train.losses.temporal_nce",
        "point_to_segment": "train.losses.point_to_segment",
    },
    install={},
)
