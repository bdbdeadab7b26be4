"""What benchmarks run on: the real nuScenes keyframe where it is there, else the made-up city."""

import os
from pathlib import Path

from pipeline.synthetic import write

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SELKIE_DATA", ROOT.parent / "shared" / "data"))
NUSCENES_COLUMNS = 1084  # 32 rings of 1084 rays: the 34,688 points of a nuScenes scan


def nuscenes_root(folder: Path) -> tuple[Path, str]:
    """Return a folder in nuScenes format and the data set's name; `folder` may be written to."""
    real = DATA / "nuscenes"
    if (real / "v1.0-mini").is_dir():
        return real, "nuscenes"
    write.synthesize(folder / "city", "tiny", 0)
    return folder / "city", "synthetic"
