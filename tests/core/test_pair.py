"""Two ends of a pair in conversation."""

from __future__ import annotations

from tunneld.core.pair import Deliver, Event, Pair

START = 1000.0


def pairs() -> tuple[Pair, Pair]:
    """A client's end and a far one that share a stream, and have greeted each other."""
    client, far = Pair(bytes(32), START, is_client=True), Pair(bytes(32), START, is_client=False)
    for end in (client, far):
        end.attach("ssh", START)
    assert talk(client, far) == []
    assert talk(far, client) == []
    return client, far


def talk(source: Pair, sink: Pair, now: float = START) -> list[Event]:
    """Bring what `source` has to say to `sink`; what happens there."""
    return [
        event
        for name in list(source.streams)
        if (data := source.outgoing(name, now))
        for event in sink.receive(name, data, now)
    ]


def test_a_datagram_crosses_on_a_stream_and_is_answered() -> None:
    """Unchanged, as soon as both have greeted."""
    client, far = pairs()
    client.send(b"key", START)
    assert talk(client, far) == [Deliver(b"key")]
    far.send(b"echo", START)
    assert talk(far, client) == [Deliver(b"echo")]


def test_what_two_streams_bring_is_passed_on_once() -> None:
    """Small datagrams take both."""
    client, far = pairs()
    for end in (client, far):
        end.attach("second", START)
    talk(client, far)
    talk(far, client)
    client.send(b"key", START)
    assert talk(client, far) == [Deliver(b"key")]
    assert far.counts["datagrams_duplicate"] == 1


def test_a_stream_that_goes_leaves_the_pair() -> None:
    """A later one carries on, and numbers run on: what was seen stays seen."""
    client, far = pairs()
    client.send(b"one", START)
    assert talk(client, far) == [Deliver(b"one")]
    for end in (client, far):
        end.detach("ssh")
    client.send(b"lost", START)
    for end in (client, far):
        end.attach("again", START)
    talk(client, far)
    talk(far, client)
    client.send(b"two", START)
    assert talk(client, far) == [Deliver(b"two")]
