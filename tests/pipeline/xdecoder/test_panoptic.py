import numpy as np
import torch

from pipeline.xdecoder.panoptic import NO_OBJECT, Kept, Panoptic, keep_queries, merge

YES, NO = 5.0, -5.0  # mask logits
CAR, ROAD, SKY = 2, 100, 119


def _kept(scores, labels):
    return Kept(torch.arange(len(scores)), torch.tensor(scores), torch.tensor(labels))


def _masks(*rows):
    return [torch.tensor([row]) for row in rows]


def test_kept_are_objects_above_the_threshold():
    logits = torch.full((4, NO_OBJECT + 1), -9.0)
    logits[0, CAR] = 9.0
    logits[1, NO_OBJECT] = 9.0  # sure to be nothing
    logits[2, CAR] = logits[2, ROAD] = 9.0  # one half each
    logits[3, ROAD] = 9.0
    assert keep_queries(logits, 0.4, None).query_idx.tolist() == [0, 2, 3]
    kept = keep_queries(logits, 0.6, None)
    assert kept.query_idx.tolist() == [0, 3]
    assert kept.labels.tolist() == [CAR, ROAD]
    assert (kept.scores > 0.99).all()


def test_with_temperature_the_sigmoid_keeps_and_the_softmax_scores():
    logits = torch.full((2, NO_OBJECT), -20.0)
    logits[0, CAR] = 0.0  # sigmoid 0.5
    logits[1, CAR] = -2.0  # sigmoid 0.12
    kept = keep_queries(logits, 0.25, 0.1)
    assert kept.query_idx.tolist() == [0]
    want = np.exp(5.0) / (np.exp(5.0) + NO_OBJECT - 1)  # 0.5 / 0.1 against zeros
    np.testing.assert_allclose(kept.scores.item(), want, rtol=1e-4)


def test_things_apart_stuff_together_rest_is_none():
    masks = _masks(
        [YES, YES, NO, NO, NO, NO, NO],
        [NO, NO, YES, NO, NO, NO, NO],
        [NO, NO, NO, YES, NO, NO, NO],
        [NO, NO, NO, NO, YES, YES, NO],
    )
    kept = _kept([0.9] * 4, [ROAD, CAR, CAR, ROAD])
    found = merge(kept, masks, (1, 7), 0.8)
    assert found.ids.tolist() == [[1, 1, 2, 3, 1, 1, 0]]
    assert found.category.tolist() == [-1, ROAD, CAR, CAR]
    assert found.ids.dtype == np.uint16 and found.category.dtype == np.int16


def test_a_hidden_mask_is_dropped_and_leaves_a_hole():
    masks = _masks([YES, YES, YES, YES], [YES, YES, NO, NO])
    found = merge(_kept([0.5, 0.9], [ROAD, CAR]), masks, (1, 4), 0.8)
    # the road keeps 2 of its 4 pixels, below 0.8: it goes, and its pixels are nobody's
    assert found.ids.tolist() == [[1, 1, 0, 0]]
    assert found.category.tolist() == [-1, CAR]
    found = merge(_kept([0.5, 0.9], [ROAD, CAR]), masks, (1, 4), 0.5)
    assert found.ids.tolist() == [[2, 2, 1, 1]]


def test_the_first_of_equals_wins_and_nothing_is_fine():
    masks = _masks([YES, YES], [YES, YES])
    assert merge(_kept([0.9, 0.9], [CAR, SKY]), masks, (1, 2), 0.8).category.tolist() == [-1, CAR]
    empty = merge(_kept([], []), [], (1, 2), 0.8)
    assert empty.ids.tolist() == [[0, 0]] and empty.category.tolist() == [-1]


def merge_slowly(scores, labels, masks, overlap_threshold) -> Panoptic:
    """The fact sheet's rule with all masks at once, pixel sets as numpy masks."""
    chances = 1 / (1 + np.exp(-masks.astype(np.float64)))
    owner = np.argmax(scores[:, None, None] * chances, axis=0)
    ids, category, stuff = np.zeros(masks.shape[1:], np.uint16), [-1], {}
    for k in range(len(scores)):
        own, inside = owner == k, chances[k] >= 0.5
        if not own.any() or not inside.any() or not (own & inside).any():
            continue
        if own.sum() / inside.sum() < overlap_threshold:
            continue
        if labels[k] >= 80 and labels[k] in stuff:
            ids[own & inside] = stuff[labels[k]]
            continue
        category.append(labels[k])
        ids[own & inside] = stuff[labels[k]] = len(category) - 1
    return Panoptic(ids, np.array(category, np.int16))


def test_equals_the_slow_twin():
    rng = np.random.default_rng(0)
    dropped = 0
    for _ in range(20):
        count = int(rng.integers(1, 12))
        coarse = rng.normal(0, 4, (count, 3, 4))
        masks = coarse.repeat(4, 1).repeat(4, 2) + rng.normal(0, 0.5, (count, 12, 16))
        scores = rng.uniform(0.3, 1, count).astype(np.float32)
        labels = rng.choice([0, 1, 80, 81, 90], count)
        kept = _kept(scores.tolist(), labels.tolist())
        found = merge(kept, torch.from_numpy(masks).float(), (12, 16), 0.5)
        want = merge_slowly(scores, labels, masks.astype(np.float32), 0.5)
        np.testing.assert_array_equal(found.ids, want.ids)
        assert found.category.tolist() == want.category.tolist()
        dropped += count - len(set(found.ids.ravel()) - {0})
    assert dropped > 20  # the rule had work to do
