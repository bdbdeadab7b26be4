"""The losses by name.

A loss module has a frozen `Config`; `loss(...)`, which takes the tensors it needs, features first,
and returns a `train.contrast.Term`; `of_batch(encoded, config)`, which picks them from a
`train.encoded.Encoded`; and `reads(config)`, a subset of
{"images", "superpixels", "segments", "successor"}.
"""

from pipeline.tables import Table

LOSSES = Table(
    kind="loss",
    modules={
        "superpixel_nce": "train.losses.superpixel_nce",
        "temporal_nce": "train.losses.temporal_nce",
        "point_to_segment": "train.losses.point_to_segment",
        "ppkt": "train.losses.ppkt",
        "st_slidr": "train.losses.st_slidr",
        "cosine": "train.losses.cosine",
    },
    install={},
)
