import hashlib

from pipeline.files import sha256, sha256_file


def test_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    data = bytes(range(256)) * 5000  # more than one read
    path = tmp_path / "data.bin"
    path.write_bytes(data)
    assert sha256_file(path) == sha256(data) == hashlib.sha256(data).hexdigest()
    path.write_bytes(data[:-1])
    assert sha256_file(path) != sha256(data)
