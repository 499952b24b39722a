"""The loop of file descriptors and times, with a clock that the test sets."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.shipped.conftest import Clock
from tunneld.shipped.selector_loop import SelectorLoop


@pytest.fixture
def loop(clock: Clock) -> Iterator[SelectorLoop]:
    clock.now = 100.0
    loop = SelectorLoop(clock)
    yield loop
    loop.close()


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    """Two pipes with something to read in each."""
    made = [os.pipe(), os.pipe()]
    for _, sink in made:
        os.write(sink, b"x")
    yield made
    for fd in (fd for pair in made for fd in pair):
        os.close(fd)


def test_alarms_ring_in_order(loop: SelectorLoop, clock: Clock) -> None:
    """Each once, when it is due; one may set another, and those of one time ring as they were set."""
    rung: list[int] = []

    def first() -> None:
        rung.append(1)
        loop.call_at(100.0, lambda: rung.append(3))

    loop.call_at(102.0, lambda: rung.append(4))
    loop.call_at(101.0, first)
    loop.call_at(101.0, lambda: rung.append(2))
    loop.wait(100.0)
    assert rung == []
    clock.now = 101.0
    loop.wait(200.0)
    assert sorted(rung[:2]) == [1, 3] and rung[2:] == [2]
    clock.now = 102.0
    loop.wait(200.0)
    loop.wait(102.0)
    assert rung[3:] == [4]


def test_what_can_be_read_is_told_until_it_is_unwatched(loop: SelectorLoop, pipes: list[tuple[int, int]]) -> None:
    """In each round anew, as long as nobody reads it; the deadline may be far away."""
    called: list[int] = []
    for source, _ in pipes:
        loop.watch(source, lambda source=source: called.append(source))  # type: ignore[misc]
    loop.wait(1e6)
    loop.unwatch(pipes[0][0])
    loop.wait(1e6)
    assert sorted(called) == sorted([pipes[0][0], pipes[1][0], pipes[1][0]])


def test_what_an_earlier_callback_ended_is_not_called(loop: SelectorLoop, pipes: list[tuple[int, int]]) -> None:
    """Two file descriptors are ready in the same round, and the first one's callback ends both."""
    called: list[int] = []

    def end_both(fd: int) -> None:
        called.append(fd)
        for source, _ in pipes:
            loop.unwatch(source)

    for source, _ in pipes:
        loop.watch(source, lambda source=source: end_both(source))  # type: ignore[misc]
    loop.wait(1e6)
    assert len(called) == 1


def test_a_number_that_was_given_anew_is_not_called_in_that_round(
    loop: SelectorLoop, pipes: list[tuple[int, int]]
) -> None:
    """What is watched under the number of one that has ended was not there when the system was asked."""
    called: list[str] = []

    def replace(name: str) -> None:
        called.append(name)
        for source, _ in pipes:
            loop.unwatch(source)
            loop.watch(source, lambda: called.append("new"))

    for source, _ in pipes:
        loop.watch(source, lambda: replace("old"))
    loop.wait(1e6)
    assert called == ["old"]
    loop.wait(1e6)
    assert called == ["old", "new", "new"]
