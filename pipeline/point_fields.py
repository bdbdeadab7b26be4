"""Named columns of a point file (PCD, PLY) to a cloud: the names that recorders use.

In: columns by name, as a header gives them. Out: x, y, z, intensity and ring. A missing intensity
is 0, a missing ring 255; a missing coordinate is an error.
"""

from pathlib import Path

import numpy as np

from pipeline.errors import check
from pipeline.schema import NO_RING
from pipeline.types import PointCloud

INTENSITY = ("intensity", "i", "remission", "reflectivity", "scalar_intensity")
RING = ("ring", "channel", "scalar_ring")


def cloud_of_fields(path: Path, fields: np.ndarray) -> PointCloud:
    """Return the cloud of a structured array [N]; points without a return may be NaN.

    Args:
        path: for messages.
        fields: one record per point, names as in the file.

    Raises:
        UserError: x, y or z is missing, there is no point, or a ring outside 0..254.
    """
    names = {name.lower(): name for name in fields.dtype.names or ()}
    lacking = [axis for axis in "xyz" if axis not in names]
    check(
        not lacking,
        f"{path}: points must have the fields x, y, z, got {', '.join(names) or 'none'}; "
        "write them under these names",
    )
    check(len(fields) > 0, f"{path}: points must hold at least one record, got 0; write it again")
    points = np.zeros((len(fields), 4), np.float32)
    for column, axis in enumerate("xyz"):
        points[:, column] = fields[names[axis]]
    intensity = next((names[name] for name in INTENSITY if name in names), None)
    if intensity:
        points[:, 3] = fields[intensity]
    ring = np.full(len(fields), NO_RING, np.uint8)
    channel = next((names[name] for name in RING if name in names), None)
    if channel:
        values = fields[channel]
        check(
            bool(((values >= 0) & (values < NO_RING)).all()),
            f"{path}: ring must be in 0..254, got {values.min():g}..{values.max():g}; "
            "write the beam number, or leave the field out",
        )
        ring[:] = values
    return PointCloud(points, ring)
