"""Make, grow, mend and remove Zarr stores; every other module only opens what stands here.

A store of other settings is refused, never mixed. A store that frames were added to is lengthened,
and widened where a scan or an image is larger than all before: shards keep their first size, so
what is done stays done, and the larger frames take a second shard beside the first. A sealed copy
of the metadata lies beside the markers, because a flipped bit in zarr.json may still be JSON.
"""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import ZstdCodec

from pipeline.config import differences
from pipeline.errors import UserError, check
from pipeline.files import write_atomically
from pipeline.lock import StoreLock, store_lock
from pipeline.marker import checked_json, marker_folder, read_checked
from pipeline.schema import ArraySpec, Capacity
from pipeline.store import Header, Store, open_store

COMPRESSION_LEVEL = 3  # zstd: 6 images of ids at 1600x900 in 0.1 s; level 9 takes 5x for 8 % less


def open_or_create(
    path: Path,
    header: Header,
    arrays: Sequence[ArraySpec],
    attributes: dict[str, Any],
    rebuild: bool = False,
) -> Store:
    """Open the store of this header, making it where it is missing, growing it where frames came.

    Args:
        path: `<stores>/<dataset>/<name>.zarr`.
        header: what the store must be; a store that stands keeps its own frames per block.
        arrays: its arrays, of the sizes of the header.
        attributes: further attributes for readers (classes, label map, camera names).
        rebuild: replace a store of another header, or a damaged one, instead of refusing it.

    Raises:
        UserError: a store of another header stands there; says what differs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with store_lock(path) as lock:
        _clean(path)
        if path.exists():
            try:
                mend_metadata(path)
                opened = open_store(path)
                _check_same(opened, header, attributes)
                for spec in arrays:
                    if (path / spec.name).exists():  # damaged metadata counts as another store
                        opened.array(spec.name)
            except UserError:
                if not rebuild:
                    raise
                _remove(path, lock)
        if not path.exists():
            _create(path, header, arrays, attributes)
        elif not _has_room(open_store(path), header, arrays):
            _grow(path, header, arrays, attributes)
        _seal(path)
        return open_store(path)


def open_same(
    path: Path, header: Header, attributes: dict[str, Any], rebuild: bool
) -> Store | None:
    """Return the store of this header as it would be after growing, None where it would be made.

    For plans: nothing on disk is touched. Errors as `open_or_create`.
    """
    if not path.exists():
        return None
    try:
        store = open_store(path)
        _check_same(store, header, attributes)
    except UserError:
        if not rebuild:
            raise
        return None
    capacity = larger(store.header.capacity, header.capacity)
    store.header = replace(store.header, capacity=capacity)
    return store


def remove_store(path: Path) -> None:
    """Remove a store and its markers; these go first, so that a kill leaves nothing 'done'.

    Raises:
        UserError: another command is writing to it.
    """
    with store_lock(path) as lock:
        _remove(path, lock)


def mend_metadata(path: Path) -> list[str]:
    """Write damaged zarr.json files again from their sealed copy and return their names."""
    sealed = read_checked(_seal_path(path))
    if sealed is None:
        return []
    damaged = [name for name, text in sealed.items() if _text(path / name) != text]
    for name in damaged:
        write_atomically(path / name, sealed[name].encode())
    return damaged


def seal_is_damaged(path: Path) -> bool:
    """Return whether the sealed copy of the metadata stands and cannot be read."""
    return _seal_path(path).exists() and read_checked(_seal_path(path)) is None


def larger(first: Capacity, second: Capacity) -> Capacity:
    """Return the larger of both in every size."""
    both = zip(asdict(first).values(), asdict(second).values(), strict=True)
    return Capacity(*(max(pair) for pair in both))


def _check_same(store: Store, header: Header, attributes: dict[str, Any]) -> None:
    """Refuse a store of another header or attributes; sizes may be smaller, the store grows."""
    num_stored, num_frames = store.header.capacity.num_frames, header.capacity.num_frames
    check(
        num_stored <= num_frames,
        f"{store.path}: must have no more frames than the index's {num_frames}, got {num_stored}; "
        "run 'make index', or where recordings were removed, make it again with ARGS=--rebuild",
    )
    wanted = _plain(replace(header, capacity=store.header.capacity))
    wanted["capacity"]["num_cameras"] = header.capacity.num_cameras
    changes = differences(_plain(store.header), wanted) + differences(
        store.attributes, _plain(attributes), "attributes"
    )
    # the hash follows the config; scenes come with growth; the id is the store's own
    passed = ("config_hash", "frames_per_block", "attributes.scenes", "attributes.store_id")
    changes = [line for line in changes if not line.startswith(passed)]
    if changes:
        raise UserError(
            f"{store.path}: was made with other settings ({'; '.join(changes[:4])}); "
            "use those, or make it again with ARGS=--rebuild"
        )


def _clean(path: Path) -> None:
    """Remove what a killed command left of making or removing this store; nobody else is at it."""
    for kind in ("new", "removed"):
        for left in path.parent.glob(f".{path.name}.{kind}-*"):
            shutil.rmtree(left, ignore_errors=True)


def _remove(path: Path, lock: StoreLock) -> None:
    check(
        lock.claim_blocks(),
        f"{path}: must be at rest to be removed, got another command writing to it; stop that one",
    )
    shutil.rmtree(marker_folder(path), ignore_errors=True)
    trash = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.removed-"))
    os.replace(path, trash / path.name)
    shutil.rmtree(trash)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(asdict(value) if isinstance(value, Header) else value))


def _create(path: Path, header: Header, arrays: Sequence[ArraySpec], attributes: dict) -> None:
    """Make the store in a temporary folder and rename it; a race's loser keeps the winner's."""
    # markers without a store belong to one that was removed by hand: they say 'done' of nothing
    shutil.rmtree(marker_folder(path), ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.new-"))
    try:
        group = zarr.create_group(folder / path.name, zarr_format=3)
        for spec in arrays:
            _create_array(group, spec, header)
        identity = {"store_id": uuid.uuid4().hex}  # a rebuilt store is another one
        group.attrs.update({"header": _plain(header), **_plain(attributes), **identity})
        try:
            os.rename(folder / path.name, path)
        except OSError:  # without locks another command may have been first
            if not path.exists():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _create_array(group: zarr.Group, spec: ArraySpec, header: Header) -> None:
    group.create_array(
        spec.name,
        shape=(header.capacity.num_frames, *spec.frame_shape),
        chunks=(1, *spec.chunk),
        shards=(header.frames_per_block, *spec.frame_shape),
        dtype=spec.dtype,
        fill_value=spec.fill,
        compressors=[ZstdCodec(level=COMPRESSION_LEVEL, checksum=True)],
    )


def _has_room(store: Store, header: Header, arrays: Sequence[ArraySpec]) -> bool:
    found = store.header.capacity
    has_arrays = all((store.path / spec.name).exists() for spec in arrays)
    return has_arrays and larger(found, header.capacity) == found


def _grow(
    path: Path, header: Header, arrays: Sequence[ArraySpec], attributes: dict[str, Any]
) -> None:
    """Lengthen and widen every array to the index's sizes; old rows keep their numbers and data.

    An array that the old frames did not need (instance ids that came with new scenes) is added; its
    old rows read as nothing, which is what they hold. The header goes last: a kill repeats this.
    """
    store = open_store(path)
    group = zarr.open_group(path, mode="r+", zarr_format=3)
    capacity = larger(store.header.capacity, header.capacity)
    header = replace(store.header, capacity=capacity)
    for spec in arrays:
        if spec.name not in group:
            _create_array(group, spec, header)
            continue
        array = group[spec.name]
        sides = zip(array.shape[1:], spec.frame_shape, strict=True)
        array.resize((capacity.num_frames, *(max(pair) for pair in sides)))
    group.attrs.update({"header": _plain(header), **_plain(attributes)})


def _seal_path(path: Path) -> Path:
    return marker_folder(path) / "metadata.json"


def _seal(path: Path) -> None:
    """Copy the metadata beside the markers, where the copy there is another one."""
    files = {
        str(p.relative_to(path)): p.read_text()
        for p in sorted([path / "zarr.json", *path.glob("*/zarr.json")])
    }
    if read_checked(_seal_path(path)) != files:
        write_atomically(_seal_path(path), checked_json(files))


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
