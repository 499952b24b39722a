"""A wait that somebody else ends, and that nobody mistakes for a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from tests.leaping import Leaping, run
from tunneld.tunnel.interruptible import Interruptible


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_interrupted_wait_returns_when_its_work_has_ended() -> None:
    """The work is cancelled, and may take its time to close."""
    interruptible, closing, closed = Interruptible(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closing.set()
            await closed.wait()

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(interruptible.wait_for(work()))
        await turns()
        interruptible.interrupt()
        await closing.wait()
        await turns()
        assert not waiting.done()
        closed.set()
    assert not waiting.cancelled()


async def test_an_interruption_without_a_wait_is_nothing() -> None:
    """It does not end the next wait."""
    interruptible = Interruptible()
    interruptible.interrupt()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(interruptible.wait())
        await turns()
        assert not waiting.done()
        interruptible.interrupt()
    assert waiting.done()


async def test_a_cancellation_is_passed_on() -> None:
    """Only our own interruption is kept from the task."""
    interruptible = Interruptible()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(interruptible.wait())
        await turns()
        waiting.cancel()
    assert waiting.cancelled()


async def test_a_timeout_of_the_work_itself_is_passed_on() -> None:
    """It is the work's own failure."""

    async def work() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await Interruptible().wait_for(work())


def test_the_first_interruption_says_when() -> None:
    """A later interruption neither hurries the first nor puts it off."""
    loop = Leaping()

    async def interrupted_twice() -> float:
        interruptible = Interruptible()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(interruptible.wait())
            await turns()
            interruptible.interrupt(after=3)
            interruptible.interrupt(after=1)
            interruptible.interrupt(after=5)
        return loop.time()

    assert run(interrupted_twice(), loop) == pytest.approx(3, abs=0.01)
