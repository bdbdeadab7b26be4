"""Reading ahead: order, overlap, and errors where they are due."""

import threading

import pytest

from pipeline.ahead import ahead


def test_results_come_in_order_and_are_made_ahead():
    made, second_is_made = [], threading.Event()

    def make(number):
        made.append(number)
        if number == 1:
            second_is_made.set()
        return 10 * number

    found = ahead(((lambda n=n: make(n)) for n in range(5)), depth=2)
    assert next(found) == 0
    assert second_is_made.wait(10) and max(made) <= 2  # ahead, but never more than two
    assert list(found) == [10, 20, 30, 40] and made == [0, 1, 2, 3, 4]


def test_an_error_is_raised_where_its_result_is_due():
    def fail():
        raise ValueError("second")

    found = ahead([lambda: 1, fail, lambda: 3])
    assert next(found) == 1
    with pytest.raises(ValueError, match="second"):
        next(found)


def test_nothing_to_do():
    assert list(ahead([])) == []
