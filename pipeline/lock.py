"""Locks of a store: one process at a time writes a block, and nobody waits for a dead one.

Byte k of `<store>.lock` stands for block k, one more byte for the store as a whole. These are POSIX
record locks: the kernel drops them when their process dies, however it dies, and NFS, Lustre, GPFS
and CephFS pass them between machines. The file is never removed: a lock on a removed file excludes
nobody. They belong to a process, so two threads of one do not exclude each other.
"""

import contextlib
import errno
import fcntl
import functools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_STORE = 2**40  # byte of the store as a whole, above every block
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class StoreLock:
    """The lock of a whole store, held while it is made, grown or removed."""

    path: Path
    handle: int

    def claim_blocks(self) -> bool:
        """Return whether no block is being written; then none can be until this lock is let go."""
        return _claim(self.path, self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, _STORE)


@contextlib.contextmanager
def store_lock(path: Path) -> Iterator[StoreLock]:
    """Hold the lock of the store at `path`, waiting for whoever makes, grows or removes it."""
    with _open(path) as handle:
        _claim(path, handle, fcntl.LOCK_EX, _STORE, 1)
        yield StoreLock(path, handle)


@contextlib.contextmanager
def block_lock(path: Path, block: int) -> Iterator[bool]:
    """Yield whether this process holds the block now; False where another one computes it."""
    with _open(path) as handle:
        yield _claim(path, handle, fcntl.LOCK_EX | fcntl.LOCK_NB, block, 1)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    name = path.with_name(path.name.removesuffix(".zarr") + ".lock")
    handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield handle
    finally:
        os.close(handle)  # lets go of every lock


def _claim(path: Path, handle: int, how: int, start: int, length: int) -> bool:
    try:
        fcntl.lockf(handle, how, length, start)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in _UNSUPPORTED:
            raise
        _warn(path.parent)
    return True


@functools.cache
def _warn(folder: Path) -> None:
    print(
        f"{folder}: this file system has no locks; do not run two commands on one store at once",
        file=sys.stderr,
    )
