"""Signals to the demo, as a process gets them."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tunneld.demo.interruption import Interruption


async def interrupted(interruption: Interruption, *numbers: signal.Signals) -> None:
    """Send these signals to this process, once the task can be cancelled, and wait."""
    interruption.start()
    for number in numbers:
        os.kill(os.getpid(), number)
    await asyncio.sleep(20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_counts(number: signal.Signals) -> None:
    """It cancels the task, and more of them change nothing; afterwards signals do what they did before."""
    before = signal.getsignal(number)
    signal.signal(number, signal.default_int_handler)
    try:
        with Interruption() as interruption, pytest.raises(asyncio.CancelledError):
            asyncio.run(interrupted(interruption, number, signal.SIGTERM))
        assert interruption.signal == number
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_a_signal_before_the_start_counts_as_well() -> None:
    """Nothing is begun that would have to be cleared away."""
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(interrupted(interruption))
    assert interruption.signal == signal.SIGTERM


def test_what_nohup_ignores_stays_ignored() -> None:
    """A demo in the background goes on when its terminal closes."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
        assert interruption.signal == 0
    finally:
        signal.signal(signal.SIGHUP, before)
