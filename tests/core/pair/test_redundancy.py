"""How many copies for how much loss, and what they may cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.pair.redundancy import ACCEPTED_LOSS, MAX_COPIES, Budget, copies

NOW = 1000.0


@pytest.mark.parametrize(
    ("share", "expected"),
    [(None, 1), (0.0, 1), (0.0009, 1), (0.001, 2), (0.03, 2), (0.05, 3), (0.09, 3), (0.12, 4), (0.5, 4), (1.0, 4)],
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
