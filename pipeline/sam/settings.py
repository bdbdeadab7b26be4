"""What SAM superpixels can be told: the mask generator's thresholds, Seal's clean-ups, the machine.

Thresholds are those of the package's automatic mask generator with all defaults, which Seal used
(method.md 1.3).
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Settings:
    """The source's config; what follows `checkpoint` are facts of the machine, not of the masks."""

    points_per_side: int = 32  # of the grid of prompts
    predicted_iou: float = 0.88  # a mask is kept above it
    stability: float = 0.95  # least IoU of a mask cut higher and lower
    stability_offset: float = 1.0  # how much higher and lower, in logits
    box_nms: float = 0.7  # box IoU above which the mask rated lower goes
    crop_layers: int = 0  # further rounds on 4, 16, ... overlapping crops
    crop_overlap: float = 512 / 1500  # of the first round's crops, share of the short side
    crop_points_divisor: int = 1  # by which points_per_side shrinks from round to round
    crop_nms: float = 0.7  # box_nms between crops
    drop_below: int = 0  # px; smaller superpixels become 0; Seal dropped none
    fill: bool = False  # uncovered pixels join the nearest superpixel; Seal left them
    split_above: float = 0.0  # share of the image above which SLIC cuts a superpixel; 0 = never
    first_id: Literal["1", "0"] = "1"  # 0 as Seal's code: the largest mask is one with no mask
    autocast: Literal["none", "float16", "bfloat16"] = "none"  # of the image encoder
    checkpoint: str = ""  # file; empty: SAM_CHECKPOINT, else weights/
    compile: bool = False  # torch.compile of the image encoder
    images_per_batch: int = 1  # through the image encoder at once; halved where memory is short
    prompts_per_batch: int = 0  # through the decoder at once; 0: 2 to 32 on a CPU, 128 on a GPU

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a number that makes no sense.
        """
        for name in ("predicted_iou", "stability", "box_nms", "crop_nms", "split_above"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be 0 .. 1, got {value}; give such a value")
        if not 0 <= self.crop_overlap < 1:
            raise ValueError(f"crop_overlap must be 0 .. < 1, got {self.crop_overlap}; try 0.34")
        if self.stability_offset < 0:
            raise ValueError(f"stability_offset must be >= 0, got {self.stability_offset}; try 1")
        least = {"points_per_side": 1, "crop_points_divisor": 1, "images_per_batch": 1}
        for name in ("crop_layers", "drop_below", "prompts_per_batch", *least):
            value = getattr(self, name)
            if value < least.get(name, 0):
                raise ValueError(f"{name} must be >= {least.get(name, 0)}, got {value}; give more")
