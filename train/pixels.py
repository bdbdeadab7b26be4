"""Images that are not decoded before it is known which part of them is wanted.

In: JPEG bytes as the stores hold them, or pixels. Out: a box of the image at the size a network
takes. A JPEG whose box is at least twice that size in both directions is decoded at half scale
(or a quarter), which costs half as much and blurs less than skipping every other pixel.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.image import decode_jpeg, jpeg_size

Box = tuple[int, int, int, int]  # top, left, height, width, pixels


@dataclass(frozen=True)
class Jpeg:
    """An image still in its bytes."""

    data: np.ndarray  # [B] uint8

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3), from the header."""
        return (*jpeg_size(self.data), 3)


Image = np.ndarray | Jpeg  # [H, W, 3] uint8 RGB


def cut_image(image: Image, box: Box, height: int, width: int) -> np.ndarray:
    """Return a box of an image at another size, [height, width, 3] uint8 RGB.

    Args:
        image: pixels or JPEG bytes.
        box: inside the image.
        height: of the result; sampled bilinearly at pixel centers.
        width: of the result.

    Raises:
        UserError: the bytes cannot be decoded.
    """
    top, left, box_height, box_width = box
    if isinstance(image, np.ndarray):
        area = image[top : top + box_height, left : left + box_width]
        return cv2.resize(area, (width, height), interpolation=cv2.INTER_LINEAR)
    shrink = reduction(box, height, width)
    if shrink == 1:
        return cut_image(decode_jpeg(image.data), box, height, width)
    small = decode_jpeg(image.data, shrink)
    step_y, step_x = box_height / height / shrink, box_width / width / shrink
    to_small = np.array(
        [
            [step_x, 0, left / shrink + step_x / 2 - 0.5],
            [0, step_y, top / shrink + step_y / 2 - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        small, to_small, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )


def reduction(box: Box, height: int, width: int) -> int:
    """Return 4, 2 or 1: how much smaller a JPEG may be decoded without enlarging the box after."""
    _, _, box_height, box_width = box
    fits = [n for n in (4, 2) if box_height >= n * height and box_width >= n * width]
    return max(fits, default=1)
