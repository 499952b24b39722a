"""Paths in every state, made by asking and answering them, for the tests of paths and of what uses them."""

from __future__ import annotations

from typing import NamedTuple

from tunneld.core.pair.candidate import UdpAddress
from tunneld.core.pair.path import DOUBT_AFTER, NEEDED_SIZE, Path

NOW = 1000.0
HERE = UdpAddress("192.0.2.1", 5000)


def answers(path: Path, rtt: float, when: float, *, full: int = NEEDED_SIZE, lost: int = 0) -> None:
    """Ask the path as often as it wants, and answer after `rtt` seconds, until full datagrams have passed."""
    number = int(when * 1000) * 100
    while not path.passes():
        path.ask(number, full, when)
        path.take_answer(number, path.sent - lost, when + rtt)
        number += 1
        when += rtt
    path.held_until = 0.0


class Sample(NamedTuple):
    """`state`: open, tried, silent, warned, held (after silence), lossy (held for loss), narrow; `rtt` in seconds."""

    kind: str = "lan"
    rtt: float = 0.05
    state: str = "open"


def made(sample: Sample, port: int = 1) -> Path:
    """A path in that state at NOW; `port` tells its address from those of others."""
    path = Path(sample.kind, "4", UdpAddress("192.0.2.1", port), NOW - 100)
    if sample.state == "tried":
        return path
    answers(path, sample.rtt, NOW - 60)
    if sample.state == "silent":
        path.ask(1, NEEDED_SIZE, NOW - DOUBT_AFTER)
    elif sample.state == "warned":
        path.warn(NOW)
    elif sample.state == "held":
        path.give_up(NOW - 50)
        answers(path, sample.rtt, NOW - 50)
        path.held_until = NOW + 5
    elif sample.state == "lossy":
        path.hold_for_loss(NOW - 1)
    elif sample.state == "narrow":
        path.proven = 0
    return path
