"""How datagrams leave: what the peer is told on streams, copies, and what is sent again or rescued."""

from __future__ import annotations

from collections import Counter
from math import inf

import pytest

from tests.core.pair.sample_paths import HERE, NOW, answers
from tunneld.core.pair import packet
from tunneld.core.pair.candidate import Candidate
from tunneld.core.pair.dispatch import CALM_FLOW, DOUBTING_FLOW, Dispatch
from tunneld.core.pair.outbox import Outbox
from tunneld.core.pair.packet import Seal
from tunneld.core.pair.path import DEAD_AFTER, DOUBT_AFTER, Path
from tunneld.core.pair.paths import Paths
from tunneld.core.pair.redundancy import SPACING, Budget
from tunneld.core.stream import frame
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.choice import SMALL_DATAGRAM
from tunneld.core.stream.frame import Frame, FrameDecoder
from tunneld.core.stream.queue import MAX_AGE

RTT = 0.05


class End:
    """One end: a stream, and as many paths as it is given, the first of them in use for a minute already."""

    def __init__(
        self,
        paths: int = 1,
        *,
        has_stream: bool = True,
        budget: float = 64.0,
        is_client: bool = True,
        rtts: tuple[float, ...] = (RTT, RTT),
    ) -> None:
        began = NOW - 60
        self.counts = Counter[str]()
        self.is_client = is_client
        self.seal = Seal(bytes(32), self.counts, is_client=is_client)
        self.paths = Paths(self.counts, began)
        self.outbox = Outbox(self.seal, self.paths, Budget(budget, began), self.counts)
        self.streams = {"ssh": StreamCarrier("ssh", began, dedicated=True)} if has_stream else {}
        for stream in self.streams.values():
            hello = frame.message(frame.HELLO, {"versions": [frame.PROTOCOL_VERSION]})
            stream.receive(frame.PREAMBLE + hello.encode(), began)
        self.dispatch = Dispatch(self.streams, self.paths, self.outbox, self.counts, began, is_client=is_client)
        self.paths.open("4", 4, began)
        self.paths.offer([Candidate("lan", HERE._replace(port=1 + port)) for port in range(paths)], began)
        for path, rtt in zip(self.paths, rtts, strict=False):
            answers(path, rtt, began)
        self.paths.review(began + 1)
        self.flows(began)

    @property
    def path(self) -> Path:
        assert self.paths.current
        return self.paths.current

    def flows(self, now: float) -> list[int]:
        """The flow numbers of the datagrams that leave on the stream now."""
        return [each.flow for each in self.frames(now)]

    def frames(self, now: float) -> list[Frame]:
        """The datagrams that leave on the stream now."""
        decoder = FrameDecoder()
        data = b"".join(stream.outgoing(now) for stream in self.streams.values()).removeprefix(frame.PREAMBLE)
        return [each for each in decoder.feed(frame.PREAMBLE + data) if each.kind == frame.DATAGRAM]

    def sends(self, now: float, datagram: bytes = b"key") -> list[int]:
        """Send a datagram; the flow numbers of what leaves on the stream."""
        self.dispatch.send(datagram, now)
        return self.flows(now)

    def left(self) -> list[tuple[int, bytes]]:
        """The ports and datagrams of what leaves over UDP now."""
        opener = Seal(bytes(32), Counter(), is_client=not self.is_client)
        found = []
        for each in self.outbox.take():
            opened = opener.open(each.data)
            if opened and opened.kind in (packet.DATAGRAM, packet.ASKING):
                read = packet.read_datagram(opened.body)
                found.append((each.remote.port, read[1] if read else b""))
        return found


def test_a_path_that_lives_carries_alone() -> None:
    """Nothing leaves on the stream, and the peer hears of no doubt."""
    end = End()
    assert end.sends(NOW) == []
    assert end.left() == [(1, b"key")]
    assert not end.dispatch.is_in_doubt(NOW)
    assert end.counts["datagrams_without_carrier"] == 0


def test_the_peer_hears_of_our_doubt() -> None:
    """The stream carries as well, and says so until the path answers."""
    end = End()
    end.path.expect(10_000, NOW)
    assert end.sends(NOW + DOUBT_AFTER) == [DOUBTING_FLOW]
    for number in (10_000, end.seal.number - 1):
        end.path.take_answer(number, end.path.sent, NOW + DOUBT_AFTER)
    end.path.warn(NOW + DOUBT_AFTER, by_peer=True)
    assert end.sends(NOW + DOUBT_AFTER) == [CALM_FLOW]


def test_the_peer_hears_of_a_paths_death_for_five_seconds() -> None:
    """It may still rely on the path, which may have died in one direction alone."""
    end = End()
    died = NOW + DEAD_AFTER
    end.path.expect(10_000, NOW)
    assert end.paths.review(died) == "went silent"
    assert end.paths.current is None
    assert end.sends(died) == [DOUBTING_FLOW]
    assert end.sends(died + 4.99) == [DOUBTING_FLOW]
    assert end.sends(died + 5) == [CALM_FLOW]


def test_without_a_path_from_the_beginning_there_is_no_doubt() -> None:
    """Nothing died."""
    end = End(0)
    assert end.sends(NOW - 59) == [CALM_FLOW]
    assert end.counts["datagrams_without_carrier"] == 0


def test_an_unanswered_datagram_is_sent_again_and_takes_the_stream_once() -> None:
    """When its answer is late; an answer to any of its packets ends that."""
    end = End()
    number = end.seal.number
    assert end.sends(NOW) == []
    end.dispatch.tick(NOW)
    late = end.dispatch.due()
    assert late == NOW + end.path.trips.late > NOW + RTT
    end.left()
    end.dispatch.tick(late - 0.001)
    assert end.left() == []
    end.dispatch.tick(late)
    assert (end.left(), end.flows(late)) == ([(1, b"key")], [CALM_FLOW])
    again = end.dispatch.due()
    end.dispatch.tick(again)
    assert (end.left(), end.flows(again)) == ([(1, b"key")], [])
    end.dispatch.answered(number + 1)
    assert end.dispatch.due() == inf


def test_copies_leave_in_time_over_the_paths_in_turn() -> None:
    """Two paths of one length share them, and an answer to a copy is one to the datagram."""
    end = End(2)
    for step in range(10):
        end.path.loss.learn(10 * step, 9 * step, NOW - 10 + step)
    end.sends(NOW, bytes(SMALL_DATAGRAM))
    assert end.left() == [(1, bytes(SMALL_DATAGRAM))]
    for place, port in ((1, 2), (2, 1)):
        end.dispatch.tick(NOW + SPACING[place] - 0.001)
        assert end.left() == []
        end.dispatch.tick(NOW + SPACING[place])
        assert end.left() == [(port, bytes(SMALL_DATAGRAM))]
    end.dispatch.answered(end.seal.number - 1)
    assert end.dispatch.due() == inf


def test_a_late_datagram_whose_path_is_gone_takes_the_stream() -> None:
    """No path is left to take it."""
    end = End()
    end.sends(NOW)
    end.dispatch.tick(NOW)
    end.left()
    late = end.dispatch.due()
    end.path.give_up(late)
    end.paths.review(late)
    end.dispatch.tick(late)
    assert (end.left(), end.flows(late)) == ([], [DOUBTING_FLOW])


def test_without_a_budget_only_the_stream_takes_a_late_datagram() -> None:
    """Sending again on the path costs what a copy costs."""
    end = End(budget=0.0)
    end.sends(NOW)
    end.dispatch.tick(NOW)
    end.left()
    late = end.dispatch.due()
    end.dispatch.tick(late)
    assert (end.left(), end.flows(late)) == ([], [CALM_FLOW])


def test_what_a_stream_carries_is_not_sent_again() -> None:
    """The stream loses nothing, so no answer is missed."""
    end = End()
    end.path.warn(NOW)
    assert end.sends(NOW) == [DOUBTING_FLOW]
    end.dispatch.tick(NOW)
    assert end.left() == [(1, b"key")]
    assert end.dispatch.due() == inf


def test_a_last_resort_is_not_asked_again() -> None:
    """Without a path in use or a stream, a datagram takes what there is, once."""
    end = End(has_stream=False)
    end.path.give_up(NOW)
    end.paths.review(NOW)
    end.sends(NOW)
    end.dispatch.tick(NOW)
    assert end.left() == [(1, b"key")]
    assert end.dispatch.due() == inf


def test_a_large_datagram_is_not_sent_again() -> None:
    """mosh does that."""
    end = End()
    end.sends(NOW, bytes(SMALL_DATAGRAM + 1))
    end.dispatch.tick(NOW)
    assert end.dispatch.due() == inf


def test_turns_take_the_paths_in_turn() -> None:
    """All of one turn the same path, so that the newest arrives first."""
    end = End(2)
    for number in range(2):
        end.sends(NOW + number / 1000, bytes([number]))
    end.dispatch.tick(NOW + 0.001)
    end.left()
    ports = []
    for _ in range(2):
        end.dispatch.tick(end.dispatch.due())
        left = end.left()
        assert [datagram for _, datagram in left] == [b"\1", b"\0"]
        (port,) = {port for port, _ in left}
        ports.append(port)
    assert sorted(ports) == [1, 2]


def test_what_a_silent_path_took_last_is_rescued_once() -> None:
    """Over the other path and the stream, each datagram that mosh has not sent again by itself."""
    end = End(2)
    end.sends(NOW - MAX_AGE, b"old")
    end.path.take_answer(end.seal.number - 1, end.path.sent, NOW - 1)  # of which the dispatch is not told
    end.sends(NOW - DOUBT_AFTER, b"key")
    end.left()
    end.dispatch.rescue(NOW)
    assert sorted(end.left()) == [(1, b"key"), (2, b"key")]
    assert end.flows(NOW) == [DOUBTING_FLOW]
    end.dispatch.rescue(NOW)
    assert (end.left(), end.flows(NOW), end.counts["datagrams_rescued"]) == ([], [], 1)


def test_datagrams_are_numbered_upward() -> None:
    """From 0, whichever carriers they take."""
    end = End(0)
    for datagram in (b"one", b"two", b"three"):
        end.dispatch.send(datagram, NOW)
    assert [(each.number, each.payload) for each in end.frames(NOW)] == [(0, b"one"), (1, b"two"), (2, b"three")]


def test_a_datagram_without_a_carrier_is_counted() -> None:
    """It is lost, and mosh sends another."""
    end = End(0, has_stream=False)
    end.dispatch.send(b"key", NOW)
    assert end.counts["datagrams_without_carrier"] == 1


@pytest.mark.parametrize(("size", "grown"), [(1216, False), (1217, True), (1252, True)])
def test_a_larger_datagram_than_before_has_the_paths_asked(size: int, grown: bool) -> None:
    """Whether they pass such ones; until then it takes the stream."""
    end = End()
    assert end.sends(NOW, bytes(size)) == ([CALM_FLOW] if grown else [])
    assert end.paths.full == max(1216, size)
    assert (end.path.due(in_use=True, is_active=False) <= NOW) is grown


def test_the_flows_on_the_wire() -> None:
    """Flow 0 is calm, and flow 1 tells of doubt: peers of other versions rely on that."""
    assert (CALM_FLOW, DOUBTING_FLOW) == (0, 1)


@pytest.mark.parametrize(("is_client", "times"), [(True, 3), (False, 8)])
def test_only_mosh_servers_datagrams_are_echoes(is_client: bool, times: int) -> None:
    """The client's end sends an unanswered datagram again three times, and mosh-server's end five times more."""
    end = End(is_client=is_client)
    end.sends(NOW)
    end.dispatch.tick(NOW)
    end.left()
    sent = []
    while (due := end.dispatch.due()) < inf:
        end.dispatch.tick(due)
        sent += end.left()
    assert sent == [(1, b"key")] * times


def test_the_first_path_says_when_an_answer_is_late_and_how_often_to_send_again() -> None:
    """It took the datagram, whatever the round trip of the path that shares the copies."""
    end = End(2, rtts=(0.2, 0.22))
    usual = end.path.rtt or 0.0
    assert usual == pytest.approx(0.2)
    end.sends(NOW)
    end.dispatch.tick(NOW)
    late = end.dispatch.due()
    assert late == NOW + end.path.trips.late
    end.dispatch.tick(late)
    assert end.dispatch.due() == pytest.approx(late + usual / 8)


def test_the_newest_datagram_says_whose_turn_it_is() -> None:
    """An older one that was sent again before goes with it, though a turn ahead."""
    end = End(2)
    end.sends(NOW, b"old")
    end.dispatch.tick(NOW)
    end.left()
    late = end.dispatch.due()
    end.dispatch.tick(late)
    assert end.left() == [(2, b"old")]
    end.sends(late, b"new")
    end.dispatch.tick(late)
    end.left()
    end.dispatch.tick(end.dispatch.due())
    assert end.left() == [(2, b"new"), (2, b"old")]


def test_a_copy_that_the_budget_does_not_allow_is_left_out() -> None:
    """And counted; the datagram itself leaves in any case."""
    end = End(budget=0.1)  # 25 bytes at once
    for step in range(10):
        end.path.loss.learn(10 * step, 9 * step, NOW - 10 + step)
    end.sends(NOW)
    end.dispatch.tick(NOW)
    end.dispatch.tick(NOW + SPACING[-1])
    assert end.left() == [(1, b"key")]
    assert end.counts["copies_out"] == 0
    assert end.counts["copies_over_budget"] == 2
