"""What a store is, in lines for a terminal: schema, provenance, sizes, compression."""

import math
from collections import Counter
from pathlib import Path

import numpy as np

from pipeline.marker import read_marker
from pipeline.plan import show_bytes
from pipeline.progress import duration
from pipeline.store import Store, open_store


def describe_store(path: Path) -> list[str]:
    """Return the lines of `inspect`.

    Raises:
        UserError: there is no readable store.
    """
    store = open_store(path)
    header = store.header
    markers = [read_marker(store.marker_path(block)) for block in range(store.num_blocks)]
    done = [marker for marker in markers if marker is not None]
    frames = sum(marker["num_frames"] for marker in done)
    seconds = sum(marker["seconds"] for marker in done)
    lost = [q for marker in done for q in marker["quarantined"]]
    commits = Counter(marker["commit"] or "unknown" for marker in done)
    made_by = ", ".join(f"{n} blocks at commit {c}" for c, n in commits.most_common())
    config = ", ".join(f"{key}={value}" for key, value in header.config.items())
    capacity = ", ".join(f"{key} {value}" for key, value in vars(header.capacity).items())
    return [
        f"store        {path}",
        f"stage        {header.stage} of {header.dataset}, version {header.stage_version}, schema "
        f"{header.schema_version}",
        f"id           {store.attributes['store_id']}",
        f"config       {header.config_hash}: {config or 'no settings'}",
        f"made by      {made_by or 'nobody yet'}",
        f"capacity     {capacity}",
        f"blocks       {len(done)} of {store.num_blocks} done, {header.frames_per_block} frames "
        f"each; {len(lost)} frames quarantined",
        *(f"quarantined  {q['frame_id']}: {q['reason']}" for q in lost),
        f"computed     {frames} frames in {duration(seconds)} of one worker"
        + (f", {frames / seconds:.3g} frames/s" if seconds else ""),
        *_describe_arrays(store, done),
    ]


def _describe_arrays(store: Store, done: list[dict]) -> list[str]:
    """Return a line per array: what it is, and what its done blocks hold raw and on disk."""
    lines, total_raw, total_stored = [], 0, 0
    for name in sorted(store.group.array_keys()):
        array = store.array(name)
        frame_bytes = math.prod(array.shape[1:]) * np.dtype(array.dtype).itemsize
        raw = frame_bytes * sum(m["num_frames"] for m in done if name in m["bytes"])
        stored = sum(m["bytes"].get(name, 0) for m in done)
        total_raw, total_stored = total_raw + raw, total_stored + stored
        codec = ", ".join(type(c).__name__.removesuffix("Codec").lower() for c in array.compressors)
        lines.append(
            f"{name:<12} {array.dtype} {list(array.shape)}, chunk {list(array.chunks)}, shard "
            f"{list(array.shards)}, {codec}: {_ratio(raw, stored)}"
        )
    return [*lines, f"all arrays   {_ratio(total_raw, total_stored)}"]


def _ratio(raw: int, stored: int) -> str:
    ratio = f", {raw / stored:.3g} times smaller" if stored else ""
    return f"{show_bytes(raw)} raw, {show_bytes(stored)} on disk{ratio}"
