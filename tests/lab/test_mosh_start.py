"""The start of `tunneld mosh`, beside the `mosh` script on the same route."""

from __future__ import annotations

import statistics
import time

import pytest

from tests.lab.client import FAR_END, READY, person
from tests.lab.net import Lab
from tests.lab.product import TUNNELD
from tests.lab.sshd import Sshd
from tests.lab.terminal import Terminal

pytestmark = pytest.mark.lab

ROUNDS = 5
NOISE = 1.05  # factor by which a median varies on a busy machine; bench/ measures the difference itself


def test_the_first_prompt_is_not_later_than_mosh_s(lab: Lab) -> None:
    """Over 80 ms, with UDP open for mosh. The two start in turn, so that other load on this machine disturbs both."""
    lab.laptop_link.set(delay=0.04)
    guest = person(lab.laptop, "guest")
    with Sshd(lab.relay, (guest.key.public,)) as there:
        guest.trust(there.known_hosts("relay"))
        ours = [*TUNNELD, "mosh", "-F", str(guest.config), "relay", "--", *FAR_END]
        taken = [(seconds(lab, guest.mosh("relay")), seconds(lab, ours)) for _ in range(ROUNDS)]
    mosh, tunneld = (statistics.median(column) for column in zip(*taken, strict=True))
    assert tunneld < mosh * NOISE, taken


def seconds(lab: Lab, argv: list[str]) -> float:
    """From the start of a program until its far end's first word is on the screen."""
    began = time.monotonic()
    with Terminal(lab.laptop, argv) as terminal:
        return terminal.wait_for(READY) - began
