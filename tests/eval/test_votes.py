import numpy as np
import pytest

from eval.votes import read_poses, vote
from pipeline.errors import UserError


def moved(x: float) -> np.ndarray:
    T = np.eye(4)
    T[0, 3] = x
    return T


def test_a_neighbor_moved_by_its_pose_outvotes_by_hand():
    """The ego drove 10 m: the point at x = 12 then is the point at x = 2 now."""
    points = [np.array([[2.0, 0, 0, 9], [8, 8, 0, 9]]), np.array([[12.0, 0, 0.1, 9]])]
    shares = [np.array([[0.6, 0.4], [0.7, 0.3]]), np.array([[0.1, 0.9]])]
    found = vote(points, shares, [moved(10.0), moved(0.0)], 0)
    assert found == pytest.approx(np.array([[0.7, 1.3], [0.7, 0.3]]))  # the second is too far off
    without = vote(points, shares, [np.eye(4)] * 2, 0)
    assert without == pytest.approx(shares[0])
    assert shares[0][0, 0] == 0.6  # nothing is changed in place


def test_votes_agree_with_a_plain_search():
    rng = np.random.default_rng(0)
    points = [rng.uniform(0, 3, (60, 4)) for _ in range(3)]
    shares = [rng.dirichlet((1, 1, 1), 60) for _ in range(3)]
    poses = [moved(v) for v in (0.0, 0.2, -0.1)]
    expected = shares[1].copy()
    for i, point in enumerate(points[1][:, :3]):
        for other in (0, 2):
            cloud = points[other][:, :3] + (poses[other] - poses[1])[:3, 3]
            distance = np.linalg.norm(cloud - point, axis=1)
            if distance.min() < 0.3:
                expected[i] += shares[other][distance.argmin()]
    assert vote(points, shares, poses, 1) == pytest.approx(expected)


def test_bad_input_gets_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match="must be as many, got 1, 2, 2"):
        vote([np.zeros((1, 4))], [np.ones((1, 2))] * 2, [np.eye(4)] * 2, 0)
    path = tmp_path / "poses.txt"
    with pytest.raises(UserError, match="poses must be a text file of 12 numbers a line"):
        read_poses(path, 1)
    path.write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    assert np.array_equal(read_poses(path, 1)[0], np.eye(4))
    with pytest.raises(UserError, match=r"must be 2 lines of 12 numbers, .* got \[1, 12\]"):
        read_poses(path, 2)
