"""`tunneld mosh` over a link whose delay changes with each packet: no packet is lost, and no path change is needed."""

from __future__ import annotations

import time

import pytest

from tests.lab.homeward import homeward
from tests.lab.net import Lab
from tests.lab.typist import typing

pytestmark = pytest.mark.lab

ONE_WAY = 0.02  # seconds, on the home's link, each way
LEAST, JITTER = 0.005, 0.03  # seconds, on the laptop's: 20 ms each way, give or take 15
LATEST = 1.5  # seconds that an echo may take when a path dies, as long as another path or a stream works
TYPED_FOR = 30.0  # seconds
CHEAP = 1.5  # kbit/s for copies of datagrams: the start of a session costs 0.7, a loss of 1 % costs 8


@pytest.mark.parametrize("reorder", [False, True], ids=["in order", "overtaking"])
def test_jitter_changes_no_path_and_costs_few_copies(lab: Lab, reorder: bool) -> None:
    """The direct path is kept while a person types, the history shows no change, and copies stay below CHEAP."""
    lab.home_link.set(delay=ONE_WAY)
    lab.laptop_link.set(delay=LEAST, jitter=JITTER, reorder=reorder)
    with homeward(lab) as home, home.mosh() as terminal:
        before = home.wait_direct()
        began = time.monotonic()
        with typing(terminal) as typist:
            while time.monotonic() - began < TYPED_FOR:
                seen = home.wait_direct(timeout=2)
                assert seen["redundancy"]["spent_kbit"] < CHEAP
                time.sleep(3)
        assert max(typist.finish()) < LATEST
        assert [each["what"] for each in seen["history"]] == [each["what"] for each in before["history"]]
