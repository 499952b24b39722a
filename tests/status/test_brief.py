"""The one line of `systemctl status`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunneld.core.supervise.failures import Failure
from tunneld.core.supervise.lifecycle import State
from tunneld.status.brief import STATE_WORDS, brief, summary
from tunneld.status.quantities import duration
from tunneld.status.snapshot import CanaryStatus, CarrierStatus, FailureStatus, ForwardStatus, MoshStatus, TunnelStatus

SSH = ForwardStatus("remote", "127.0.0.1:2222", "127.0.0.1:22", True, "listening", "127.0.0.1:2222", 1, 17)

UP = TunnelStatus(
    name="pi-home",
    state=State.UP,
    since=11_100,
    relay="tunnel@relay.example.net",
    forwards=(SSH,),
    mosh=MoshStatus(
        "ready",
        ports="60001-60010",
        flows=1,
        carriers=(
            CarrierStatus("control", 0.0512),
            CarrierStatus("stream-1", 0.0412),
            CarrierStatus("stream-2", 0.001, stalled=True),
        ),
    ),
)

REFUSED = TunnelStatus(
    name="office",
    state=State.BACKOFF,
    since=2,
    relay="relay",
    failure=FailureStatus(Failure.AUTHENTICATION, "relay refuses our key (publickey)", 2),
    next_try_in=58.2,
)

AWAY = replace(REFUSED, failure=FailureStatus(Failure.NETWORK, "relay:22 no longer answers", 2), next_try_in=3.4)


def test_a_tunnel_that_is_up() -> None:
    """For how long, to where, what for, and how fast."""
    assert brief(UP) == "up 3 h to relay.example.net; ssh 2222 to 22; mosh 60001-60010, 1 session, stream 41 ms"


def test_a_tunnel_that_needs_a_person() -> None:
    """It stands out, says why, and when it is tried again."""
    assert brief(REFUSED) == "NEEDS YOU: relay refuses our key (publickey); next try in 58 s"


def test_a_tunnel_that_is_down_and_dials_again() -> None:
    """The reason stays while the next dial is under way."""
    assert brief(AWAY) == "relay:22 no longer answers; next try in 3 s"
    again = replace(AWAY, state=State.DIALING, next_try_in=None)
    assert brief(again) == "relay:22 no longer answers; dialing again"


def test_the_first_dial() -> None:
    """There is nothing to say but where to."""
    assert brief(replace(UP, state=State.DIALING)) == "dialing relay.example.net"


def test_a_fault_of_ours() -> None:
    """FAILED is for bugs."""
    failed = replace(REFUSED, state=State.FAILED, failure=FailureStatus(None, "a fault in tunneld: x", 1))
    assert brief(replace(failed, next_try_in=None)) == "a fault in tunneld: x; FAILED"


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (SSH, "ssh 2222 to 22"),
        (replace(SSH, listening="0.0.0.0:2222"), "ssh 0.0.0.0:2222 to 22"),
        (replace(SSH, to="192.168.1.9:8080"), "2222 to 192.168.1.9:8080"),
        (replace(SSH, to="/run/x.sock"), "2222 to /run/x.sock"),
        (replace(SSH, listen="127.0.0.1:0", listening="127.0.0.1:39001"), "ssh 39001 to 22"),
        (replace(SSH, direction="local"), "local 2222 to 22"),
        (replace(SSH, direction="dynamic", to=None, listening="[::1]:1080"), "SOCKS 1080"),
        (replace(SSH, state="refused", listening=""), "ssh 2222 to 22 NOT listening"),
        (replace(SSH, target="127.0.0.1:22 refused it"), "ssh 2222 to 22 (127.0.0.1:22 refused it)"),
        (replace(SSH, canary=CanaryStatus("passes", rtt=0.04)), "ssh 2222 to 22"),
        (replace(SSH, canary=CanaryStatus("unknown", "forbidden")), "ssh 2222 to 22"),
        (replace(SSH, canary=CanaryStatus("target", "it hangs up")), "ssh 2222 to 22 (it hangs up)"),
        (replace(SSH, canary=CanaryStatus("broken", "nothing listens")), "ssh 2222 to 22 NOT passing"),
    ],
)
def test_forwards_are_short(forward: ForwardStatus, words: str) -> None:
    """What the port is for where that is clear, loopback addresses as ports, trouble in words."""
    assert brief(replace(UP, forwards=(forward,), mosh=MoshStatus("off"))).split("; ")[1] == words


def test_many_forwards_are_counted() -> None:
    """The first three, and how many more."""
    line = brief(replace(UP, forwards=(SSH,) * 5, mosh=MoshStatus("off")))
    assert line.count("2222") == 3
    assert line.endswith("; 2 forwards more")
    assert "more" not in brief(replace(UP, forwards=(SSH,) * 3))


def test_mosh_that_is_not_ready_says_why() -> None:
    """The tunnel is up, and mosh alone is not."""
    mosh = MoshStatus("unavailable", "the relay has no Python 3.9 or newer", "60001-60010")
    assert brief(replace(UP, mosh=mosh)).endswith("; mosh unavailable: the relay has no Python 3.9 or newer")
    idle = replace(UP.mosh, flows=0, carriers=())
    assert brief(replace(UP, mosh=idle)).endswith("; mosh 60001-60010")


def test_several_tunnels_share_the_line() -> None:
    """All well: their names; else what is wrong, and with which."""
    office = replace(UP, name="office")
    assert summary([UP, office]) == "2 tunnels up: pi-home, office"
    assert summary([UP, AWAY]) == "1 of 2 tunnels up; office: relay:22 no longer answers; next try in 3 s"
    assert summary([UP]) == brief(UP)


def test_a_tunnel_that_had_to_go_to_another_relay() -> None:
    """Where it is, and where it should be."""
    first = replace(AWAY, relay="tunnel@first")
    assert brief(replace(UP, relays=(first, UP))).startswith("up 3 h to relay.example.net instead of first; ssh")
    assert brief(replace(UP, relays=(UP, first))) == brief(UP)
    assert summary([UP, replace(UP, relays=(first, UP))]) == "2 tunnels up: pi-home, pi-home"


def test_a_tunnel_to_every_relay() -> None:
    """How many are up, and what is wrong with the others."""
    spare = replace(UP, relay="tunnel@spare.example.org")
    both = replace(UP, mode="all", forwards=(), mosh=MoshStatus("off"), relays=(UP, spare))
    assert brief(both) == "2 of 2 relays up for 3 h; ssh 2222 to 22; mosh 60001-60010, 1 session, stream 41 ms"
    one = replace(both, relays=(UP, AWAY))
    assert brief(one) == "1 of 2 relays up; relay: relay:22 no longer answers; next try in 3 s"
    assert summary([UP, both]) == "2 tunnels up: pi-home, pi-home"
    assert summary([UP, one]) == f"2 of 2 tunnels up; pi-home: {brief(one)}"


@pytest.mark.parametrize("state", State)
def test_there_are_words_for_every_state(state: State) -> None:
    """A new state without words would end the report."""
    assert state in STATE_WORDS
    assert brief(replace(UP, state=state))
    assert brief(replace(REFUSED, state=state, next_try_in=None))


def test_a_duration_of_one_unit() -> None:
    """In a line that is seen at a glance, hours are enough."""
    assert duration(11_100, units=1) == "3 h"
    assert duration(11_100) == "3 h 5 min"
