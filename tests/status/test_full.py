"""The status as a person sees it."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent

import pytest

from tunneld.core.supervise.failures import Failure
from tunneld.core.supervise.lifecycle import State
from tunneld.status.brief import STATE_WORDS
from tunneld.status.full import describe
from tunneld.status.snapshot import CanaryStatus, CarrierStatus, FailureStatus, ForwardStatus, MoshStatus, TunnelStatus

UP = TunnelStatus(
    name="pi-home",
    state=State.UP,
    since=11_100,
    relay="tunnel@relay.example.net",
    running=300_000,
    attempts=9,
    sessions=4,
    forwards=(
        ForwardStatus("remote", "127.0.0.1:2222", "127.0.0.1:22", True, "listening", "127.0.0.1:2222", 1, 17),
        ForwardStatus(
            "local",
            "127.0.0.1:8080",
            "127.0.0.1:80",
            False,
            "refused",
            failure=FailureStatus(Failure.FORWARD_BUSY, "8080 is taken", 3),
            next_try_in=20,
        ),
        ForwardStatus("dynamic", "127.0.0.1:1080", None, True, "listening", "127.0.0.1:1080"),
    ),
    mosh=MoshStatus(
        "ready", ports="60001-60010", flows=2, carriers=(CarrierStatus("stream", 0.0412, False, 0, 120, 118),)
    ),
)

DOWN = replace(
    UP,
    state=State.BACKOFF,
    since=100,
    next_try_in=20,
    failure=FailureStatus(Failure.NETWORK, "cannot reach relay.example.net:22: timed out", 100),
    forwards=(ForwardStatus("remote", "127.0.0.1:2222", "127.0.0.1:22", True),),
    mosh=MoshStatus("starting", "waiting for the tunnel", "60001-60010"),
)


def text(block: str) -> str:
    return dedent(block).strip("\n")


def test_a_tunnel_that_is_up() -> None:
    """State, relay, each forward, mosh and its carriers have a line each."""
    assert describe(UP) == text("""
        pi-home: up for 3 h 5 min
          relay     tunnel@relay.example.net, 4 sessions from 9 attempts in 3 d 11 h
          forward   127.0.0.1:2222 on the relay -> 127.0.0.1:22: listening, 1 connection (17 in all)
          forward   127.0.0.1:8080 here -> 127.0.0.1:80 (optional): NOT listening: 8080 is taken; next try in 20 s
          forward   127.0.0.1:1080 here (SOCKS): listening, 0 connections (0 in all)
          mosh      ready, UDP ports 60001-60010 on the relay, 2 flows
          carrier   stream: 41 ms, 120 sent, 118 received
    """)


def test_a_tunnel_that_is_down() -> None:
    """The lines say why, since when, when the next try is, and what a person can do."""
    assert describe(DOWN) == text("""
        pi-home: down for 1 min 40 s, next try in 20 s
          relay     tunnel@relay.example.net, 4 sessions from 9 attempts in 3 d 11 h
          forward   127.0.0.1:2222 on the relay -> 127.0.0.1:22: waits for the session
          mosh      starting, UDP ports 60001-60010 on the relay: waiting for the tunnel
          last fault  1 min 40 s ago, network: cannot reach relay.example.net:22: timed out
          to do       nothing at first: tunneld dials again by itself; if this lasts, try ssh to the relay from here
    """)


@pytest.mark.parametrize("failure", [Failure.AUTHENTICATION, Failure.HOST_KEY])
def test_what_only_a_person_mends_stands_out(failure: Failure) -> None:
    """The first line asks for the person, and the last says what to do."""
    lines = describe(replace(DOWN, failure=FailureStatus(failure, "no", 2))).splitlines()
    assert lines[0] == f"pi-home: NEEDS YOU: {failure.value}, down for 1 min 40 s, next try in 20 s"
    assert lines[-1] == f"  to do       {failure.rule.advice}"


def test_an_overcome_failure_asks_for_nothing() -> None:
    """Once up again, the last fault is history."""
    told = describe(replace(UP, failure=FailureStatus(Failure.AUTHENTICATION, "no", 2)))
    assert "last fault  2 s ago, authentication: no" in told
    assert "NEEDS YOU" not in told
    assert "to do" not in told


def test_a_fault_of_ours_says_so() -> None:
    """Only a bug is FAILED, and the advice asks for a report."""
    told = describe(replace(DOWN, state=State.FAILED, next_try_in=None, failure=FailureStatus(None, "KeyError: 7", 2)))
    assert told.startswith("pi-home: FAILED for")
    assert "restart the daemon" in told


def test_a_target_that_does_not_answer_is_shown() -> None:
    """The forward listens, yet nothing comes through: the usual "up although nothing passes"."""
    forward = replace(UP.forwards[0], target="127.0.0.1:22 refused the connection")
    assert "last target fault: 127.0.0.1:22 refused the connection" in describe(replace(UP, forwards=(forward,)))


@pytest.mark.parametrize(
    ("canary", "target", "words"),
    [
        (CanaryStatus("passes", rtt=0.0421, ago=75), None, "passes in 42 ms (1 min ago)"),
        (CanaryStatus("passes", rtt=2.5, ago=75), None, "passes in 2500 ms (1 min ago)"),
        (CanaryStatus("passes", "it accepts", 0.021, 5), None, "passes in 21 ms: it accepts (5 s ago)"),
        (CanaryStatus("passes", "it is used", ago=5), "timed out", "passes: it is used; last target fault: timed out"),
        (CanaryStatus("target", "refused", ago=5), "refused", "the tunnel passes, its TARGET FAILS: refused (5 s ago)"),
        (CanaryStatus("broken", "nothing listens", ago=5), None, "does NOT pass: nothing listens (5 s ago)"),
        (CanaryStatus("unknown", "forbidden", ago=5), None, "not tried: forbidden (5 s ago)"),
        (CanaryStatus("singing", "la"), "refused", "last target fault: refused"),
    ],
)
def test_what_a_canary_found_is_shown(canary: CanaryStatus, target: str | None, words: str) -> None:
    """Whether data passes, how fast, and whose fault it is that it does not; nothing is said twice."""
    forward = replace(UP.forwards[0], canary=canary, target=target)
    line = describe(replace(UP, forwards=(forward,))).splitlines()[2]
    assert f"listening, 1 connection (17 in all); {words}" in line
    assert line.count("refused") <= 1


def test_a_stalled_carrier_and_missing_python_are_shown() -> None:
    """mosh's own troubles are on its lines."""
    carriers = (CarrierStatus("stream", None, True, 9),)
    assert "stream: no measured delay yet, 0 sent, 0 received, 9 queued, STALLED" in describe(
        replace(UP, mosh=replace(UP.mosh, carriers=carriers))
    )
    mosh = MoshStatus("unavailable", "the relay has no Python 3.9 or newer", "60001-60010")
    assert "unavailable, UDP ports 60001-60010 on the relay: the relay has no Python" in describe(
        replace(UP, mosh=mosh)
    )


def test_the_relays_that_do_not_serve_are_shown() -> None:
    """Each line says why: not healthy for long enough, away, or not needed."""
    relays = (
        replace(UP, relay="u@first", since=20, serves_in=40),
        replace(UP, relay="u@older", since=20),
        replace(DOWN, relay="u@second"),
        replace(UP, relay="u@third", silence=5, failure=DOWN.failure),
        UP,
        replace(UP, relay="u@fifth", state=State.IDLE),
    )
    told = describe(replace(UP, mode="failover", relays=relays)).splitlines()
    assert [line for line in told if "other" in line] == [
        "  other     u@first: healthy for 20 s; returns to service in 40 s",
        "  other     u@older: healthy for 20 s",
        "  other     u@second: down for 1 min 40 s, next try in 20 s; "
        "1 min 40 s ago, network: cannot reach relay.example.net:22: timed out",
        "  other     u@third: up for 3 h 5 min, but no sign of life from the relay for 5 s: dialing a second session",
        "  other     u@fifth: in reserve",
    ]
    assert told[0] == "pi-home: up for 3 h 5 min"


def test_a_tunnel_to_every_relay() -> None:
    """Each relay has its own lines, under the first line of all."""
    forward = replace(UP.forwards[0], connections=0)
    one = replace(UP, forwards=(forward,), mosh=MoshStatus("off"))
    other = replace(DOWN, relay="tunnel@spare", mosh=MoshStatus("off"))
    assert describe(replace(one, mode="all", forwards=(), relays=(one, other))) == text("""
        pi-home: up for 3 h 5 min; 1 of 2 relays up
          relay.example.net: up for 3 h 5 min
            relay     tunnel@relay.example.net, 4 sessions from 9 attempts in 3 d 11 h
            forward   127.0.0.1:2222 on the relay -> 127.0.0.1:22: listening, 0 connections (17 in all)
          spare: down for 1 min 40 s, next try in 20 s
            relay     tunnel@spare, 4 sessions from 9 attempts in 3 d 11 h
            forward   127.0.0.1:2222 on the relay -> 127.0.0.1:22: waits for the session
            last fault  1 min 40 s ago, network: cannot reach relay.example.net:22: timed out
            to do       nothing at first: tunneld dials again by itself; if this lasts, try ssh to the relay from here
    """)


def test_there_is_a_word_for_every_state() -> None:
    """A new state without words would end the command."""
    assert set(STATE_WORDS) == set(State)


def test_no_text_moves_the_cursor() -> None:
    """A socket in a folder that somebody else made could answer anything; a line stays a line."""
    hostile = replace(UP, name="pi\x1b[2J", failure=FailureStatus(Failure.NETWORK, "a\nb\x9b2J\u202e", 1))
    assert all(line.isprintable() for line in describe(hostile).splitlines())
    assert len(describe(hostile).splitlines()) == len(describe(UP).splitlines()) + 1


def test_a_tunnel_that_dials() -> None:
    """It has not logged in yet, so it waits for no port."""
    told = describe(replace(DOWN, state=State.DIALING, since=40, next_try_in=None)).splitlines()
    assert told[0] == "pi-home: dialing for 40 s"


def test_a_silent_session_is_told_with_what_is_done_about_it() -> None:
    """It is up, and may be dead."""
    told = describe(replace(UP, silence=5.0)).splitlines()
    assert told[0] == (
        "pi-home: up for 3 h 5 min, but no sign of life from the relay for 5 s: dialing a second session"
    )


def test_what_is_not_known_yet_is_left_out() -> None:
    """A delay before it is measured, a failure before a forward is asked for, the next try while it is under way."""
    told = describe(replace(UP, rtt=0.0412)).splitlines()
    assert told[1].endswith("in 3 d 11 h, answers in 41 ms")
    waiting = replace(UP.forwards[1], failure=None, state="waiting")
    assert describe(replace(UP, forwards=(waiting,))).splitlines()[2].endswith("(optional): waits for the session")
    asked = replace(UP.forwards[1], next_try_in=None)
    assert describe(replace(UP, forwards=(asked,))).splitlines()[2].endswith("NOT listening: 8080 is taken")


def test_a_port_that_the_relay_chose_is_shown() -> None:
    """The profile says 0."""
    chosen = replace(UP.forwards[0], listen="127.0.0.1:0", listening="127.0.0.1:39001")
    assert "127.0.0.1:39001 on the relay" in describe(replace(UP, forwards=(chosen,)))


def test_another_relay_that_has_not_failed_yet_has_no_failure() -> None:
    """It is dialled for the first time."""
    other = replace(DOWN, relay="u@second", state=State.DIALING, next_try_in=None, failure=None)
    told = describe(replace(UP, mode="failover", relays=(UP, other))).splitlines()
    assert told[2] == "  other     u@second: dialing for 1 min 40 s"


def test_mosh_without_ports_or_a_reason_has_its_state_alone() -> None:
    """An older daemon says no more."""
    assert "  mosh      starting" in describe(replace(UP, mosh=MoshStatus("starting"))).splitlines()


def test_a_session_that_waits_for_a_port() -> None:
    """It is logged in, and cannot be used yet: nothing is being dialled."""
    busy = FailureStatus(Failure.FORWARD_BUSY, "2222 is taken, by user bob", 3)
    told = describe(replace(DOWN, state=State.DIALING, since=40, next_try_in=6, failure=busy)).splitlines()
    assert told[0] == "pi-home: logged in, has waited 40 s for a port that is taken, next try in 6 s"
