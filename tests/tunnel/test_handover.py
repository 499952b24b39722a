"""A connection between two sessions: who owns it, and that it ends where nobody takes it."""

from __future__ import annotations

from typing import Any, cast

import asyncssh

from tunneld.tunnel.handover import Handover


class Connection:
    def __init__(self) -> None:
        self.aborted = 0

    def abort(self) -> None:
        self.aborted += 1


def left(*connections: Connection) -> Handover:
    handover = Handover()
    for each in connections:
        handover.leave(cast(asyncssh.SSHClientConnection, each))
    return handover


def test_what_was_left_is_taken_once() -> None:
    """Whoever takes the connection owns it, so the handover does not end it any more."""
    connection = Connection()
    handover = left(connection)
    assert cast(Any, handover.take()) is connection
    assert handover.take() is None
    handover.drop()
    assert connection.aborted == 0


def test_what_nobody_takes_is_ended() -> None:
    """It is ended once, and cannot be taken afterwards."""
    connection = Connection()
    handover = left(connection)
    handover.drop()
    handover.drop()
    assert connection.aborted == 1
    assert handover.take() is None


def test_a_second_one_is_ended_at_once() -> None:
    """One session needs one connection, and somebody may rely on the first already."""
    first, second = Connection(), Connection()
    handover = left(first, second)
    assert (first.aborted, second.aborted) == (0, 1)
    assert cast(Any, handover.take()) is first


def test_nothing_left_is_nothing_to_end() -> None:
    """Most sessions end without a successor."""
    handover = Handover()
    handover.drop()
    assert handover.take() is None
