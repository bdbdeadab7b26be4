import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.pcd import read_pcd, read_pcd_header
from tests.pipeline.datasets.writers.folder import pcd_bytes

HEADER = (
    "VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 4\nHEIGHT 1\n"
    "VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 4\n"
)


def put(path, head, body=b""):
    path.write_bytes(head.encode() + body)
    return path


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_every_encoding_gives_the_same_points(tmp_path, encoding):
    rng = np.random.default_rng(0)
    points, ring = rng.normal(size=(50, 4)).astype(np.float32), np.arange(50) % 32
    (tmp_path / "a.pcd").write_bytes(pcd_bytes(points, ring, encoding))
    cloud = read_pcd(tmp_path / "a.pcd")
    np.testing.assert_array_equal(cloud.points, points)
    np.testing.assert_array_equal(cloud.ring, ring)
    assert read_pcd_header(tmp_path / "a.pcd").num_points == 50


def test_packed_fields_by_hand(tmp_path):
    # Four points (1, 0, 2), field by field: 1.0 is 00 00 80 3f, 2.0 is 00 00 00 40.
    packed = bytes(
        [3, 0, 0, 0x80, 0x3F]  # four literals: 1.0
        + [0xE0, 3, 3]  # a copy of 2 + 7 + 3 = 12 bytes from 3 + 1 back: three times more
        + [0, 0]  # one literal: 0
        + [0xE0, 6, 0]  # a copy of 15 bytes from 1 back: it runs into what it writes
        + [3, 0, 0, 0, 0x40]  # 2.0
        + [0x80, 3] * 2  # twice 2 + 4 = 6 bytes from 4 back
    )
    sizes = np.array([len(packed), 48], "<u4").tobytes()
    path = put(tmp_path / "a.pcd", HEADER + "DATA binary_compressed\n", sizes + packed)
    assert read_pcd(path).points.tolist() == [[1, 0, 2, 0]] * 4
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(
        UserError, match=r"must unpack to 48 bytes, got 48 announced and \d+ of \d+"
    ):
        read_pcd(path)
    astray = bytes([3, 0, 0, 0, 0, 0xE0, 3, 200])  # a copy from before the start
    sizes = np.array([len(astray), 48], "<u4").tobytes()
    put(path, HEADER + "DATA binary_compressed\n", sizes + astray)
    with pytest.raises(UserError, match="must unpack to 48 bytes, got -1"):
        read_pcd(path)


def test_padding_and_wide_fields_are_skipped(tmp_path):
    head = (
        "FIELDS x _ y z normal intensity\nSIZE 4 1 4 4 4 1\nTYPE F U F F F U\nCOUNT 1 3 1 1 2 1\n"
        "WIDTH 1\nHEIGHT 1\nPOINTS 1\nDATA "
    )
    kind = [("x", "<f4"), ("p", "V3"), ("y", "<f4"), ("z", "<f4"), ("n", "<f4", 2), ("i", "u1")]
    record = np.zeros(1, kind)
    record["x"], record["y"], record["z"], record["i"] = 1, 2, 3, 200
    binary = put(tmp_path / "b.pcd", head + "binary\n", record.tobytes())
    text = put(tmp_path / "a.pcd", head + "ascii\n", b"1 0 0 0 2 3 9 9 200\n")
    for path in (binary, text):
        assert read_pcd(path).points.tolist() == [[1, 2, 3, 200]]
        assert read_pcd(path).ring.tolist() == [255]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "must have a PCD header up to DATA, got b'hello'"),
        (b"FIELDS x y z\nDATA ascii\n", "must have a PCD header with FIELDS, SIZE, .*KeyError"),
        (HEADER.encode() + b"DATA zip\n", "DATA must be ascii, binary or .*got 'zip'"),
        (HEADER.encode() + b"DATA binary\n1234", "points must take 48 bytes .*got 4; .*cut short"),
        (HEADER.encode() + b"DATA ascii\n1 2 3\n", r"must hold 4 lines of numbers, got \[1, 3\]"),
        (HEADER.replace("x y z", "a b c").encode() + b"DATA binary\n" + bytes(48),
         "must have the fields x, y, z, got a, b, c"),
    ],
)  # fmt: skip
def test_broken_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.pcd").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_pcd(tmp_path / "a.pcd")


def test_rings_must_be_beam_numbers(tmp_path):
    points = np.ones((3, 4), np.float32)
    (tmp_path / "a.pcd").write_bytes(pcd_bytes(points, np.array([0, 1, 300]), "binary"))
    with pytest.raises(UserError, match=r"ring must be in 0..254, got 0..300"):
        read_pcd(tmp_path / "a.pcd")
