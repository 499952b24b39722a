"""How old the screen is that a person sees: two endpoints over slow, lossy and stalling streams."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

import pytest

from tests.core.stream.simulated import (
    START,
    Conversation,
    Line,
    ages,
    freshness,
    met,
    number_of,
    percentile,
    slow,
    three,
)


def offered(talk: Conversation, flow: int, *, sizes: tuple[int, ...], every: float, seconds: float) -> dict[int, float]:
    """Have the server send instructions of these parts; when each of their last parts was sent, by number."""
    sent: dict[int, float] = {}
    steps = int(seconds / every)

    def send(first: int) -> None:
        for place, size in enumerate(sizes):
            talk.server_sends(flow, (first + place).to_bytes(8, "big").ljust(size, b"."))
        sent[first + len(sizes) - 1] = talk.now

    for step in range(steps):
        talk.at(talk.now + step * every, partial(send, step * len(sizes)))
    talk.passes(seconds + 30)
    return sent


def arrived(talk: Conversation, sent: dict[int, float]) -> list[tuple[float, int]]:
    """When the last parts came to the client, by number."""
    return [(when, number_of(datagram)) for when, _, datagram in talk.back if number_of(datagram) in sent]


@pytest.mark.parametrize("size", [500, 1100])
def test_a_slow_link_shows_the_present(size: int) -> None:
    """On 64 kbit/s with four times as much to send, plain buffers would be tens of seconds behind."""
    talk, flow = met(slow(8000))
    sent = offered(talk, flow, sizes=(size,), every=size / 31250, seconds=60)
    came = arrived(talk, sent)
    assert percentile(ages(sent, came), 0.5) < 0.9
    assert percentile(freshness(sent, came), 0.99) < 1.7
    assert len(came) * size > 0.7 * 8000 * 60  # and the link is used


def test_a_slow_link_carries_whole_instructions() -> None:
    """Either all datagrams of an instruction cross, or none."""
    talk, flow = met(slow(8000))
    sent = offered(talk, flow, sizes=(1252, 1252, 300), every=0.09, seconds=60)
    whole = Counter(number_of(datagram) // 3 for _, _, datagram in talk.back)
    assert set(whole.values()) == {3}
    assert percentile(ages(sent, arrived(talk, sent)), 0.5) < 1.3


def test_a_large_screen_crosses_a_slow_link() -> None:
    """With 20 KB each second over 8 KB a second, mosh sends the screen until it has crossed once, so it must cross."""
    talk, flow = met(slow(8000))
    sent = offered(talk, flow, sizes=(*[1252] * 16, 300), every=1.0, seconds=30)
    assert len(arrived(talk, sent)) >= 8


def test_a_stall_of_everything_is_followed_by_the_present() -> None:
    """After three seconds without a byte, what was under way arrives, then at once what is new, and no backlog."""
    stall = [(START + 12, START + 15)]
    talk, flow = met(three(Line(stalls=stall), Line(stalls=stall)))
    talk.lines["control"][1].stalls = stall
    sent = offered(talk, flow, sizes=(70,), every=0.04, seconds=30)
    came = arrived(talk, sent)
    late = [number for when, number in came if when - sent[number] > 0.3]
    assert min(when for when, number in came if sent[number] > START + 14.9) < START + 15.11
    assert len(late) <= 30
    assert percentile(freshness(sent, came), 0.5) < 0.06


def test_a_stall_of_one_stream_is_not_noticed() -> None:
    """Small datagrams take the other stream as well."""
    talk, flow = met(three(Line(stalls=[(START + 12, START + 15)])))
    sent = offered(talk, flow, sizes=(70,), every=0.04, seconds=30)
    assert freshness(sent, arrived(talk, sent))[-1] < 0.06


def test_large_datagrams_leave_a_stream_that_stalls() -> None:
    """Within the time of a retransmission they take the other stream as well."""
    talk, flow = met(three(Line(stalls=[(START + 12, START + 15)])))
    sent = offered(talk, flow, sizes=(1252, 300), every=0.04, seconds=30)
    assert freshness(sent, arrived(talk, sent))[-1] < 0.4


def test_loss_on_two_streams_is_seldom_felt() -> None:
    """With 5 % of segments lost on each, 95 of 100 keystrokes cross without the delay of a retransmission."""
    chance = random.Random(7)
    talk, flow = met(three(Line(loss=0.05, chance=chance), Line(loss=0.05, chance=chance)))
    sent = offered(talk, flow, sizes=(70,), every=0.13, seconds=120)
    assert percentile(freshness(sent, arrived(talk, sent)), 0.95) < 0.1
