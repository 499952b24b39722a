"""When a tunnel's canary visits which forward, and what follows from what it finds.

What a visit itself finds is tested in tests/ssh/remote/test_canary_visit.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from tests.virtual import Journal, VirtualTime
from tunneld.core.supervise.canary import BROKEN_VISIT_AFTER, FIRST_VISIT_AFTER, IN_USE, Finding, Verdict
from tunneld.core.supervise.failures import Failure
from tunneld.profile import Direction, Forward, TcpAddress
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.forward.opened import OpenForward
from tunneld.tunnel import canary_rounds as module
from tunneld.tunnel.canary_rounds import CanaryRounds
from tunneld.tunnel.context import TunnelContext
from tunneld.tunnel.timing import Timing

INTERVAL = 300.0
PASSES = Finding(Verdict.PASSES, rtt=0.04)
BROKEN = Finding(Verdict.BROKEN, "nothing listens there on the relay any more")


@dataclass
class Scene:
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
        self.rounds = CanaryRounds(INTERVAL, TunnelContext(self.journal.log, timing=timing))

    def opens(self, port: int, **more: Any) -> OpenForward:
        forward = Forward(TcpAddress("127.0.0.1", port), TcpAddress("127.0.0.1", 22), **more)
        self.listening.append(OpenForward(forward, self.journal.log))
        self.rounds.wake()
        return self.listening[-1]

    async def look(self, connection: object, opened: OpenForward) -> Finding:
        assert isinstance(opened.forward.listen, TcpAddress)
        self.visited.append(opened.forward.listen.port)
        return self.finds

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        self.ended = None
        async with asyncio.TaskGroup() as tasks:
            round = tasks.create_task(self.run())
            yield
            round.cancel()

    async def run(self) -> None:
        try:
            await self.rounds.run(cast(Any, None), lambda: self.listening, is_doubtful=lambda: self.doubtful)
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
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = Scene()
    monkeypatch.setattr(module, "look", scene.look)
    return scene


async def test_each_forward_is_visited_soon_and_then_once_per_interval(scene: Scene) -> None:
    """The first visit comes a second after the forward listens, also for a forward that comes later."""
    scene.opens(1)
    async with scene.session():
        assert await scene.passes(FIRST_VISIT_AFTER - 0.1) == []
        assert await scene.passes(0.1) == [1]
        scene.opens(2)
        assert await scene.passes(FIRST_VISIT_AFTER) == [2]
        assert await scene.passes(INTERVAL - FIRST_VISIT_AFTER) == [1]
        assert await scene.passes(FIRST_VISIT_AFTER) == [2]


async def test_only_remote_forwards_that_want_one_have_a_canary(scene: Scene) -> None:
    """The profile may exclude a forward, and only remote ones can be tried."""
    scene.opens(1, canary=False)
    scene.opens(2, direction=Direction.LOCAL)
    async with scene.session():
        assert await scene.passes(10 * INTERVAL) == []
        assert scene.time.sleepers == 0


async def test_a_new_interval_counts_at_once(scene: Scene) -> None:
    """It may be longer, shorter or zero, and needs no new session."""
    scene.opens(1)
    scene.opens(2)
    async with scene.session():
        assert await scene.passes(FIRST_VISIT_AFTER) == [1, 2]
        scene.rounds.adopt(0)
        assert await scene.passes(10 * INTERVAL) == []
        scene.rounds.adopt(INTERVAL)
        assert await scene.passes(FIRST_VISIT_AFTER) == [1, 2]
        scene.rounds.adopt(60)
        assert await scene.passes(66) == [1, 2]


async def test_people_who_get_answers_are_proof_enough(scene: Scene) -> None:
    """A target that somebody is talking to is not visited; once it falls silent it is."""
    opened = scene.opens(1)
    async with scene.session():
        opened.heard = True  # by the first visit's time nothing is known yet
        assert await scene.passes(FIRST_VISIT_AFTER) == [1]
        opened.heard = True
        assert await scene.passes(INTERVAL) == []
        assert opened.finding is not None
        assert (opened.finding.verdict, opened.finding.text) == (IN_USE.verdict, IN_USE.text)
        assert await scene.passes(INTERVAL) == [1]


async def test_a_forward_that_is_broken_twice_ends_the_session(scene: Scene) -> None:
    """The first time could be an accident, so a second visit comes soon."""
    scene.opens(1)
    scene.finds = BROKEN
    async with scene.session():
        assert await scene.passes(FIRST_VISIT_AFTER) == [1]
        assert scene.ended is None
        assert await scene.passes(BROKEN_VISIT_AFTER) == [1]
    error = scene.ended
    assert error is not None
    assert error.failure is Failure.NETWORK
    assert str(error) == "the forward from 127.0.0.1:1 is broken: nothing listens there on the relay any more"


async def test_a_session_that_mends_nothing_is_not_made_again(scene: Scene) -> None:
    """Only a forward that was reached in between is worth another session."""
    scene.opens(1)

    async def ends() -> bool:
        async with scene.session():
            await scene.passes(FIRST_VISIT_AFTER)
            for _ in range(3):
                await scene.passes(BROKEN_VISIT_AFTER)
        return scene.ended is not None

    scene.finds = BROKEN
    assert await ends()
    assert not await ends()
    scene.finds = PASSES
    assert not await ends()
    scene.finds = BROKEN
    assert await ends()


async def test_a_doubtful_session_is_left_alone(scene: Scene) -> None:
    """The keepalive judges such a session, and what a visit finds meanwhile is dropped."""
    opened = scene.opens(1)
    scene.doubtful = True
    async with scene.session():
        for _ in range(5):
            assert await scene.passes(FIRST_VISIT_AFTER) == []
        scene.doubtful, scene.finds = False, BROKEN

        async def look(connection: object, opened: OpenForward) -> Finding:
            scene.doubtful = True
            return BROKEN

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "look", look)
            await scene.passes(FIRST_VISIT_AFTER)
            await scene.passes(BROKEN_VISIT_AFTER)
        assert opened.finding is None
        assert scene.ended is None


async def test_a_forward_that_was_closed_meanwhile_is_not_broken(scene: Scene) -> None:
    """A reload took it away during the visit."""
    opened = scene.opens(1)

    async def look(connection: object, opened: OpenForward) -> Finding:
        await opened.close()
        scene.listening.clear()
        return BROKEN

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "look", look)
        async with scene.session():
            await scene.passes(FIRST_VISIT_AFTER)
            assert opened.finding is None
            assert scene.journal.names(debug=True) == []


async def test_a_relay_that_lets_us_try_nothing_is_asked_once(scene: Scene) -> None:
    """Each visit would be a line in its log; people's own connections still show that the forward passes."""
    opened = scene.opens(1)
    scene.finds = Finding(Verdict.UNKNOWN, "no way", is_final=True)
    async with scene.session():
        assert await scene.passes(FIRST_VISIT_AFTER) == [1]
        assert await scene.passes(INTERVAL) == []
        assert _verdict(opened) is Verdict.UNKNOWN
        opened.heard = True
        assert await scene.passes(INTERVAL) == []
        assert _verdict(opened) is Verdict.PASSES
    assert scene.journal.names() == ["canary_found", "canary_found"]


async def test_only_news_is_logged(scene: Scene) -> None:
    """A forward that passes is not news; anything else is told once, at the level that it deserves."""
    opened = scene.opens(1)
    refused, hangs_up = Finding(Verdict.TARGET, "refused"), Finding(Verdict.TARGET, "it hangs up")
    opened.target_error = "refused"  # which the forward has logged
    async with scene.session():
        await scene.passes(FIRST_VISIT_AFTER)
        for scene.finds in (PASSES, IN_USE, BROKEN, PASSES, refused, hangs_up, hangs_up, PASSES, PASSES):
            await scene.passes(INTERVAL)
    told = [(event["level"], event["verdict"], event["reason"]) for event in scene.journal.events]
    assert told == [
        ("warning", "broken", BROKEN.text),
        ("info", "passes", None),
        ("warning", "target", "it hangs up"),
        ("info", "passes", None),
    ]


def _verdict(opened: OpenForward) -> Verdict | None:
    return None if opened.finding is None else opened.finding.verdict
