"""A budget is used up for good, by time or by bytes, and a part of it by itself."""

from functools import partial

import pytest

from store.budget import CHECK_BYTES, Budget, bounded, bounded_part, budgeted, spend
from store.errors import CostError, InterruptError

MIB = 1 << 20


def test_without_a_budget_nothing_is_refused():
    spend(1 << 60)


def test_bytes_that_are_used_up_stay_used_up():
    with budgeted(Budget(1000, MIB)):
        spend(MIB)
        for _ in range(3):
            with pytest.raises(CostError, match="1 MiB of a volume's structures"):
                spend(1)
    spend(1)


def spend_on() -> None:
    while True:
        spend(CHECK_BYTES)


def test_time_that_is_used_up_stays_used_up():
    with budgeted(Budget(0.01, 1 << 60)):
        with pytest.raises(CostError, match=r"0\.01 s of computing"):
            spend_on()
        with pytest.raises(CostError):
            spend(0)


def test_whoever_no_longer_waits_is_answered_at_the_next_spending():
    budget = Budget()
    with budgeted(budget):
        spend(1)
        budget.cancel()
        with pytest.raises(InterruptError):
            spend(0)


def test_a_part_that_costs_too_much_leaves_the_rest_to_the_others():
    with budgeted(Budget(1000, 3 * MIB)):
        for _ in range(2):
            with pytest.raises(CostError, match="may read 1 MiB"):
                bounded_part(1000, MIB, partial(spend, MIB + 1))
            spend(0)
        with pytest.raises(CostError, match="may read 3 MiB"):
            bounded_part(1000, MIB, partial(spend, MIB))


def test_who_waits_no_longer_ends_a_part_too():
    budget = Budget()
    budget.cancel()
    with budgeted(budget), pytest.raises(InterruptError):
        bounded_part(1000, MIB, partial(spend, 1))


def test_a_question_has_a_budget_whoever_asks_and_only_one():
    with pytest.raises(CostError, match="256 MiB"):
        bounded(partial(spend, 1 << 40))
    with budgeted(Budget(1000, MIB)), pytest.raises(CostError, match="1 MiB"):
        bounded(partial(spend, 2 * MIB))
