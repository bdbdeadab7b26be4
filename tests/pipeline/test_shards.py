import numpy as np
import pytest
import zarr
from zarr.codecs import ZstdCodec

from pipeline.shards import encode_block, file_of_shard, read_layout


def make_array(folder, shape, chunk, shard, dtype, fill):
    return zarr.create_array(
        folder, shape=shape, chunks=chunk, shards=shard, dtype=dtype, fill_value=fill,
        compressors=[ZstdCodec(level=3, checksum=True)], zarr_format=3,
        config={"write_empty_chunks": True},
    )  # fmt: skip


CASES = {
    "scalars": ((7,), (1,), (3,), "int64", -1),
    "cameras": ((7, 2, 6, 5), (1, 1, 6, 5), (3, 2, 6, 5), "uint16", 0),
    "a store that became wider": ((7, 2, 9, 5), (1, 1, 6, 5), (3, 2, 6, 5), "uint16", 9),
    "more cameras": ((7, 5, 4), (1, 1, 4), (3, 2, 4), "uint8", 255),
    "poses": ((4, 4, 4), (1, 4, 4), (3, 4, 4), "float64", float("nan")),
    "flags": ((4,), (1,), (3,), "bool", False),
}


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_zarr_reads_what_is_encoded_and_writes_files_of_the_same_size(tmp_path, case, block):
    shape, chunk, shard, dtype, fill = case
    theirs = make_array(tmp_path / "theirs", *case)
    ours = make_array(tmp_path / "ours", *case)
    rows = slice(block * 3, min(block * 3 + 3, shape[0]))
    count = rows.stop - rows.start
    values = np.random.default_rng(0).integers(0, 2, (count, *shape[1:])).astype(dtype)
    values[0] = fill  # an empty chunk is written too
    theirs[rows] = values
    layout = read_layout(tmp_path / "ours")
    for place, data in encode_block(values, layout).items():
        path = file_of_shard(tmp_path / "ours", block, place)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"".join(data))
    np.testing.assert_array_equal(ours[:], theirs[:])
    files = {
        name: {p.relative_to(tmp_path / name): p.stat().st_size
               for p in (tmp_path / name / "c").rglob("*") if p.is_file()}
        for name in ("ours", "theirs")
    }  # fmt: skip
    assert files["ours"] == files["theirs"]


def test_values_narrower_than_the_array_leave_the_rest_absent(tmp_path):
    case = (4, 3, 10), (1, 1, 4), (2, 2, 4), "uint16", 7
    array = make_array(tmp_path / "array", *case)
    values = np.ones((2, 2, 4), "uint16")
    layout = read_layout(tmp_path / "array")
    shards = encode_block(values, layout)
    assert list(shards) == [(0, 0)]
    assert layout.places() == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    path = file_of_shard(tmp_path / "array", 0, (0, 0))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(shards[0, 0]))
    expected = np.full((4, 3, 10), 7)
    expected[:2, :2, :4] = 1
    np.testing.assert_array_equal(array[:], expected)


@pytest.mark.parametrize("position", [3, -2])
def test_a_flipped_bit_in_a_chunk_or_in_the_index_raises(tmp_path, position):
    case = (3, 50), (1, 50), (3, 50), "uint16", 0
    array = make_array(tmp_path / "array", *case)
    layout = read_layout(tmp_path / "array")
    values = np.random.default_rng(0).integers(0, 60000, (3, 50)).astype("uint16")
    data = bytearray(b"".join(encode_block(values, layout)[0,]))
    data[position if position < 0 else 40] ^= 16
    path = file_of_shard(tmp_path / "array", 0, (0,))
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises((RuntimeError, ValueError)):
        array[:]
