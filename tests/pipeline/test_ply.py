import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.ply import read_ply, read_ply_header
from tests.pipeline.datasets.writers.folder import ply_bytes


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_every_encoding_gives_the_same_points(tmp_path, encoding):
    points = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    (tmp_path / "a.ply").write_bytes(ply_bytes(points, encoding))
    cloud = read_ply(tmp_path / "a.ply")
    np.testing.assert_array_equal(cloud.points, points)
    assert cloud.points.dtype == np.float32 and (cloud.ring == 255).all()
    assert read_ply_header(tmp_path / "a.ply").num_points == 50


def test_other_properties_by_hand(tmp_path):
    head = (
        "ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty double x\n"
        "property uchar red\nproperty float y\nproperty float z\nproperty uchar channel\n"
        "property short scalar_Intensity\nend_header\n"
    )
    kind = [("x", "<f8"), ("r", "u1"), ("y", "<f4"), ("z", "<f4"), ("c", "u1"), ("i", "<i2")]
    body = np.array([(1.5, 9, 2, 3, 7, 40)], kind).tobytes()
    (tmp_path / "a.ply").write_bytes(head.encode() + body)
    cloud = read_ply(tmp_path / "a.ply")
    assert cloud.points.tolist() == [[1.5, 2, 3, 40]] and cloud.ring.tolist() == [7]


HEAD = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hello", "must have a PLY header, got b'hello'"),
        (HEAD + "end_header\n1 2\n3 4\n", "must have the fields x, y, z, got x, y"),
        (HEAD + "property float z\nend_header\n1 2 3\n", "must hold 2 lines of numbers, got 1"),
        (HEAD + "property list uchar int z\nend_header\n", "must be ascii or binary with plain v"),
        (HEAD.replace("vertex", "face") + "end_header\n", "got ValueError first element 'face'"),
        (HEAD.replace("ascii", "binary_little_endian") + "end_header\n123",
         "vertices must take 16 bytes after the header, got 3; the file is cut short"),
    ],
)  # fmt: skip
def test_broken_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.ply").write_text(content)
    with pytest.raises(UserError, match=message):
        read_ply(tmp_path / "a.ply")
