"""The one line of `systemctl status`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunneld.core.supervise.failures import Failure
from tunneld.core.supervise.lifecycle import State
from tunneld.status.brief import LONGEST_REASON, STATE_WORDS, brief, summary
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
    """The line says for how long, to which relay, for which forwards, and how fast."""
    assert brief(UP) == "up 3 h to relay.example.net; ssh 2222 to 22; mosh 60001-60010, 1 session, stream 41 ms"


def test_a_tunnel_that_needs_a_person() -> None:
    """The line asks for the person, and says why and when the next try is."""
    assert brief(REFUSED) == "NEEDS YOU: relay refuses our key (publickey); next try in 58 s"


def test_a_tunnel_that_is_down_and_dials_again() -> None:
    """The reason stays while the next dial is under way."""
    assert brief(AWAY) == "relay:22 no longer answers; next try in 3 s"
    again = replace(AWAY, state=State.DIALING, next_try_in=None)
    assert brief(again) == "relay:22 no longer answers; dialing again"


@pytest.mark.parametrize(("state", "words"), [(State.DRAINING, "stopping"), (State.STOPPED, "stopped")])
def test_a_tunnel_that_stops_has_no_next_try(state: State, words: str) -> None:
    """What failed before does not matter any more."""
    assert brief(replace(AWAY, state=state)) == words


def test_the_first_dial() -> None:
    """The line has the relay alone."""
    assert brief(replace(UP, state=State.DIALING)) == "dialing relay.example.net"


def test_a_fault_of_ours() -> None:
    """Only a fault of tunneld's own is FAILED."""
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
    """A forward is told by its service, its ports and its trouble; an address stands only if not loopback."""
    assert brief(replace(UP, forwards=(forward,), mosh=MoshStatus("off"))).split("; ")[1] == words


def test_a_silent_session_stands_out() -> None:
    """It is up, and may be dead."""
    line = brief(replace(UP, silence=12, mosh=MoshStatus("off")))
    assert line == "up 3 h to relay.example.net; NO SIGN OF LIFE for 12 s, dialing again; ssh 2222 to 22"


def test_a_long_reason_is_cut() -> None:
    """systemctl shows one line, and a relay's own words may be long, or no words at all."""
    failure = FailureStatus(Failure.NETWORK, "no\x1b[2J\n" + "x" * 500, 2)
    reason, _, rest = brief(replace(AWAY, failure=failure)).partition(";")
    assert (len(reason), reason[:8], reason[-1], rest) == (LONGEST_REASON, "no [2J x", "…", " next try in 3 s")


def test_many_forwards_are_counted() -> None:
    """The line has the first three, and the number of the others."""
    line = brief(replace(UP, forwards=(SSH,) * 5, mosh=MoshStatus("off")))
    assert line.count("2222") == 3
    assert line.endswith("; 2 forwards more")
    assert "more" not in brief(replace(UP, forwards=(SSH,) * 3))


def test_mosh_that_is_not_ready_says_why() -> None:
    """The tunnel is up and mosh is not, so the reason is mosh's."""
    mosh = MoshStatus("unavailable", "the relay has no Python 3.9 or newer", "60001-60010")
    assert brief(replace(UP, mosh=mosh)).endswith("; mosh unavailable: the relay has no Python 3.9 or newer")
    idle = replace(UP.mosh, flows=0, carriers=())
    assert brief(replace(UP, mosh=idle)).endswith("; mosh 60001-60010")


def test_several_tunnels_share_the_line() -> None:
    """If all are up the line has their names, else what is wrong with which."""
    office = replace(UP, name="office")
    assert summary([UP, office]) == "2 tunnels up: pi-home, office"
    assert summary([UP, AWAY]) == "1 of 2 tunnels up; office: relay:22 no longer answers; next try in 3 s"
    assert summary([UP]) == brief(UP)


def test_a_tunnel_that_had_to_go_to_another_relay() -> None:
    """The line names the relay in use, and the preferred one."""
    first = replace(AWAY, relay="tunnel@first")
    assert brief(replace(UP, relays=(first, UP))).startswith("up 3 h to relay.example.net instead of first; ssh")
    assert brief(replace(UP, relays=(UP, first))) == brief(UP)
    assert summary([UP, replace(UP, relays=(first, UP))]) == "2 tunnels up: pi-home, pi-home"


def test_a_tunnel_to_every_relay() -> None:
    """The line says how many are up, and what is wrong with the others."""
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
