"""Snapshots and their JSON."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.supervise.failures import Failure
from tunneld.core.supervise.lifecycle import State
from tunneld.status.snapshot import (
    CanaryStatus,
    CarrierStatus,
    FailureStatus,
    ForwardStatus,
    MoshStatus,
    TunnelStatus,
    from_json,
    to_json,
)

seconds = st.floats(0, 1e9)
counts = st.integers(0, 2**40)
failures = st.builds(FailureStatus, failure=st.none() | st.sampled_from(Failure), text=st.text(), ago=seconds)
carriers = st.builds(CarrierStatus, rtt=st.none() | seconds, queued=counts, sent=counts, received=counts)
moshes = st.builds(
    MoshStatus,
    flows=counts,
    counters=st.dictionaries(st.text(), counts, max_size=3),
    carriers=st.lists(carriers, max_size=2).map(tuple),
)
canaries = st.builds(CanaryStatus, rtt=st.none() | seconds, ago=seconds)
forwards = st.builds(
    ForwardStatus,
    failure=st.none() | failures,
    connections=counts,
    total=counts,
    canary=st.none() | canaries,
)
tunnels = st.builds(
    TunnelStatus,
    state=st.sampled_from(State),
    since=seconds,
    failure=st.none() | failures,
    forwards=st.lists(forwards, max_size=3).map(tuple),
    mosh=moshes,
)

several = st.builds(
    lambda whole, parts: replace(whole, relays=tuple(parts), mode="all"), tunnels, st.lists(tunnels, max_size=2)
)

SMALL_DATAGRAM = TunnelStatus(name="pi-home", state=State.UP, since=1.5, relay="relay:22")


@given(tunnels | several)
def test_a_status_comes_back_from_its_json(status: TunnelStatus) -> None:
    """Whatever a tunnel says, the reader gets the same, on one line."""
    line = to_json(status)
    assert "\n" not in line
    assert from_json(line) == status


def test_a_newer_daemon_may_say_more() -> None:
    """Keys that this reader does not know are skipped, at every level."""
    data = json.loads(to_json(SMALL_DATAGRAM)) | {"later": 1}
    data["mosh"]["later"] = {"deep": True}
    assert from_json(json.dumps(data)) == SMALL_DATAGRAM


def test_an_older_daemon_may_say_less() -> None:
    """What has a default may be missing."""
    assert from_json('{"name":"pi-home","state":"up","since":1.5,"relay":"relay:22"}') == SMALL_DATAGRAM


def test_what_is_not_said_is_nothing() -> None:
    """The numbers of a status are 0 unless it says otherwise, and nothing has failed, stalled or been tried."""
    tunnel = SMALL_DATAGRAM
    assert (tunnel.running, tunnel.uptime, tunnel.attempts, tunnel.sessions, tunnel.pid) == (0, 0, 0, 0, 0)
    assert (tunnel.failure, tunnel.next_try_in, tunnel.rtt, tunnel.silence, tunnel.serves_in) == (None,) * 5
    assert (tunnel.mosh.state, tunnel.mosh.flows) == ("off", 0)
    assert CarrierStatus("stream-1") == CarrierStatus("stream-1", None, stalled=False, queued=0, sent=0, received=0)
    assert CanaryStatus("passes") == CanaryStatus("passes", text="", rtt=None, ago=0)
    forward = ForwardStatus("remote", "127.0.0.1:1", None, required=True)
    assert (forward.state, forward.listening, forward.connections, forward.total) == ("waiting", "", 0, 0)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '{"state":"up"}', '{"state":"asleep"}', '{"state":[]}'])
def test_what_is_no_status_is_a_value_error(text: str) -> None:
    """Garbage on the socket is one kind of error, whatever it is."""
    with pytest.raises(ValueError, match=r"."):
        from_json(text)


def test_a_relay_has_no_relays() -> None:
    """However deep an answer is, it is read one level deep."""
    deep = json.loads(to_json(replace(SMALL_DATAGRAM, relays=(replace(SMALL_DATAGRAM, relays=(SMALL_DATAGRAM,)),))))
    assert from_json(json.dumps(deep)) == replace(SMALL_DATAGRAM, relays=(SMALL_DATAGRAM,))


def test_snapshots_are_frozen() -> None:
    """A reader cannot change what the tunnel said."""
    for kind in (TunnelStatus, ForwardStatus, MoshStatus, CarrierStatus, FailureStatus, CanaryStatus):
        assert cast(Any, kind).__dataclass_params__.frozen
        assert fields(cast(Any, kind))


def test_the_json_is_plain_ascii() -> None:
    """It goes to terminals as well, and some take U+009B for an escape sequence."""
    line = to_json(TunnelStatus("pi", State.UP, 0, "relay", failure=FailureStatus(None, "\x1b[2J\x9b2J\n", 0)))
    assert line.isascii() and line.isprintable()
