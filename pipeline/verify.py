"""Check files bit by bit: blocks and the index against checksums, metadata against a sealed copy.

What is bad is made 'not done', so that the next run makes it again; metadata is mended at once.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.blocks import read_block
from pipeline.files import sha256, write_atomically
from pipeline.lock import block_lock, store_lock
from pipeline.making import mend_metadata, seal_is_damaged
from pipeline.store import Store, open_store


def verify(path: Path, advance: Callable[[], None] = lambda: None) -> tuple[int, list[str]]:
    """Rehash every done block and delete the markers of bad ones, so that a rerun repairs them.

    Args:
        path: the store.
        advance: called after each block, for progress.

    Returns:
        Number of good blocks, and one line 'block 3: labels: ...' for each bad one.
    """
    store = open_store(path)
    good, bad = 0, []
    for block in range(store.num_blocks):
        if store.marker_path(block).exists():
            problem = _check(store, block)
            if problem:
                bad.append(f"block {block}: {problem}")
            else:
                good += 1
        advance()
    return good, bad


def verify_metadata(path: Path) -> list[str]:
    """Mend a store's metadata from its sealed copy and return a line per damaged file."""
    with store_lock(path):  # a store that is being grown differs from its seal for a moment
        bad = [f"{name}: differs from its sealed copy; mended" for name in mend_metadata(path)]
    if seal_is_damaged(path):
        bad.append("the sealed copy of the metadata is damaged; the next run writes it again")
    return bad


@contextlib.contextmanager
def sealed_index(path: Path) -> Iterator[None]:
    """Write the checksum of an index beside it, once the block that writes the index ends."""
    seal = path.with_suffix(".sha256")
    seal.unlink(missing_ok=True)  # first: a kill in between leaves an index that is not sealed
    yield
    write_atomically(seal, sha256(path.read_bytes()).encode())


def index_damage(path: Path) -> str | None:
    """Return a line where an index differs from the checksum beside it; None where all is well."""
    seal = path.with_suffix(".sha256")
    if not seal.exists():  # written before indexes were sealed
        return None
    if path.is_file() and seal.read_bytes() == sha256(path.read_bytes()).encode():
        return None
    return f"{path}: differs from its checksum {seal.name}"


def _check(store: Store, block: int) -> str | None:
    """Return what is wrong with a block, its marker then removed; a block at work is left alone."""
    problem = read_block(store, block)[1]
    if problem is None:
        return None
    with block_lock(store.path, block) as held:
        if not held:
            return f"{problem}; another command is writing it"
        if problem := read_block(open_store(store.path), block)[1]:
            store.marker_path(block).unlink(missing_ok=True)
        return problem
