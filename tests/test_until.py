"""The one way in which tests wait for what tells nobody when it changes."""

from __future__ import annotations

import pytest

from tests.until import until, wait_until


class Countdown:
    """Is true from the third question on."""

    def __init__(self) -> None:
        self.asked = 0

    def is_over(self) -> bool:
        self.asked += 1
        return self.asked >= 3


async def test_waiting_ends_with_the_first_yes() -> None:
    """Nothing is asked once more after that."""
    blocking, in_a_loop = Countdown(), Countdown()
    wait_until(blocking.is_over, what="the third question", every=0)
    await until(in_a_loop.is_over, what="the third question", every=0)
    assert (blocking.asked, in_a_loop.asked) == (3, 3)


async def test_what_never_comes_is_named() -> None:
    """The error is a sentence that says what was awaited, and for how long."""
    with pytest.raises(TimeoutError, match=r"^the relay's port is free: not within 0\.02 s$"):
        wait_until(lambda: False, what="the relay's port is free", timeout=0.02)
    with pytest.raises(TimeoutError, match=r"^the relay's port is free: not within 0\.02 s$"):
        await until(lambda: False, what="the relay's port is free", timeout=0.02)
