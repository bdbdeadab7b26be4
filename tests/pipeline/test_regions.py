import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.regions import (
    clean,
    drop_small,
    fill_uncovered,
    split_large,
)


def test_a_large_segment_is_cut_and_a_small_one_kept_by_hand():
    ids = np.array([[7, 7, 7, 7, 7, 7, 0, 9]] * 4, np.uint16)
    regions = np.array([[1, 1, 2, 2, 3, 3, 4, 4]] * 4, np.uint16)
    expected = [[1, 1, 2, 2, 3, 3, 0, 4]] * 4
    assert split_large(ids, regions, 0.5).tolist() == expected
    assert split_large(ids, regions, 0.8).tolist() == [[1, 1, 1, 1, 1, 1, 0, 2]] * 4


def test_slivers_stay_with_the_rest_of_their_segment():
    ids = np.ones((6, 20), np.uint16)
    regions = np.repeat([[1] * 9 + [2] * 10 + [3]], 6, 0).astype(np.uint16)
    regions[0, 0] = 4  # one pixel, and the column of 3: less than a quarter of 30 pixels
    found = split_large(ids, regions, 0.1)
    assert found.tolist() == np.where(regions == 1, 2, np.where(regions == 2, 3, 1)).tolist()


@given(
    arrays(np.uint16, (6, 8), elements=st.integers(0, 3)),
    arrays(np.uint16, (6, 8), elements=st.integers(1, 4)),
    st.floats(0, 1),
)
def test_pieces_lie_inside_their_segment_and_ids_have_no_gaps(ids, regions, largest):
    found = split_large(ids, regions, largest)
    assert ((found == 0) == (ids == 0)).all()
    pieces = np.unique(np.stack([found.ravel(), ids.ravel()]), axis=1)
    assert len(np.unique(found)) == pieces.shape[1]  # each piece has one segment
    present = np.unique(found[found > 0])
    assert present.tolist() == list(range(1, len(present) + 1))


def test_clean_up_by_hand():
    ids = np.array([[1, 1, 0, 3], [1, 0, 0, 3], [0, 0, 2, 3]], np.uint16)
    image = np.zeros((3, 4, 3), np.uint8)
    assert clean(ids, image) is ids  # nothing by default
    assert drop_small(ids, 3).tolist() == [[1, 1, 0, 2], [1, 0, 0, 2], [0, 0, 0, 2]]
    filled = clean(ids, image, drop_below=3, fill=True)
    assert set(np.unique(filled)) == {1, 2} and (filled[:, 3] == 2).all()
    assert (filled[:, 0] == 1).all()


def test_filling_takes_the_nearest_segment():
    ids = np.zeros((1, 9), np.uint16)
    ids[0, 0], ids[0, 8] = 7, 4
    found = fill_uncovered(ids)[0].tolist()
    assert found[:4] == [7] * 4 and found[5:] == [4] * 4
    assert fill_uncovered(np.zeros((2, 2), np.uint16)).tolist() == [[0, 0], [0, 0]]


def test_dropping_renumbers_in_order_and_keeps_pixels():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 40, (30, 30)).astype(np.uint16)
    found = drop_small(ids, 20)
    stays = np.bincount(ids.ravel())[ids] >= 20
    assert ((found > 0) == (stays & (ids > 0))).all()
    assert list(np.unique(found)) == list(range(found.max() + 1))
    pairs = {(int(a), int(b)) for a, b in zip(ids[found > 0], found[found > 0], strict=True)}
    assert sorted(pairs) == sorted(pairs, key=lambda pair: pair[1])
