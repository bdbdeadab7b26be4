"""What tells SEEM, X-Decoder and OpenSeeD apart where their weights do not.

Source: fact sheet xdecoder.md 10 and method.md 1.3. Thresholds are those of the published
configurations; Seal's for SEEM.
"""

from dataclasses import dataclass
from typing import Literal

Resize = Literal["bilinear", "bicubic"]  # bicubic is the antialiased one


@dataclass(frozen=True)
class Family:
    """One of the three models."""

    name: str
    has_proposals: bool  # OpenSeeD: Swin, deformable attention, queries proposed by the image
    has_class_query: bool  # the last query gathers the whole image and is kept apart
    attention_resize: Resize  # of mask logits to the next layer's size
    padded_resize: Resize  # of mask logits to the padded input
    output_resize: Resize  # of the cropped ones to the size asked for
    has_background: bool  # a last text row that stands for no object
    object_threshold: float  # least score of a query that is kept
    overlap_threshold: float  # least share of a mask that other masks leave over
    temperature: float | None  # OpenSeeD: softmax over sigmoids divided by this
    unneeded_keys: tuple[str, ...]  # what checkpoints hold besides, as patterns


PREDICTOR = "sem_seg_head.predictor."
TRAINING_KEYS = ("criterion.*", "backbone_proj", "*dilation_kernel")
SEEM_KEYS = tuple(
    PREDICTOR + key
    for key in ("pn_indicator*", "mask_sptial_embed*", "spatial_embed*", "spatial_featured*")
)
XDECODER_KEYS = tuple(
    PREDICTOR + key for key in ("caping_embed*", "pos_embed_caping*", "self_attn_mask")
)
SHARED_KEYS = TRAINING_KEYS + SEEM_KEYS + XDECODER_KEYS
OPENSEED_KEYS = (
    "backbone.*.relative_position_index",
    PREDICTOR + "decoder.bbox_embed.*",
    PREDICTOR + "lang_mapper",
)

SEEM = Family(
    name="seem",
    has_proposals=False,
    has_class_query=False,
    attention_resize="bilinear",
    padded_resize="bilinear",
    output_resize="bilinear",
    has_background=True,
    object_threshold=0.4,
    overlap_threshold=0.8,
    temperature=None,
    unneeded_keys=SHARED_KEYS,
)
XDECODER = Family(
    name="xdecoder",
    has_proposals=False,
    has_class_query=True,
    attention_resize="bicubic",
    padded_resize="bicubic",
    output_resize="bicubic",
    has_background=True,
    object_threshold=0.8,
    overlap_threshold=0.8,
    temperature=None,
    unneeded_keys=SHARED_KEYS,
)
OPENSEED = Family(
    name="openseed",
    has_proposals=True,
    has_class_query=False,
    attention_resize="bilinear",  # not used: its decoder samples, it does not mask
    padded_resize="bilinear",
    output_resize="bicubic",
    has_background=False,
    object_threshold=0.25,
    overlap_threshold=0.8,
    temperature=0.06,
    unneeded_keys=TRAINING_KEYS + OPENSEED_KEYS,
)
