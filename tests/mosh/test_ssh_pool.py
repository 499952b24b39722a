"""SSH connections of a running session, as processes that are no ssh."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from tunneld.core.pair.pair import SECRET_SIZE, Pair
from tunneld.mosh import ssh_pool
from tunneld.mosh.pool_policy import SHORTEST_DENIED, SHORTEST_RETRY, SUSPECTED
from tunneld.mosh.ssh_pool import ANSWER_AFTER_CHANGE, TERMINATE_GRACE, SshPool
from tunneld.mosh.ssh_process import SshProcess
from tunneld.shipped.pack import NO_JOIN_SOCKET, OTHER_MACHINE
from tunneld.shipped.pair_loop import PairLoop

DENIES = "echo 'me@there: Permission denied (publickey).' >&2; exit 255"


class Pool:
    """A pool whose ssh is a shell with `script`, on a clock that the test moves; `carrier` is what the pair uses."""

    def __init__(self, script: str, carrier: str | None) -> None:
        self.script = script
        self.ahead = 0.0
        self.dialled: list[SshProcess] = []
        self.loop = PairLoop(
            Pair(bytes(SECRET_SIZE), self.now(), is_client=True),
            message=lambda *_: None,
            stream_lost=lambda name, _: self.pool.lost(name),
            now=self.now,
        )
        snapshot = self.loop.pair.snapshot
        self.loop.pair.snapshot = lambda now: {**snapshot(now), "in_use": {"carrier": carrier}}  # type: ignore[method-assign]
        self.pool = SshPool(self.loop, self.dial, self.now)

    def now(self) -> float:
        return time.monotonic() + self.ahead

    def dial(self, name: str) -> tuple[SshProcess, bytes]:
        self.dialled.append(SshProcess(name, ["sh", "-c", self.script]))
        return self.dialled[-1], b""

    def wait_for(self, is_so: Callable[[], object]) -> None:
        give_up = time.monotonic() + 10
        self.loop.run(lambda: bool(is_so()) or time.monotonic() > give_up)
        assert is_so()

    def failures(self) -> int:
        return int((self.pool.status() or {}).get("failures", 0))

    def next_in(self) -> float:
        return float((self.pool.status() or {})["next_in"])

    def close(self) -> None:
        self.pool.close(0)
        self.loop.close()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pool]]:
    """Pools that are checked often, and closed afterwards."""
    monkeypatch.setattr(ssh_pool, "POOL_CHECK_EVERY", 0.01)
    made: list[Pool] = []

    def make(script: str, carrier: str | None = None) -> Pool:
        made.append(Pool(script, carrier))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_machine_that_has_no_room_for_a_process_is_asked_again_later(make: Callable[..., Pool]) -> None:
    """The running session goes on with the connections that it has."""
    asked: list[str] = []

    def dial(name: str) -> tuple[SshProcess, bytes]:
        asked.append(name)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    pool = make("")
    pool.pool = SshPool(pool.loop, dial, pool.now)
    pool.pool.keep(pool.now())
    assert asked == ["stream-1"]
    assert pool.failures() == 1


@pytest.mark.parametrize("carrier", ["path", None])
def test_an_account_that_refuses_is_asked_less_where_nobody_waits(
    make: Callable[..., Pool], carrier: str | None
) -> None:
    """A session that lives on UDP has time; one that nothing carries is tried again within five minutes."""
    pool = make(DENIES, carrier)
    pool.pool.keep(pool.now())
    for denied in range(1, 4):
        pool.wait_for(lambda: pool.failures() == denied)  # noqa: B023 - called in this turn
        pause = pool.next_in()
        pool.ahead += pause
    assert (pause > SHORTEST_DENIED) is (carrier is not None)


@pytest.mark.parametrize(
    ("script", "carrier", "is_denied", "is_homeless"),
    [
        (DENIES, "path", True, False),
        (DENIES, None, True, False),
        ("echo 'Connection refused' >&2; exit 255", None, False, False),
        ("echo 'Permission denied' >&2; exit 1", None, False, False),
        (f"exit {NO_JOIN_SOCKET}", "path", True, False),
        (f"exit {NO_JOIN_SOCKET}", None, False, True),
        (f"exit {OTHER_MACHINE}", "path", True, False),
        (f"exit {OTHER_MACHINE}", None, False, False),
        ("exit 0", "path", False, False),
    ],
)
def test_how_an_attempt_ended_decides_when_the_next_is_made(
    make: Callable[..., Pool], script: str, carrier: str | None, is_denied: bool, is_homeless: bool
) -> None:
    """A refusal, or another machine under DEST's name, is asked less often; the session is lost where nothing reaches
    our agent and DEST itself has no trace of it."""
    pool = make(script, carrier)
    pool.pool.keep(pool.now())
    pool.wait_for(lambda: pool.failures() == 1)
    assert (pool.next_in() > SHORTEST_DENIED / 4) is is_denied
    assert pool.pool.is_homeless is is_homeless


def test_no_attempt_is_made_before_it_is_known_how_the_last_one_ended(make: Callable[..., Pool]) -> None:
    """An ssh that was refused may close its stream a moment before it ends."""
    pool = make(f"exec 1>&-; sleep 0.2; {DENIES}", "path")
    pool.pool.keep(pool.now())
    pool.wait_for(lambda: "stream-1" not in pool.loop.pair.streams)
    pool.ahead += 2 * SHORTEST_RETRY
    pool.wait_for(pool.failures)
    assert pool.next_in() > SHORTEST_DENIED / 4
    assert len(pool.dialled) == 1


def test_what_ssh_said_last_is_shown(make: Callable[..., Pool]) -> None:
    """`--paths` tells why there is no second connection; where ssh said nothing, its exit status."""
    for script, said in (
        ("echo 'first'; echo 'last words' >&2; exit 7", "last words"),
        ("exit 7", "ssh ended with status 7"),
    ):
        pool = make(script)
        assert pool.pool.status() is None
        pool.pool.keep(pool.now())
        pool.wait_for(lambda: pool.failures() == 1)  # noqa: B023 - called in this turn
        assert (pool.pool.status() or {})["said"] == said


def test_an_ssh_that_does_not_end_is_killed_after_a_grace(make: Callable[..., Pool]) -> None:
    """It may hang on a machine that is not reached any more; until then it may say goodbye."""
    pool = make("trap '' TERM; echo deaf >&2; while :; do sleep 0.1; done")
    pool.pool.keep(pool.now())
    pool.script = "exit 0"
    ssh = pool.dialled[0]
    pool.wait_for(lambda: "deaf" in ssh.said)
    pool.pool.drop("stream-1")
    pool.ahead += TERMINATE_GRACE - 0.5
    turns = iter(range(3))
    pool.wait_for(lambda: next(turns, None) is None)
    assert ssh.process.returncode is None
    pool.ahead += 0.6
    pool.wait_for(lambda: ssh.process.returncode is not None)
    assert ssh.process.returncode == -9


@pytest.mark.parametrize(
    ("waited", "heard", "is_replaced"),
    [
        (SUSPECTED + 0.3, "since the network changed", False),
        (SUSPECTED + 0.5, "since the network changed", True),
        (ANSWER_AFTER_CHANGE + 0.3, "before", False),
        (ANSWER_AFTER_CHANGE + 0.5, "before", True),
        (ANSWER_AFTER_CHANGE + 0.5, "since the network changed", False),
    ],
)
def test_a_stream_that_owes_an_answer_is_replaced_sooner_after_a_change_of_network(
    waited: float, heard: str, is_replaced: bool
) -> None:
    """It has two round trips (0.4 s here) and 3 s; only 1 s on a network on which it has not been heard yet."""

    def add_stream(name: str, source: int, sink: int) -> None:
        for each in (source, sink):
            os.close(each)

    changed_at = 1000.0
    carrier = SimpleNamespace(
        greeted=True, rtt=0.2, waited=lambda now: waited, heard=changed_at + (-1 if heard == "before" else 1)
    )
    loop = SimpleNamespace(
        pair=SimpleNamespace(
            streams={"a": carrier, "b": carrier}, snapshot=lambda now: {"in_use": {"carrier": "stream"}}
        ),
        call_at=lambda when, call: None,
        add_stream=add_stream,
    )
    dialled: list[str] = []

    def dial(name: str) -> tuple[SshProcess, bytes]:
        dialled.append(name)
        raise OSError

    pool = SshPool(cast(PairLoop, loop), dial, lambda: changed_at)
    for name in ("a", "b"):
        pool.add(SshProcess(name, ["cat"]), b"")
    pool.network_changed()
    pool.keep(changed_at)
    pool.close(1)
    assert bool(dialled) is is_replaced
