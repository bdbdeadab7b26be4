"""The plain twin of measure.py in PyTorch: full-size masks are made, a few at a time.

What runs where the decoder's masks are on a GPU, which has the arithmetic to spare; tests compare
it with measure.py on the CPU.
"""

import numpy as np
import torch
from torch import Tensor

from pipeline.sam.measure import Measured
from pipeline.sam.resize import Resize

CHUNK = 32  # full-size masks at a time: 0.2 GB at 1600 x 900


def enlarge(logits: Tensor, resize: Resize) -> Tensor:
    """Return masks [K, H, W] of masks [K, m, m], two matrix products each."""
    rows, columns = (
        torch.from_numpy(side.matrix(resize.mask_size)).to(logits.device)
        for side in (resize.rows, resize.columns)
    )
    return rows @ logits @ columns.T


def measure(logits: Tensor, resize: Resize, offset: float) -> Measured:
    """Return counts and boxes of masks [K, m, m] at the image's size."""
    above, boxes = [torch.zeros(0, 3, dtype=torch.int32)], [torch.zeros(0, 4, dtype=torch.int32)]
    for part in logits.split(CHUNK):
        full = enlarge(part, resize)
        counts = [(full > threshold).sum((1, 2)) for threshold in (offset, 0.0, -offset)]
        above.append(torch.stack(counts, dim=1).int().cpu())
        boxes.append(boxes_of(full > 0).cpu())
    return Measured(torch.cat(above).numpy(), torch.cat(boxes).numpy())


def boxes_of(masks: Tensor) -> Tensor:
    """Return first column and row, last column and row [K, 4] int32 of masks [K, H, W] bool."""
    sides = []
    for hit in (masks.any(1), masks.any(2)):  # [K, W], [K, H]
        place = torch.arange(hit.shape[1], device=hit.device)
        first = torch.where(hit, place, hit.shape[1]).amin(1)
        sides.append((first, torch.where(hit, place, -1).amax(1)))
    (left, right), (top, bottom) = sides
    boxes = torch.stack([left, top, right, bottom], dim=1)
    return torch.where((right >= left)[:, None], boxes, 0).int()


def paint(ids: np.ndarray, value: int, logits: Tensor, resize: Resize) -> None:
    """Set the pixels of one mask [m, m] to a value, in place; ids [H, W] uint16."""
    ids[(enlarge(logits[None], resize)[0] > 0).cpu().numpy()] = value
