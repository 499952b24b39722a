"""When a tunnel's canary flies, and what it does with what it finds; visits themselves are ssh/canary.py's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from tests.virtual import Journal, VirtualTime
from tunneld.core.supervise.canary import BROKEN_VISIT_AFTER, FIRST_VISIT_AFTER, IN_USE, Finding, Verdict
from tunneld.core.supervise.lifecycle import Failure
from tunneld.profile import Direction, Forward, TcpAddress
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.forward.opened import OpenForward
from tunneld.tunnel import canary_rounds as module
from tunneld.tunnel.canary_rounds import CanaryRounds
from tunneld.tunnel.repeats import Repeats
from tunneld.tunnel.timing import Timing

INTERVAL = 300.0
PASSES = Finding(Verdict.PASSES, rtt=0.04)
BROKEN = Finding(Verdict.BROKEN, "nothing listens there on the relay any more")


@dataclass
class Sky:
    """One session after the other in virtual time, and what each visit will find."""

    journal: Journal = field(default_factory=Journal)
    time: VirtualTime = field(default_factory=VirtualTime)
    listening: list[OpenForward] = field(default_factory=list)
    finds: Finding = PASSES
    visited: list[int] = field(default_factory=list)
    doubtful: bool = False
    ended: SessionError | None = None

    def __post_init__(self) -> None:
        timing = Timing(self.time.clock, self.time.sleep, lambda: 0.5)
        self.canary = CanaryRounds(INTERVAL, timing=timing, log=self.journal.log, repeats=Repeats())

    def opens(self, port: int, **more: Any) -> OpenForward:
        forward = Forward(TcpAddress("127.0.0.1", port), TcpAddress("127.0.0.1", 22), **more)
        self.listening.append(OpenForward(forward, self.journal.log))
        self.canary.wake()
        return self.listening[-1]

    async def look(self, connection: object, opened: OpenForward) -> Finding:
        assert isinstance(opened.forward.listen, TcpAddress)
        self.visited.append(opened.forward.listen.port)
        return self.finds

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        self.ended = None
        async with asyncio.TaskGroup() as tasks:
            flight = tasks.create_task(self.fly())
            yield
            flight.cancel()

    async def fly(self) -> None:
        try:
            await self.canary.run(cast(Any, None), lambda: self.listening, is_doubtful=lambda: self.doubtful)
        except SessionError as error:
            self.ended = error

    async def passes(self, seconds: float) -> list[int]:
        """Let time pass; the ports that were visited meanwhile."""
        await self.settle()
        seen = len(self.visited)
        self.time.advance(seconds)
        await self.settle()
        return self.visited[seen:]

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
def sky(monkeypatch: pytest.MonkeyPatch) -> Sky:
    sky = Sky()
    monkeypatch.setattr(module, "look", sky.look)
    return sky


async def test_each_forward_is_visited_soon_and_then_once_per_interval(sky: Sky) -> None:
    """A second after it listens; those that begin to listen later, too."""
    sky.opens(1)
    async with sky.session():
        assert await sky.passes(FIRST_VISIT_AFTER - 0.1) == []
        assert await sky.passes(0.1) == [1]
        sky.opens(2)
        assert await sky.passes(FIRST_VISIT_AFTER) == [2]
        assert await sky.passes(INTERVAL - FIRST_VISIT_AFTER) == [1]
        assert await sky.passes(FIRST_VISIT_AFTER) == [2]


async def test_only_remote_forwards_that_want_one_have_a_canary(sky: Sky) -> None:
    """The profile's word, and what can be tried at all."""
    sky.opens(1, canary=False)
    sky.opens(2, direction=Direction.LOCAL)
    async with sky.session():
        assert await sky.passes(10 * INTERVAL) == []
        assert sky.time.sleepers == 0


async def test_a_new_interval_counts_at_once(sky: Sky) -> None:
    """Longer, shorter, none, and some again: without a new session."""
    sky.opens(1)
    sky.opens(2)
    async with sky.session():
        assert await sky.passes(FIRST_VISIT_AFTER) == [1, 2]
        sky.canary.adopt(0)
        assert await sky.passes(10 * INTERVAL) == []
        sky.canary.adopt(INTERVAL)
        assert await sky.passes(FIRST_VISIT_AFTER) == [1, 2]
        sky.canary.adopt(60)
        assert await sky.passes(66) == [1, 2]


async def test_people_who_get_answers_are_proof_enough(sky: Sky) -> None:
    """No visit to a target that somebody is talking to; when they fall silent, it is tried again."""
    opened = sky.opens(1)
    async with sky.session():
        opened.heard = True  # by the first visit's time nothing is known yet
        assert await sky.passes(FIRST_VISIT_AFTER) == [1]
        opened.heard = True
        assert await sky.passes(INTERVAL) == []
        assert opened.finding is not None
        assert (opened.finding.verdict, opened.finding.text) == (IN_USE.verdict, IN_USE.text)
        assert await sky.passes(INTERVAL) == [1]


async def test_a_forward_that_is_broken_twice_ends_the_session(sky: Sky) -> None:
    """Once could be an accident; the second visit comes soon."""
    sky.opens(1)
    sky.finds = BROKEN
    async with sky.session():
        assert await sky.passes(FIRST_VISIT_AFTER) == [1]
        assert sky.ended is None
        assert await sky.passes(BROKEN_VISIT_AFTER) == [1]
    error = sky.ended
    assert error is not None
    assert error.failure is Failure.NETWORK
    assert str(error) == "the forward from 127.0.0.1:1 is broken: nothing listens there on the relay any more"


async def test_a_session_that_mends_nothing_is_not_made_again(sky: Sky) -> None:
    """Only a forward that was reached in between is worth another session."""
    sky.opens(1)

    async def ends() -> bool:
        async with sky.session():
            await sky.passes(FIRST_VISIT_AFTER)
            for _ in range(3):
                await sky.passes(BROKEN_VISIT_AFTER)
        return sky.ended is not None

    sky.finds = BROKEN
    assert await ends()
    assert not await ends()
    sky.finds = PASSES
    assert not await ends()
    sky.finds = BROKEN
    assert await ends()


async def test_a_doubtful_session_is_left_alone(sky: Sky) -> None:
    """The keepalive judges those; what a visit found meanwhile counts for nothing."""
    opened = sky.opens(1)
    sky.doubtful = True
    async with sky.session():
        for _ in range(5):
            assert await sky.passes(FIRST_VISIT_AFTER) == []
        sky.doubtful, sky.finds = False, BROKEN

        async def look(connection: object, opened: OpenForward) -> Finding:
            sky.doubtful = True
            return BROKEN

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "look", look)
            await sky.passes(FIRST_VISIT_AFTER)
            await sky.passes(BROKEN_VISIT_AFTER)
        assert opened.finding is None
        assert sky.ended is None


async def test_a_forward_that_was_closed_meanwhile_is_not_broken(sky: Sky) -> None:
    """A reload took it away while its canary flew."""
    opened = sky.opens(1)

    async def look(connection: object, opened: OpenForward) -> Finding:
        await opened.close()
        sky.listening.clear()
        return BROKEN

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "look", look)
        async with sky.session():
            await sky.passes(FIRST_VISIT_AFTER)
            assert opened.finding is None
            assert sky.journal.names(debug=True) == []


async def test_a_relay_that_lets_us_try_nothing_is_asked_once(sky: Sky) -> None:
    """Each question would be a line in its log; people's own connections still tell."""
    opened = sky.opens(1)
    sky.finds = Finding(Verdict.UNKNOWN, "no way", is_final=True)
    async with sky.session():
        assert await sky.passes(FIRST_VISIT_AFTER) == [1]
        assert await sky.passes(INTERVAL) == []
        assert _verdict(opened) is Verdict.UNKNOWN
        opened.heard = True
        assert await sky.passes(INTERVAL) == []
        assert _verdict(opened) is Verdict.PASSES
    assert sky.journal.names() == ["canary_found", "canary_found"]


async def test_only_news_is_logged(sky: Sky) -> None:
    """That all is well is none; the rest once, at the level that it deserves."""
    opened = sky.opens(1)
    refused, hangs_up = Finding(Verdict.TARGET, "refused"), Finding(Verdict.TARGET, "it hangs up")
    opened.target_error = "refused"  # which the forward has logged
    async with sky.session():
        await sky.passes(FIRST_VISIT_AFTER)
        for sky.finds in (PASSES, IN_USE, BROKEN, PASSES, refused, hangs_up, hangs_up, PASSES, PASSES):
            await sky.passes(INTERVAL)
    told = [(event["level"], event["verdict"], event["reason"]) for event in sky.journal.events]
    assert told == [
        ("warning", "broken", BROKEN.text),
        ("info", "passes", None),
        ("warning", "target", "it hangs up"),
        ("info", "passes", None),
    ]


def _verdict(opened: OpenForward) -> Verdict | None:
    return None if opened.finding is None else opened.finding.verdict
