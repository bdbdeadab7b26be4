"""The superpixel sources of a data set side by side on one image."""

from dataclasses import dataclass

import numpy as np
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from eval.view import render
from pipeline.errors import UserError
from pipeline.image import decode_jpeg
from train.stores import StorePaths, Stores

GOLDEN = 0.618033988749895  # hues that far apart never come close to each other


@dataclass(frozen=True)
class SourceView:
    """One image under one source's superpixels."""

    name: str
    image: np.ndarray  # [h, w, 3] uint8 RGB
    ids: np.ndarray  # [h, w], 0 = none


def read_sources(stores: Stores, row: int) -> list[SourceView]:
    """Return the first camera's image of a frame under every source that has this frame.

    Args:
        stores: of the data set; sources are found in its folder.
        row: frame.
    """
    frames, views = stores.store("frames"), []
    if not stores.index.cameras:
        return []
    lengths = frames.read("jpeg_bytes", row)
    slots = np.flatnonzero(lengths)
    if not len(slots):
        return []
    slot = int(slots[0])
    image = decode_jpeg(frames.read("jpeg", row, slot, slice(0, int(lengths[slot]))))
    for path in sorted(stores.paths.folder.glob("superpixels-*.zarr")):
        source = path.stem.removeprefix("superpixels-")
        opened = Stores(StorePaths(stores.paths.folder, source))
        try:
            if opened.left_out(np.array([row]), ("superpixels",)):
                continue
        except UserError:  # its block is not made yet
            continue
        ids = opened.store("superpixels").read("ids", row, slot)
        views.append(SourceView(source, image, ids[: image.shape[0], : image.shape[1]]))
    return views


def sources_page(views: list[SourceView]) -> bytes:
    """Return a PNG: the image alone, then under each source, with the number of superpixels."""
    panels = [("image", views[0].image)]
    for view in views:
        count = len(np.unique(view.ids[view.ids > 0]))
        panels.append((f"{view.name}: {count} superpixels", _paint(view)))
    across = min(len(panels), 3)
    rows = -(-len(panels) // across)
    aspect = views[0].image.shape[0] / views[0].image.shape[1]
    figure = Figure(figsize=(12, rows * (12 / across * aspect + 0.4)), dpi=90, layout="constrained")
    axes = figure.subplots(rows, across, squeeze=False).ravel()
    for place in axes:
        place.set_axis_off()
    for place, (name, image) in zip(axes, panels, strict=False):
        place.imshow(image)
        place.set_title(name, fontsize=10)
    return render(figure)


def _paint(view: SourceView) -> np.ndarray:
    """Return the image with superpixels blended in and bright where the id changes."""
    number = np.arange(int(view.ids.max(initial=0)) + 1)
    hsv = np.stack([number * GOLDEN % 1, 0.7 + 0 * number, 0.95 + 0 * number], axis=1)
    colors = 255 * hsv_to_rgb(hsv)
    painted = np.where(
        (view.ids > 0)[..., None], 0.6 * view.image + 0.4 * colors[view.ids], view.image
    )
    border = np.zeros(view.ids.shape, bool)
    border[:, 1:] |= view.ids[:, 1:] != view.ids[:, :-1]
    border[1:] |= view.ids[1:] != view.ids[:-1]
    painted[border] = (255, 255, 90)
    return painted.astype(np.uint8)
