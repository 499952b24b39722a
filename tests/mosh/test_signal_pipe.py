"""Signals as something to select on."""

from __future__ import annotations

import os
import select
import signal
import subprocess

import pytest

from tunneld.mosh.signal_pipe import Signals


def test_nothing_came() -> None:
    """Whoever asks does not wait."""
    with Signals() as signals:
        assert signals.take() == []
        assert signals.status() is None
        assert not select.select([signals.fd], [], [], 0)[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_ends_us_gives_a_shell_s_status(number: int) -> None:
    """Also if it comes twice, and beside the end of a child."""
    with Signals() as signals:
        for each in (signal.SIGCHLD, number, number):
            os.kill(os.getpid(), each)
        assert select.select([signals.fd], [], [], 10)[0]
        assert signals.status() == 128 + number
        assert signals.status() is None


def test_the_end_of_a_child_wakes_and_ends_nothing() -> None:
    """Whoever waits looks which child it was."""
    with Signals() as signals, subprocess.Popen(["true"]):
        assert select.select([signals.fd], [], [], 10)[0]
        assert signals.status() is None


def test_each_signal_is_taken_once() -> None:
    """In the order in which they came."""
    with Signals() as signals:
        for each in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), each)
        assert signals.take() == [signal.SIGHUP, signal.SIGTERM]


def test_afterwards_signals_do_what_they_did() -> None:
    """A program that goes on can be interrupted as before."""
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with Signals():
        assert signal.getsignal(signal.SIGINT) not in before
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1
