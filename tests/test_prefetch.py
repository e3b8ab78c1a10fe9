"""Items that are made ahead come as they would have come."""

import threading

import pytest

from stages.core.prefetch import prefetch


def test_items_come_in_their_order_and_one_is_made_while_the_other_is_used():
    second_is_made = threading.Event()

    def items():
        yield 0
        second_is_made.set()
        yield 1
        yield 2

    coming = prefetch(items())
    assert next(coming) == 0
    assert second_is_made.wait(10)  # nobody has asked for it
    assert list(coming) == [1, 2] and list(prefetch(iter([]))) == []


def test_what_making_an_item_raises_is_raised_in_its_place():
    def items():
        yield 0
        raise ValueError("broken")

    coming = prefetch(items())
    assert next(coming) == 0
    with pytest.raises(ValueError, match="broken"):
        next(coming)
