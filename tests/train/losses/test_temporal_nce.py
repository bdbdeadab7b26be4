import math

import pytest
import torch
import torch.nn.functional as F

from train.losses.temporal_nce import Config, loss, sample_per_segment


def frame(seed, num_voxels=30, num_points=80, num_segments=6):
    generator = torch.Generator().manual_seed(seed)
    return (
        F.normalize(torch.randn(num_voxels, 5, generator=generator), dim=1),
        torch.randint(0, num_voxels, (num_points,), generator=generator),
        torch.randint(0, num_segments, (num_points,), generator=generator),
    )


def term_of(frame_t, frame_s, num_segments=6, seed=0, config=None):
    generator = torch.Generator().manual_seed(seed)
    owner = torch.zeros(num_segments, dtype=torch.int64)
    return loss(*frame_t, *frame_s, owner, generator, config or Config())


def twin(frame_t, frame_s, temperature):
    """Every point against every segment mean of the other frame, one by one, nothing sampled."""
    common = sorted(set(frame_t[2].tolist()) & set(frame_s[2].tolist()))
    total = 0.0
    for (features, rows, segment), (others, other_rows, other_segment) in (
        (frame_t, frame_s),
        (frame_s, frame_t),
    ):
        means = [others[other_rows[other_segment == k]].mean(0).detach() for k in common]
        means = torch.stack([mean / mean.norm() for mean in means])
        for position, k in enumerate(common):
            points = [features[row] for row in rows[segment == k]]
            losses = [
                (means @ point / temperature).logsumexp(0) - means[position] @ point / temperature
                for point in points
            ]
            total = total + sum(losses) / len(losses) / len(common)
    return total


def test_by_hand():
    # segment 0 at (1, 0) in both frames; segment 1 at (0, 1) and, in one point of t, at (1, 0).
    # Temperature 1; with two candidates a term is log(1 + e^(other - own)).
    near, far = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    features_t = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    rows_t, segment_t = torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1])
    rows_s, segment_s = torch.tensor([0, 1]), torch.tensor([0, 1])
    forward = (near + (near + far) / 2) / 2
    # the mean of segment 1 at t is (1, 1) / 2, at length 1: (1, 1) / sqrt 2
    half = 1 / math.sqrt(2)
    backward = (math.log(1 + math.exp(half - 1)) + math.log(1 + math.exp(0 - half))) / 2
    term = term_of(
        (features_t, rows_t, segment_t),
        (features_t, rows_s, segment_s),
        2,
        config=Config(temperature=1.0),
    )
    assert term.num_contrasted == 2
    assert term.value.item() == pytest.approx(forward + backward, rel=1e-5)
    assert term.value.item() == pytest.approx(1.04237, abs=1e-5)


def test_equals_its_plain_twin_in_value_and_gradients():
    results = []
    for function in (lambda a, b: term_of(a, b).value, lambda a, b: twin(a, b, 0.07)):
        frame_t, frame_s = frame(1), frame(2)
        frame_t[0].requires_grad_()
        frame_s[0].requires_grad_()
        value = function(frame_t, frame_s)
        value.backward()
        results.append((value.item(), frame_t[0].grad, frame_s[0].grad))
    fast, slow = results
    assert fast[0] == pytest.approx(slow[0], rel=1e-5)
    assert torch.allclose(fast[1], slow[1], atol=1e-5)  # 1 / 0.07 enlarges float32 rounding
    assert torch.allclose(fast[2], slow[2], atol=1e-5)


def test_swapping_the_frames_renumbering_segments_and_reordering_points_change_nothing():
    frame_t, frame_s = frame(1), frame(2)
    expected = term_of(frame_t, frame_s).value.item()
    assert term_of(frame_s, frame_t).value.item() == pytest.approx(expected, rel=1e-5)
    new = torch.tensor([11, 3, 7, 0, 5, 9])  # with gaps
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    frame_t = (frame_t[0], frame_t[1][order], new[frame_t[2][order]])
    frame_s = (frame_s[0], frame_s[1], new[frame_s[2]])
    assert term_of(frame_t, frame_s, 12).value.item() == pytest.approx(expected, rel=1e-5)


def test_a_segment_that_one_frame_lost_takes_no_part():
    frame_t, frame_s = frame(1), frame(2)
    kept = frame_s[2] != 4
    without = (frame_s[0], frame_s[1][kept], frame_s[2][kept])
    term = term_of(frame_t, without)
    assert term.num_contrasted == 5
    assert term.value.item() == pytest.approx(twin(frame_t, without, 0.07).item(), rel=1e-5)


def test_no_gradient_reaches_the_target_mean():
    # features at t may only move through their own direction, in which they are anchors
    features_t = torch.tensor([[1.0, 0.0], [0.6, 0.8]], requires_grad=True)
    features_s = torch.tensor([[0.0, 1.0], [0.8, 0.6]], requires_grad=True)
    numbers = torch.tensor([0, 1])
    term_of((features_t, numbers, numbers), (features_s, numbers, numbers), 2).value.backward()
    slow_t, slow_s = (f.detach().clone().requires_grad_() for f in (features_t, features_s))
    logits = slow_t @ slow_s.detach().T / 0.07
    F.cross_entropy(logits, numbers).backward()
    assert torch.allclose(features_t.grad, slow_t.grad, atol=1e-6)


def test_sampling_is_capped_per_segment_and_repeats_with_its_seed():
    segment = torch.tensor([0] * 500 + [1] * 300 + [2] * 7)[torch.randperm(807)]
    draws = [
        sample_per_segment(segment, 300, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    for drawn in draws:
        assert torch.bincount(segment[drawn]).tolist() == [300, 300, 7]
        assert (drawn.diff() > 0).all()
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    big = torch.zeros(1000, dtype=torch.int64)  # every point has the same chance
    hits = torch.zeros(1000)
    generator = torch.Generator().manual_seed(5)
    for _ in range(200):
        hits[sample_per_segment(big, 300, generator)] += 1
    assert hits.mean() == 60 and hits.std() < 8  # binomial: 6.5


def test_max_points_changes_the_value_only_where_it_bites():
    frame_t, frame_s = frame(1), frame(2)
    whole = term_of(frame_t, frame_s, config=Config(max_points=300)).value.item()
    assert term_of(frame_t, frame_s, config=Config(max_points=80)).value.item() == whole
    assert term_of(frame_t, frame_s, config=Config(max_points=2)).value.item() != whole


@pytest.mark.parametrize("case", ["empty frame", "no common segment"])
def test_nothing_to_contrast_is_zero_with_zero_gradients(case):
    frame_t, frame_s = frame(1), frame(2)
    if case == "empty frame":
        frame_s = (frame_s[0], frame_s[1][:0], frame_s[2][:0])
    else:
        frame_s = (frame_s[0], frame_s[1], frame_s[2] + 6)
    frame_t[0].requires_grad_()
    frame_s[0].requires_grad_()
    term = term_of(frame_t, frame_s, 12)
    term.value.backward()
    assert term.value.item() == 0 and term.num_contrasted == 0
    assert not frame_t[0].grad.any() and not frame_s[0].grad.any()


def test_refuses_rows_and_segments_of_two_lengths():
    frame_t, frame_s = frame(1), frame(2)
    with pytest.raises(ValueError, match=r"segment at t\+n must be \[79\] like rows, got \[80\]"):
        term_of(frame_t, (frame_s[0], frame_s[1][1:], frame_s[2]))


def value_of(config, owner=None, grads=False):
    """The loss of two frames with 6 segments under a config, and its gradient in the target."""
    frame_t, frame_s = frame(1), frame(2)
    frame_s[0].requires_grad_()
    owner = torch.zeros(6, dtype=torch.int64) if owner is None else owner
    value = loss(*frame_t, *frame_s, owner, torch.Generator().manual_seed(0), config).value
    value.backward()
    return (value.item(), frame_s[0].grad) if grads else value.item()


def means_of(frame, unit=True):
    features, rows, segment = frame
    means = torch.stack([features[rows[segment == k]].mean(0) for k in range(6)])
    return F.normalize(means, dim=1) if unit else means


def test_segment_means_as_anchors():
    means_t, means_s = means_of(frame(1)), means_of(frame(2))
    own = torch.arange(6)
    expected = F.cross_entropy(means_t @ means_s.T / 0.07, own)
    expected = expected + F.cross_entropy(means_s @ means_t.T / 0.07, own)
    assert value_of(Config(anchor="means")) == pytest.approx(expected.item(), rel=1e-4)


def test_means_as_they_are():
    frame_t, frame_s = frame(1), frame(2)
    expected = 0.0
    for (features, rows, segment), other in ((frame_t, frame_s), (frame_s, frame_t)):
        losses = F.cross_entropy(
            features[rows] @ means_of(other, unit=False).T / 0.07, segment, reduction="none"
        )
        expected += sum(losses[segment == k].mean() for k in range(6)) / 6
    assert value_of(Config(unit_means=False)) == pytest.approx(expected.item(), rel=1e-4)


def test_the_target_learns_only_where_asked():
    value, grad = value_of(Config(), grads=True)
    same, more = value_of(Config(target_gradient=True), grads=True)
    assert same == value
    assert not torch.allclose(grad, more)


def test_candidates_of_the_own_sample_alone():
    frame_t, frame_s = frame(1), frame(2)
    owner = torch.tensor([0, 0, 0, 1, 1, 1])
    expected = 0.0
    for sample in (0, 1):
        inside = [
            (f, rows[owner[seg] == sample], seg[owner[seg] == sample] - 3 * sample)
            for f, rows, seg in (frame_t, frame_s)
        ]
        expected += term_of(*inside, num_segments=3).value.item() / 2
    value = value_of(Config(candidates="sample"), owner)
    assert value == pytest.approx(expected, rel=1e-5)
    assert value < value_of(Config(), owner)
