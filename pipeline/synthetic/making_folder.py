"""The hidden folder in which a city is made: locked while its maker lives, removed after a kill."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

YOUNG_S = 10.0  # a folder this new may be about to be locked by who made it


@contextlib.contextmanager
def making_folder(root: Path) -> Iterator[Path]:
    """Yield a new folder beside `root`, to be renamed to it; what is left of it is removed after.

    Args:
        root: folder to make; its parent exists.
    """
    _remove_abandoned(root)
    partial = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}.", suffix=".partial"))
    claim = os.open(partial, os.O_RDONLY)
    fcntl.flock(claim, fcntl.LOCK_EX)  # let go of when this process ends, however it does
    try:
        yield partial
    finally:
        os.close(claim)
        shutil.rmtree(partial, ignore_errors=True)


def _remove_abandoned(root: Path) -> None:
    """Remove what killed commands left of making this city; nobody holds their lock any more."""
    for left in root.parent.glob(f".{root.name}.*.partial"):
        try:
            if time.time() - left.stat().st_mtime < YOUNG_S:
                continue
            handle = os.open(left, os.O_RDONLY)
        except OSError:  # another command was faster
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except OSError:  # being made now
            pass
        finally:
            os.close(handle)
