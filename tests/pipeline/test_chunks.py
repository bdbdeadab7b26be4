"""The short way to a chunk reads what zarr reads, and leaves to zarr what it does not know."""

import numpy as np
import pytest
import zarr
from zarr.codecs import GzipCodec, ZstdCodec

from pipeline.chunks import ChunkReader

FRAMES, BLOCK = 7, 3


def make(path, frame_shape, chunk, dtype="int32", **other):
    options = {
        "chunks": (1, *chunk),
        "shards": (BLOCK, *frame_shape),
        "compressors": [ZstdCodec(level=3, checksum=True)],
        "config": {"write_empty_chunks": True},
    }
    array = zarr.create_array(
        path, shape=(FRAMES, *frame_shape), dtype=dtype, fill_value=1, **(options | other)
    )
    content = np.arange(np.prod(array.shape)).reshape(array.shape).astype(dtype)
    array[:] = content
    return array, content


def reader(path, array):
    return ChunkReader(path, array.metadata.to_dict())


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float64", "bool"])
@pytest.mark.parametrize(
    ("frame_shape", "chunk"),
    [((), ()), ((5,), (5,)), ((6,), (2,)), ((4, 3), (1, 3)), ((2, 3, 2), (2, 3, 2))],
)
def test_equals_what_zarr_reads(tmp_path, dtype, frame_shape, chunk):
    array, content = make(tmp_path / "a", frame_shape, chunk, dtype)
    mine = reader(tmp_path / "a", array)
    for row in range(FRAMES):
        whole = mine.read(row, None)
        assert whole.dtype == array.dtype
        np.testing.assert_array_equal(whole, content[row])
        for part in range(mine.num_parts):
            width = chunk[0] if chunk else 0
            expected = content[row][part * width : (part + 1) * width] if chunk else content[row]
            np.testing.assert_array_equal(mine.read(row, part), expected)


def test_what_was_read_may_be_changed(tmp_path):
    array, content = make(tmp_path / "a", (5,), (5,))
    mine = reader(tmp_path / "a", array)
    mine.read(2, None)[:] = 0
    np.testing.assert_array_equal(mine.read(2, None), content[2])


def test_a_shard_written_again_is_read_again(tmp_path):
    array, _ = make(tmp_path / "a", (4, 3), (1, 3))
    mine = reader(tmp_path / "a", array)
    mine.read(0, 1)
    array[0:BLOCK] = np.arange(BLOCK * 12).reshape(BLOCK, 4, 3) ** 2
    assert mine.read(0, 1).tolist() == [[9, 16, 25]]


def test_a_chunk_that_was_never_written_is_left_to_zarr(tmp_path):
    array, _ = make(tmp_path / "a", (4, 3), (1, 3), config={"write_empty_chunks": False})
    array[0:BLOCK] = np.full((BLOCK, 4, 3), 1)
    array[1, 0] = [1, 2, 3]
    mine = reader(tmp_path / "a", array)
    assert mine.read(1, 0).tolist() == [[1, 2, 3]]
    assert mine.read(1, 1) is None and mine.read(0, None) is None


def test_a_flipped_bit_is_seen_wherever_it_is(tmp_path):
    array, _ = make(tmp_path / "a", (50,), (50,), "float64")
    path = tmp_path / "a" / "c" / "0" / "0"
    good = path.read_bytes()
    seen = 0
    for place in range(0, len(good), 37):
        bad = bytearray(good)
        bad[place] ^= 4
        path.write_bytes(bad)
        mine = reader(tmp_path / "a", array)
        try:
            for row in range(BLOCK):
                mine.read(row, None)
        except (RuntimeError, OSError):
            seen += 1
    assert seen == len(range(0, len(good), 37))
    path.write_bytes(good[:-10])
    with pytest.raises((RuntimeError, OSError)):
        reader(tmp_path / "a", array).read(0, None)
    path.unlink()
    with pytest.raises(OSError):
        reader(tmp_path / "a", array).read(0, None)


def test_knows_what_it_does_not_know(tmp_path):
    known, _ = make(tmp_path / "a", (4,), (4,))
    assert ChunkReader.fits(known.metadata.to_dict())
    gzip, _ = make(tmp_path / "b", (4,), (4,), compressors=[GzipCodec()])
    bare, _ = make(tmp_path / "c", (4,), (4,), shards=None)
    known.resize((FRAMES, 6))  # grew sideways
    for other in (gzip, bare, known):
        assert not ChunkReader.fits(other.metadata.to_dict())
