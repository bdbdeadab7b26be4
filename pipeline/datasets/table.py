"""The table of data set layouts: name of a layout -> reader module.

A data set names its layout in its manifest, so several sets share one reader. Every reader has
`index(root, manifest, version)`, which returns frames or, where those are too many (nuScenes), the
rows of the index; `load_points`, `load_labels`, `load_image`; one whose recordings bring the pixels
of the points (Waymo) also has `load_pixels`, which then replaces the projection.
"""

from types import ModuleType

from pipeline.manifest import load_manifest
from pipeline.tables import Table

LAYOUTS = Table(
    kind="data set layout",
    modules={
        "nuscenes": "pipeline.datasets.nuscenes",
        "nuscenes_c": "pipeline.datasets.nuscenes_c",
        "semantickitti": "pipeline.datasets.semantickitti",
        "scans": "pipeline.datasets.scans",
        "semanticstf": "pipeline.datasets.semanticstf",
        "rellis3d": "pipeline.datasets.rellis3d",
        "waymo": "pipeline.datasets.waymo.reader",
        "folder": "pipeline.datasets.folder",
    },
    install={},
)


def load_reader(dataset: str) -> ModuleType:
    """Return the reader module of a data set.

    Raises:
        UserError: unknown data set, or a package that its reader needs is not installed.
    """
    return LAYOUTS.load(load_manifest(dataset).layout)
