"""What people see of a pair: its paths and streams as plain, rounded values."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.core.pair.sample_paths import NOW, Sample, made
from tunneld.core.pair import pair_snapshot
from tunneld.core.pair.paths import Paths
from tunneld.core.stream import frame
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.frame import Frame

MEASURED = {"kind": "lan", "local": "4", "remote": "192.0.2.1:1", "rtt": 0.0512, "loss": None}


def stream(*, greeted: bool = True, rtt: float | None = None) -> StreamCarrier:
    """A stream whose PING, if `rtt` is given, was answered after that many seconds."""
    carrier = StreamCarrier("ssh", NOW - 10, dedicated=True)
    if greeted:
        hello = frame.message(frame.HELLO, {"versions": [frame.PROTOCOL_VERSION]})
        carrier.receive(frame.PREAMBLE + hello.encode(), NOW - 10)
    if rtt is not None:
        carrier.ping(NOW - 10)
        carrier.receive(Frame(frame.PONG).encode(), NOW - 10 + rtt)
    return carrier


def in_use(*streams: StreamCarrier, with_path: bool = False) -> dict[str, Any]:
    """What carries the next datagram, chosen 7.26 s ago."""
    paths = Paths(Counter(), NOW)
    paths.current = made(Sample(rtt=0.05123)) if with_path else None
    paths.since, paths.why = NOW - 7.26, "it answers"
    return pair_snapshot.in_use(paths, streams, NOW)


def test_a_path_in_use_is_shown_with_its_measures() -> None:
    """Even with a stream at hand, the path carries; times are rounded to what people can read."""
    assert in_use(stream(rtt=0.1), with_path=True) == {
        "carrier": "path",
        "since": 7.3,
        "why": "it answers",
        **MEASURED,
    }


@pytest.mark.parametrize(
    ("streams", "carrier", "rtt"),
    [
        ((), "none", None),
        ((stream(greeted=False),), "none", None),
        ((stream(),), "stream", None),
        ((stream(), stream(rtt=0.12344), stream(rtt=0.2)), "stream", 0.1234),
    ],
)
def test_without_a_path_the_streams_carry(streams: tuple[StreamCarrier, ...], carrier: str, rtt: float | None) -> None:
    """A stream carries once it has greeted, and the quickest one's round trip is shown."""
    assert in_use(*streams) == {"carrier": carrier, "since": 7.3, "why": "it answers", "rtt": rtt}


def test_what_is_known_about_a_path() -> None:
    """Whether it is in use, what it passes, and when it was heard last."""
    path = made(Sample(rtt=0.05123))
    path.heard, path.sent, path.received = NOW - 1.26, 12, 11
    shown = {
        **MEASURED,
        "in_use": True,
        "state": "open",
        "fault": "",
        "held_for": None,
        "passes": 1216,
        "heard_ago": 1.3,
        "sent": 12,
        "received": 11,
    }
    assert pair_snapshot.path(path, path, NOW) == shown
    assert pair_snapshot.path(path, made(Sample()), NOW) == {**shown, "in_use": False}
    assert pair_snapshot.path(path, None, NOW) == {**shown, "in_use": False}


def test_nothing_is_known_about_a_candidate() -> None:
    """What was not measured yet is null."""
    shown = pair_snapshot.path(made(Sample(state="tried")), None, NOW)
    assert [shown[key] for key in ("rtt", "loss", "held_for", "heard_ago")] == [None] * 4
    assert (shown["state"], shown["passes"]) == ("tried", 0)


@pytest.mark.parametrize(("left", "shown"), [(0.0, None), (0.26, 0.3), (5.04, 5.0)])
def test_a_hold_is_shown_until_it_ends(left: float, shown: float | None) -> None:
    """In tenths of a second; at its end there is none."""
    path = made(Sample())
    path.held_until = NOW + left
    assert pair_snapshot.path(path, None, NOW)["held_for"] == shown


def test_the_loss_is_a_share() -> None:
    """Rounded to a hundredth of a percent."""
    path = made(Sample())
    path.loss.forget()
    for after, sent, lost in ((2, 0, 0), (1, 100, 2), (0, 100, 2)):
        path.loss.learn(sent, sent - lost, NOW - after)
    assert pair_snapshot.path(path, None, NOW)["loss"] == 0.0294  # 3 of 102


def test_what_is_known_about_a_stream() -> None:
    """Its counts, its round trip, and for how long it has not answered."""
    one = stream(rtt=0.05123)
    one.ping(NOW - 1.2346)
    one.sent, one.received = 3, 4
    assert pair_snapshot.stream(one, NOW) == {
        "name": "ssh",
        "greeted": True,
        "rtt": 0.0512,
        "waited": 1.235,
        "sent": 3,
        "received": 4,
    }


def test_what_carries_has_a_name() -> None:
    """A path is named by its kind and address."""
    assert [pair_snapshot.name(path) for path in (made(Sample()), None)] == ["lan 192.0.2.1:1", "stream"]
