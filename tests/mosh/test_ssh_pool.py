"""SSH connections of a running session, as processes that are no ssh."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tunneld.core.pair.pair import SECRET_SIZE, Pair
from tunneld.mosh.pool_policy import DENIED
from tunneld.mosh.ssh_pool import SshPool
from tunneld.mosh.ssh_process import SshProcess
from tunneld.shipped.pair_loop import PairLoop


def test_a_machine_that_has_no_room_for_a_process_is_asked_again_later() -> None:
    """The running session goes on with what it has."""
    pairing = PairLoop(
        Pair(bytes(SECRET_SIZE), time.monotonic(), is_client=True), message=lambda *_: None, stream_lost=lambda *_: None
    )
    asked: list[str] = []

    def dial(name: str) -> tuple[SshProcess, bytes]:
        asked.append(name)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    lines = SshPool(pairing, dial)
    lines.keep(time.monotonic())
    lines.close(0)
    pairing.close()
    assert asked == ["stream-1"]


@pytest.mark.parametrize("carrier", ["path", None])
def test_an_account_that_refuses_is_asked_less_where_nobody_waits(carrier: str | None) -> None:
    """A session that lives on UDP has time; one that nothing carries is tried again within five minutes."""
    ahead = 0.0

    def now() -> float:
        return time.monotonic() + ahead

    pairing = PairLoop(
        Pair(bytes(SECRET_SIZE), now(), is_client=True),
        message=lambda *_: None,
        stream_lost=lambda name, _: lines.lost(name),
        now=now,
    )
    snapshot = pairing.pair.snapshot
    pairing.pair.snapshot = lambda now: {**snapshot(now), "in_use": {"carrier": carrier}}  # type: ignore[method-assign]
    made: list[str] = []

    def dial(name: str) -> tuple[SshProcess, bytes]:
        made.append(name)
        return SshProcess(name, ["sh", "-c", "echo 'me@there: Permission denied (publickey).' >&2; exit 255"]), b""

    lines = SshPool(pairing, dial, now)
    lines.keep(now())
    for denied in range(1, 4):
        wait_for(pairing, lambda: (lines.status() or {}).get("failures") == denied)  # noqa: B023 - called in this turn
        pause = (lines.status() or {})["next_in"]
        ahead += pause
    assert (pause > DENIED) is (carrier is not None)
    lines.close(0)
    pairing.close()


def wait_for(pairing: PairLoop, is_so: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    pairing.run(lambda: is_so() or time.monotonic() > give_up)  # Lines look each half second
    assert is_so()
