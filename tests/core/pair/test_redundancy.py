"""How many copies for how much loss, and what they may cost."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.pair.loss import Loss
from tunneld.core.pair.redundancy import ACCEPTED_LOSS, MAX_COPIES, SPACING, Budget, copies, estimate

NOW = 1000.0


@pytest.mark.parametrize(
    ("share", "expected"),
    [(None, 1), (0.0, 1), (0.0009995, 1), (0.001, 2), (0.03, 2), (0.05, 3), (0.09, 3), (0.12, 4), (0.5, 4), (1.0, 4)],
)
def test_the_copies_that_a_loss_asks_for(share: float | None, expected: int) -> None:
    """So many copies leave that less than one datagram in a thousand is lost, four at most, and two when uncertain."""
    assert copies(share, uncertain=False) == expected
    assert copies(share, uncertain=True) == max(2, expected)


@given(st.floats(0, 1))
def test_no_copy_is_wasted(share: float) -> None:
    """With one copy less, more than one datagram in a thousand would get lost."""
    count = copies(share, uncertain=False)
    assert count == MAX_COPIES or share**count < ACCEPTED_LOSS
    assert count == 1 or share ** (count - 1) >= ACCEPTED_LOSS


def test_a_budget_is_kept_to() -> None:
    """Two seconds' worth may be spent at once, then as much as flows in; what was spent is told."""
    budget = Budget(8.0, NOW)  # 1000 bytes a second
    assert sum(budget.allows(100, NOW) for _ in range(100)) == 20
    assert sum(budget.allows(100, NOW + step / 100) for step in range(1, 2001)) == 200
    assert budget.spent(NOW + 20) == pytest.approx(8.0, rel=0.15)
    assert budget.spent(NOW + 60) == 0


def test_no_budget_allows_nothing() -> None:
    """A budget of zero allows not even the first copy."""
    assert not Budget(0.0, NOW).allows(1, NOW + 1000)


def answered(*answers: tuple[float, int, int]) -> Loss:
    """The loss of a path after these answers: seconds after NOW, packets sent, and packets lost by then."""
    loss = Loss()
    for after, sent, lost in answers:
        loss.learn(sent, sent - lost, NOW + after)
    return loss


@pytest.mark.parametrize(
    ("sent", "lost", "share"),
    [(19, 0, None), (19, 10, None), (20, 0, 0.0), (20, 1, 2 / 22), (20, 20, 21 / 22), (100, 4, 5 / 102)],
)
def test_the_share_that_is_lost(sent: int, lost: int, share: float | None) -> None:
    """Twenty packets are enough for an estimate, which assumes one loss more than was seen, but none from nothing."""
    assert estimate(answered((0, 0, 0), (1, sent, lost), (2, sent, lost)), NOW + 2) == share


@pytest.mark.parametrize(
    ("before", "recent", "share"),
    [(0, 0, 0.0), (0, 20, 21 / 102), (20, 20, 21 / 102), (20, 0, 21 / 502), (99, 1, 101 / 502)],
)
def test_the_worse_of_two_periods_counts(before: int, recent: int, share: float) -> None:
    """The loss of the last five seconds counts, or that of the last thirty when that is worse."""
    lost = before + recent
    loss = answered((0, 0, 0), (19, 390, before), (20, 400, before), (24.5, 500, lost), (25, 500, lost))
    assert estimate(loss, NOW + 25) == share


def test_each_copy_waits_twice_as_long_as_the_one_before() -> None:
    """The datagram itself leaves at once; its copies follow after 4, 8 and 16 ms more."""
    assert SPACING[0] == 0
    assert [round(after - before, 6) for before, after in pairwise(SPACING)] == [0.004, 0.008, 0.016]
    assert len(SPACING) == MAX_COPIES


@pytest.mark.parametrize(
    ("after", "kbit"), [(0, 8 / 10), (6, 8 / 16), (9.5, 8 / 19.5), (10, 8 / 10), (19.5, 8 / 10), (20, 0), (60, 0)]
)
def test_what_was_spent_is_an_average_of_ten_to_twenty_seconds(after: float, kbit: float) -> None:
    """A thousand bytes, spent at once, count in their period and for the next one."""
    budget = Budget(8.0, NOW)
    assert budget.spent(NOW) == 0
    assert budget.allows(1000, NOW)
    assert budget.spent(NOW + after) == pytest.approx(kbit)
