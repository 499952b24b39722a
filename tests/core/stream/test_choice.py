"""Which carriers a datagram takes, as a table of cases."""

from __future__ import annotations

import pytest

from tunneld.core.stream import frame
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.choice import SMALL_DATAGRAM, choose

NOW = 100.0


def carrier(name: str, state: str) -> StreamCarrier:
    """`state`: "ok", "late" (a ping has waited for seconds) or "new" (the far side has not greeted)."""
    made = StreamCarrier(name, NOW - 10, dedicated=name != "control")
    if state != "new":
        hello = frame.message(frame.HELLO, {"versions": [1]})
        made.receive(frame.PREAMBLE + hello.encode(), NOW - 10)
    if state == "late":
        made.ping(NOW - 5)
    return made


# The states of control, stream-1 and stream-2 (None: no such carrier); the streams of a small and of a large datagram
CASES = [
    ((None, None, None), "", ""),
    (("new", "new", "new"), "", ""),
    (("ok", None, None), "control", "control"),
    (("late", None, None), "control", "control"),
    (("ok", "ok", None), "stream-1", "stream-1"),
    (("ok", "ok", "ok"), "stream-1 stream-2", "stream-1"),
    (("ok", "new", "ok"), "stream-2", "stream-2"),
    (("ok", "new", "new"), "control", "control"),
    (("ok", "late", "ok"), "stream-2 stream-1", "stream-2 stream-1"),
    (("ok", "ok", "late"), "stream-1 stream-2", "stream-1 stream-2"),
    (("late", "ok", "ok"), "stream-1 stream-2", "stream-1"),
    (("late", "late", "ok"), "stream-2 stream-1", "stream-2 stream-1"),
    (("ok", "late", None), "control stream-1", "control stream-1"),
    (("ok", "late", "late"), "control stream-1 stream-2", "control stream-1 stream-2"),
    (("late", "late", "late"), "stream-1 stream-2 control", "stream-1 stream-2 control"),
    (("new", "late", "late"), "stream-1 stream-2", "stream-1 stream-2"),
]


@pytest.mark.parametrize(("states", "small", "large"), CASES)
def test_the_carriers_that_are_chosen(states: tuple[str | None, ...], small: str, large: str) -> None:
    """Small datagrams take every dedicated stream, large ones take one, or more when a dedicated stream is late.

    A stream that answers in time is always among them, if there is any.
    """
    names = ("control", "stream-1", "stream-2")
    carriers = [carrier(name, state) for name, state in zip(names, states, strict=True) if state]
    assert " ".join(chosen.name for chosen in choose(carriers, SMALL_DATAGRAM, NOW)) == small
    assert " ".join(chosen.name for chosen in choose(carriers, SMALL_DATAGRAM + 1, NOW)) == large


def test_the_order_in_which_carriers_came_does_not_make_the_choice_swing() -> None:
    """Among equals the first one stays the first, whatever is sent."""
    carriers = [carrier("stream-2", "ok"), carrier("stream-1", "ok")]
    assert [choose(carriers, size, NOW)[0].name for size in (24, 1252, 24)] == ["stream-2"] * 3
