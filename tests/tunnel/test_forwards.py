"""The forwards of a session, with a relay that answers each request as the test says.

Against a real sshd they are tested in tests/tunnel/test_tunnel*.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from tests.tunnel.supervised import forward
from tests.virtual import Journal, VirtualTime
from tunneld.core.supervise.canary import Finding, Verdict
from tunneld.core.supervise.failures import Failure
from tunneld.profile import Direction, Forward, TcpAddress
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.forward.opened import OpenForward
from tunneld.ssh.remote.takeover import Takeover
from tunneld.status.snapshot import CanaryStatus, FailureStatus
from tunneld.tunnel import forwards as module
from tunneld.tunnel.context import TunnelContext
from tunneld.tunnel.forwards import FREED_PAUSE, FREEING_PAUSES, LONGEST_BUSY_WAIT, Forwards
from tunneld.tunnel.timing import Timing

MINE, OTHER = forward(2222), forward(8080, required=False)
NOT_OURS = Takeover(False, "")


@dataclass
class Asked:
    """What is asked of a relay: it refuses the ports in `refuses`, each in its own way."""

    journal: Journal
    time: VirtualTime
    refuses: dict[int, Failure] = field(default_factory=dict)
    requests: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    awaited: list[float] = field(default_factory=list)  # the waits that the session was told

    def hold(self, *wanted: Forward) -> Forwards:
        timing = Timing(self.time.clock, self.time.sleep, lambda: 0.999999)
        return Forwards(cast(Any, None), wanted, TunnelContext(self.journal.log, timing=timing))

    async def open(self, connection: object, wanted: Forward, log: Any) -> OpenForward:
        assert isinstance(wanted.listen, TcpAddress)
        port = wanted.listen.port
        self.requests.append(port)
        if port in self.refuses:
            raise SessionError(self.refuses[port], f"{port} is refused")
        opened = OpenForward(wanted, log)
        close = opened.close

        async def closed() -> None:
            self.closed.append(port)
            await close()

        opened.close = closed  # type: ignore[method-assign]
        return opened

    def tell(self, error: SessionError, wait: float) -> None:
        self.awaited.append(wait)


@pytest.fixture
def relay(journal: Journal, time: VirtualTime, monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked(journal, time)
    monkeypatch.setattr(module, "open_forward", asked.open)
    monkeypatch.setattr(module, "FREEING_PAUSES", (0.0,) * len(FREEING_PAUSES))
    return asked


@dataclass
class After:
    """What a takeover came to, for whoever awaits it."""

    takeover: Takeover

    def __await__(self) -> Generator[None, None, Takeover]:
        yield
        return self.takeover


async def turns() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def retrying(held: Forwards) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(held.retry())
        await turns()
        try:
            yield
        finally:
            task.cancel()


def states(held: Forwards) -> list[str]:
    return [each.state for each in held.status()]


async def test_all_are_asked_for_and_an_optional_one_may_be_refused(relay: Asked) -> None:
    """The session can be used when the required ones listen."""
    relay.refuses = {8080: Failure.FORWARD_FORBIDDEN}
    held = relay.hold(MINE, OTHER)
    await held.open(After(NOT_OURS), relay.tell)
    assert (states(held), relay.requests, relay.awaited) == (["listening", "refused"], [2222, 8080], [])
    assert held.answered


async def test_nobody_waits_for_a_takeover_that_is_not_needed(relay: Asked) -> None:
    """It takes round trips, and a Python's start."""
    never: asyncio.Future[Takeover] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(5):
        await relay.hold(MINE).open(never, relay.tell)


async def test_a_required_one_that_is_forbidden_ends_the_session(relay: Asked) -> None:
    """It is not asked for twice, and nobody is told to wait."""
    relay.refuses = {2222: Failure.FORWARD_FORBIDDEN}
    takeover = After(NOT_OURS)
    with pytest.raises(SessionError, match="2222 is refused"):
        await relay.hold(MINE, OTHER).open(takeover, relay.tell)
    assert (sorted(relay.requests), relay.awaited) == ([2222, 8080], [])


async def test_only_a_remote_forward_shows_that_the_relay_answers(relay: Asked) -> None:
    """A listener on this host asks the relay for nothing."""
    held = relay.hold(forward(1080, direction=Direction.LOCAL))
    takeover = After(NOT_OURS)
    await held.open(takeover, relay.tell)
    assert not held.answered


@pytest.mark.parametrize(("ended", "requests"), [(False, 2), (True, 1 + len(FREEING_PAUSES))])
async def test_a_port_that_a_takeover_has_freed_is_asked_for_several_times(
    relay: Asked, time: VirtualTime, ended: bool, requests: int
) -> None:
    """sshd needs a moment to free it. A port that somebody else holds is asked for once more, then awaited."""
    relay.refuses = {2222: Failure.FORWARD_BUSY}
    held = relay.hold(MINE)
    async with asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(held.open(After(Takeover(ended, "")), relay.tell))
        await time.slept_on(1)
        assert relay.requests == [2222] * requests
        assert len(relay.awaited) == 1
        relay.refuses.clear()
        time.advance(relay.awaited[0])
        await opening
    assert states(held) == ["listening"]


async def test_people_who_wait_for_a_port_wait_ten_seconds_at_most(relay: Asked, time: VirtualTime) -> None:
    """A request costs the relay one packet, whatever the profile's maximum is."""
    relay.refuses = {2222: Failure.FORWARD_BUSY}
    held = relay.hold(MINE)
    async with asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(held.open(After(NOT_OURS), relay.tell))
        for _ in range(5):
            await time.slept_on(1)
            time.advance(relay.awaited[-1])
            await turns()
        opening.cancel()
    assert relay.awaited == pytest.approx([10, 10, 10, 10, 10, 10], abs=0.01)
    assert max(relay.awaited) <= LONGEST_BUSY_WAIT


async def test_a_refused_one_is_asked_for_again_when_it_is_due(relay: Asked, time: VirtualTime) -> None:
    """Not before, and not when it listens."""
    relay.refuses = {8080: Failure.FORWARD_BUSY}
    held = relay.hold(MINE, OTHER)
    await held.open(After(NOT_OURS), relay.tell)
    due = held.status()[1].next_try_in or 0.0
    assert due == pytest.approx(5, abs=0.01)
    relay.refuses.clear()
    async with retrying(held):
        time.advance(due - 0.01)
        await turns()
        assert relay.requests.count(8080) == 1
        time.advance(0.01)
        await turns()
        assert (states(held), relay.requests.count(8080)) == (["listening", "listening"], 2)
        time.advance(1000)
        await turns()
        assert relay.requests == [2222, 8080, 8080]


async def test_a_takeover_hurries_an_optional_one(relay: Asked, time: VirtualTime) -> None:
    """What held its port is ending; if it was somebody else's, nothing changes."""
    relay.refuses = {8080: Failure.FORWARD_BUSY}
    held = relay.hold(MINE, OTHER)
    await held.open(After(NOT_OURS), relay.tell)
    relay.refuses.clear()
    async with retrying(held):
        held.taken_over(NOT_OURS)
        time.advance(FREED_PAUSE)
        await turns()
        assert states(held) == ["listening", "refused"]
        held.taken_over(Takeover(True, ""))
        await turns()
        assert states(held) == ["listening", "refused"]
        time.advance(FREED_PAUSE)
        await turns()
        assert states(held) == ["listening", "listening"]


async def test_a_change_closes_what_goes_before_it_opens_what_comes(relay: Asked) -> None:
    """A forward that leads elsewhere now finds its port free; the others stay open."""
    held = relay.hold(MINE, OTHER)
    await held.open(After(NOT_OURS), relay.tell)
    open_before = held.listening()[0]
    order: list[str] = []
    relay.closed, relay.requests = cast(Any, _Noted(order, "close")), cast(Any, _Noted(order, "open"))
    await held.change(iter((MINE, forward(8080, 10), forward(9090))))
    assert order == ["close 8080", "open 8080", "open 9090"]
    assert held.listening()[0] is open_before


class _Noted(list[int]):
    """A list that notes what is appended in another one, with a word."""

    def __init__(self, order: list[str], word: str) -> None:
        super().__init__()
        self._order, self._word = order, word

    def append(self, port: int) -> None:
        self._order.append(f"{self._word} {port}")


@pytest.mark.parametrize("failure", [Failure.FORWARD_BUSY, Failure.FORWARD_FORBIDDEN])
async def test_a_change_to_a_required_one_that_is_refused_ends_the_session(relay: Asked, failure: Failure) -> None:
    """Also when its port is only taken: the session was up, and is not any more."""
    held = relay.hold(MINE)
    await held.open(After(NOT_OURS), relay.tell)
    relay.refuses = {9090: failure}
    with pytest.raises(SessionError, match="9090 is refused"):
        await held.change((MINE, forward(9090)))


async def test_a_forward_that_a_reload_took_away_is_not_asked_for_again(relay: Asked, time: VirtualTime) -> None:
    """Nobody would close it."""
    relay.refuses = {8080: Failure.FORWARD_BUSY}
    held = relay.hold(MINE, OTHER)
    await held.open(After(NOT_OURS), relay.tell)
    relay.refuses.clear()
    async with retrying(held):
        await held.change((MINE,))
        time.advance(10)
        await turns()
    assert (states(held), relay.requests) == (["listening"], [2222, 8080])


async def test_a_forward_that_a_reload_brings_and_the_relay_refuses_is_asked_for_again(
    relay: Asked, time: VirtualTime
) -> None:
    """Although nothing was to be asked for until then."""
    relay.refuses = {8080: Failure.FORWARD_BUSY}
    held = relay.hold(MINE)
    await held.open(After(NOT_OURS), relay.tell)
    async with retrying(held):
        await held.change((MINE, OTHER))
        await turns()
        relay.refuses.clear()
        time.advance(10)
        await turns()
        assert states(held) == ["listening", "listening"]


async def test_a_required_forward_that_a_reload_took_away_is_not_asked_for_again(
    relay: Asked, time: VirtualTime
) -> None:
    """The session comes up without it."""
    relay.refuses = {2222: Failure.FORWARD_BUSY}
    held = relay.hold(MINE, OTHER)
    async with asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(held.open(After(NOT_OURS), relay.tell))
        await time.slept_on(1)
        await held.change((OTHER,))
        relay.refuses.clear()
        time.advance(10)
        await opening
    assert (states(held), relay.requests.count(2222)) == (["listening"], 2)


async def test_close_closes_all(relay: Asked) -> None:
    """Each once, also when it is asked for twice."""
    held = relay.hold(MINE, OTHER)
    await held.open(After(NOT_OURS), relay.tell)
    await held.close()
    await held.close()
    assert sorted(relay.closed) == [2222, 8080]
    assert states(held) == ["waiting", "waiting"]


@pytest.mark.parametrize(
    ("takeover", "told"),
    [
        (None, "it is taken"),
        (Takeover(True, "no Python there", {"127.0.0.1:2222": "user root"}), "it is taken, by user root"),
        (Takeover(False, "no Python there"), "it is taken; no Python there"),
        (
            Takeover(False, "no Python there", {"127.0.0.1:2222": "user root"}),
            "it is taken, by user root; no Python there",
        ),
    ],
)
def test_a_port_that_is_taken_is_told_with_its_holder(relay: Asked, takeover: Takeover | None, told: str) -> None:
    """Status adds why a session of ours could not be ended, but not that one was ended."""
    held = relay.hold(MINE)
    if takeover is not None:
        held.taken_over(takeover)
    assert held._with_holder(MINE, SessionError(Failure.FORWARD_BUSY, "it is taken")) == told


async def test_a_required_refusal_is_the_tunnels_to_tell(relay: Asked, journal: Journal, time: VirtualTime) -> None:
    """The log has a line of ours for optional ones alone; what listens later is news only after a refusal."""
    relay.refuses = {2222: Failure.FORWARD_BUSY, 8080: Failure.FORWARD_BUSY}
    held = relay.hold(MINE, OTHER)
    async with asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(held.open(After(NOT_OURS), relay.tell))
        await time.slept_on(1)
        assert [(event["event"], event["listen"]) for event in journal.events] == [
            ("forward_refused", "127.0.0.1:8080")
        ]
        relay.refuses.clear()
        time.advance(10)
        await opening
    assert journal.names() == ["forward_refused", "forward_opened"]


async def test_the_event_of_a_session_covers_the_forwards_that_open_with_it(relay: Asked, journal: Journal) -> None:
    """None of them has a line of its own."""
    await relay.hold(MINE, OTHER).open(After(NOT_OURS), relay.tell)
    assert journal.names() == []
    assert journal.names(debug=True) == ["forward_opened", "forward_opened"]


async def test_only_a_port_that_is_taken_on_the_relay_has_a_holder_there(relay: Asked) -> None:
    """Neither a port of this host, nor one that the relay forbids, is told with what the takeover found."""
    local, forbidden = forward(1080, required=False, direction=Direction.LOCAL), forward(22, required=False)
    relay.refuses = {8080: Failure.FORWARD_BUSY, 1080: Failure.FORWARD_BUSY, 22: Failure.FORWARD_FORBIDDEN}
    held = relay.hold(OTHER, local, forbidden)
    held.taken_over(Takeover(False, "no Python there"))
    await held.open(After(NOT_OURS), relay.tell)
    texts = [each.failure.text for each in held.status() if each.failure is not None]
    assert texts == ["8080 is refused; no Python there", "1080 is refused", "22 is refused"]


async def test_what_is_due_first_is_asked_for_first(relay: Asked, time: VirtualTime) -> None:
    """A forbidden forward, which waits for longer, holds nobody up."""
    relay.refuses = {22: Failure.FORWARD_FORBIDDEN, 8080: Failure.FORWARD_BUSY}
    held = relay.hold(forward(22, required=False), OTHER)
    await held.open(After(NOT_OURS), relay.tell)
    relay.refuses.clear()
    async with retrying(held):
        time.advance(5)
        await turns()
        assert states(held) == ["refused", "listening"]


async def test_required_ones_that_are_taken_are_asked_for_in_turn(relay: Asked, time: VirtualTime) -> None:
    """None of them waits until another has come free."""
    relay.refuses = {2222: Failure.FORWARD_BUSY, 2223: Failure.FORWARD_BUSY}
    held = relay.hold(MINE, forward(2223))
    async with asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(held.open(After(NOT_OURS), relay.tell))
        await time.slept_on(1)
        relay.requests.clear()
        time.advance(10)
        await turns()
        assert relay.requests == [2222, 2223]
        opening.cancel()


async def test_the_status_of_a_forward_tells_its_times(relay: Asked, time: VirtualTime) -> None:
    """How long ago it was refused, in how long it is asked for again, and how long ago its canary was there."""
    relay.refuses = {8080: Failure.FORWARD_BUSY}
    held = relay.hold(MINE, OTHER, forward(1080, required=False, direction=Direction.DYNAMIC))
    await held.open(After(NOT_OURS), relay.tell)
    held.listening()[0].finding = Finding(Verdict.PASSES, at=time.now)
    time.advance(2)
    mine, other, dynamic = held.status()
    assert (mine.to, dynamic.to) == ("127.0.0.1:9", None)
    assert (mine.canary, mine.failure, mine.next_try_in) == (CanaryStatus("passes", ago=2), None, None)
    assert other.failure == FailureStatus(Failure.FORWARD_BUSY, "8080 is refused", 2)
    assert other.next_try_in == pytest.approx(3, abs=0.01)
    time.advance(100)
    assert held.status()[1].next_try_in == 0
