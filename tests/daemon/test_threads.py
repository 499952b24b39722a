"""Blocking work beside the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tunneld.daemon.threads import MOST_THREADS, Threads


async def test_results_and_errors_come_back() -> None:
    """As from any executor."""

    def fails() -> None:
        raise OSError("no")

    asyncio.get_running_loop().set_default_executor(Threads())
    assert await asyncio.to_thread(lambda: 7) == 7
    with pytest.raises(OSError, match="no"):
        await asyncio.to_thread(fails)


def test_a_loop_ends_while_work_still_blocks() -> None:
    """As a stop does while no name server answers."""
    may_end, began = threading.Event(), threading.Event()

    def blocks() -> None:
        began.set()
        may_end.wait()

    async def gives_up() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(Threads())
        waiting = loop.run_in_executor(None, blocks)
        began.wait()
        waiting.cancel()

    try:
        asyncio.run(gives_up())
        assert all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
    finally:
        may_end.set()


async def test_work_is_done_as_long_as_it_comes() -> None:
    """A thread that ends makes room for another one, so years of lookups are no more than a few at a time."""
    executor = Threads()
    for number in range(3 * MOST_THREADS):
        async with asyncio.timeout(10):
            assert await asyncio.wrap_future(executor.submit(lambda number=number: number)) == number  # type: ignore[misc]


def test_cancelled_work_is_not_begun() -> None:
    """Work that waits for its turn may be cancelled; what comes after it is done."""
    may_end, done = threading.Event(), list[str]()
    executor = Threads()
    try:
        for _ in range(MOST_THREADS):
            executor.submit(may_end.wait)
        cancelled, last = (executor.submit(done.append, name) for name in ("cancelled", "last"))
        assert cancelled.cancel()
    finally:
        may_end.set()
    last.result(10)
    assert done == ["last"]


async def test_beyond_the_bound_work_waits_its_turn() -> None:
    """A peer that makes us look up names costs a bounded number of threads."""
    may_end = threading.Event()
    executor = Threads()
    try:
        before = threading.active_count()
        held = [executor.submit(may_end.wait) for _ in range(3 * MOST_THREADS)]
        assert threading.active_count() - before <= MOST_THREADS
    finally:
        may_end.set()
    assert all(await asyncio.gather(*map(asyncio.wrap_future, held)))
