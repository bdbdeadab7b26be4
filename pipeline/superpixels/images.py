"""Superpixels from PNG files: somebody else's masks, or the synthetic city's ground truth.

In: `<folder>/<camera token>.png`, one channel, 8 or 16 bit, native size, 0 = none. Out: those ids,
number for number, so that export after import gives the same files (unless large ones are cut).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UserError, check
from pipeline.image import decode_ids
from pipeline.regions import Segmentation, split_large
from pipeline.slic_regions import SlicConfig, slic_regions
from pipeline.types import Camera

VERSION = 1
MAX_CATEGORIES = 0
MACHINE_FIELDS = ("folder",)  # where the files lie may change; what they hold may not


@dataclass(frozen=True)
class Config:
    """Where the files are; a fact of the import, so it has no default that works."""

    folder: str = ""  # folder of the PNG files; `oracle` is <root>/oracle
    split_above: float = 0.0  # share of the image above which SLIC cuts a segment; 0 = never


@dataclass(frozen=True)
class Images:
    """The loaded source."""

    folder: Path
    split_above: float

    def segment(self, image_rgb: np.ndarray, camera: Camera) -> Segmentation:
        """Return the ids of this camera's file.

        Args:
            image_rgb: [H, W, 3] uint8, only to cut large segments.
            camera: its token names the file, its native size is the one expected.

        Raises:
            UserError: the file is missing or damaged, has colors, or has another size.
        """
        path = self.folder / f"{camera.token}.png"
        where = f"{camera.name}/{camera.token}"
        if not path.is_file():
            raise UserError(
                f"{where}: superpixels must be in {path}, got no such file; "
                f"export one PNG per image, named by camera token"
            )
        ids = decode_ids(path)
        expected = (camera.height, camera.width)
        check(
            ids.shape == expected and ids.dtype in (np.uint8, np.uint16),
            f"{where}: superpixels must be uint8 or uint16 {list(expected)}, "
            f"got {ids.dtype} {list(ids.shape)} in {path}; "
            f"save one gray channel (no palette, no RGB) at native image size",
        )
        ids = ids.astype(np.uint16)
        if self.split_above:
            ids = split_large(ids, slic_regions(image_rgb, SlicConfig()), self.split_above)
        return Segmentation(ids)


def check_config(config: Config) -> None:
    """Check the folder before a store is made for it.

    Raises:
        UserError: no folder given, or no such folder.
    """
    check(bool(config.folder), "superpixels 'images': folder must be set; add --set folder=PATH")
    folder = Path(config.folder).expanduser()
    check(folder.is_dir(), f"superpixels: folder must exist, got {folder}; check --set folder=PATH")


def load(config: Config, device: str) -> Images:
    """Return the source of a folder; errors as `check_config`."""
    check_config(config)
    return Images(Path(config.folder).expanduser(), config.split_above)
