"""SSH connections of a running session, as processes that are no ssh."""

from __future__ import annotations

import time

from tunneld.core.pair import SECRET, Pair
from tunneld.mosh.line import Line
from tunneld.mosh.lines import Lines
from tunneld.pairing import Pairing


def test_a_machine_that_has_no_room_for_a_process_is_asked_again_later() -> None:
    """The running session goes on with what it has."""
    pairing = Pairing(
        Pair(bytes(SECRET), time.monotonic(), is_client=True), message=lambda *_: None, stream_lost=lambda *_: None
    )
    asked: list[str] = []

    def dial(name: str) -> tuple[Line, bytes]:
        asked.append(name)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    lines = Lines(pairing, dial)
    lines.keep(time.monotonic())
    lines.close(0)
    pairing.close()
    assert asked == ["stream-1"]
