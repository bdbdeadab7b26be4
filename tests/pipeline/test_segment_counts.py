"""The line about segments per image."""

from pipeline.segment_counts import describe_counts


def test_by_hand():
    line = describe_counts(range(101))
    assert line == "50 segments an image (median; 5 % have below 5, 5 % above 95)"
    assert describe_counts(()) == ""


def test_few_are_pointed_out():
    assert "few: about 150 serve best" in describe_counts((10, 20, 25))
    assert "few" not in describe_counts((100, 120, 140))
