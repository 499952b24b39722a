"""Which carriers a datagram takes, from a table."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.core.pair.sample_paths import NOW, Sample, made
from tunneld.core.pair.path import NEEDED_SIZE
from tunneld.core.pair.round_trips import QUEUED
from tunneld.core.pair.route import NEW_FOR, is_new, route
from tunneld.core.stream import frame
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.choice import SMALL_DATAGRAM
from tunneld.core.stream.frame import Frame


def stream(*, rtt: float = 0.05, is_late: bool = False) -> StreamCarrier:
    """A stream that has greeted, with this round trip."""
    carrier = StreamCarrier("ssh", NOW - 10, dedicated=True)
    hello = frame.message(frame.HELLO, {"versions": [frame.PROTOCOL_VERSION]})
    carrier.receive(frame.PREAMBLE + hello.encode(), NOW - 10)
    carrier.ping(NOW - 10)
    carrier.receive(Frame(frame.PONG).encode(), NOW - 10 + rtt)
    if is_late:
        carrier.ping(NOW - 5)
    return carrier


@dataclass
class Case:
    """What is there, and by their places the `paths`, and the further ones `beside`, that the datagram should take."""

    about: str
    known: list[Sample]
    paths: list[int]
    beside: list[int] = field(default_factory=list)
    streams: bool = False
    size: int = SMALL_DATAGRAM
    in_use: bool = True  # the first one known
    is_new: bool = False
    with_streams: list[StreamCarrier] = field(default_factory=lambda: [stream()])


OPEN, LOSSY, NARROW, WARNED = (Sample(state=state) for state in ("open", "lossy", "narrow", "warned"))
LARGE = SMALL_DATAGRAM + 1
CASES = [
    Case("a path in use carries alone", [OPEN], [0]),
    Case("a large datagram as well", [OPEN], [0], size=NEEDED_SIZE),
    Case("a path of nearly the same length shares copies", [OPEN, Sample(rtt=0.094), Sample(rtt=0.09)], [0, 2]),
    Case("a longer one does not", [OPEN, Sample(rtt=0.096)], [0]),
    Case("nor does one that is held back, silent or narrow", [OPEN, LOSSY, Sample(state="silent"), NARROW], [0]),
    Case("a new path has streams beside it", [OPEN, OPEN], [0], streams=True, is_new=True),
    Case("a path a little longer than the stream carries alone", [Sample(rtt=0.082)], [0]),
    Case("than the shortest of two streams", [Sample(rtt=0.1)], [0], streams=True, with_streams=[
        stream(), stream(rtt=0.3)
    ]),
    Case("a path longer than that has help with small datagrams", [Sample(rtt=0.083)], [0], streams=True),
    Case("but not with large ones", [Sample(rtt=0.3)], [0], size=LARGE),
    Case("a doubtful path has streams and three paths to help", [WARNED, *[OPEN] * 4], [0], [1, 2, 3], streams=True),
    Case("and so have large datagrams", [WARNED, OPEN], [0], [1], streams=True, size=LARGE),
    Case("a lossy path has streams and one path to help", [LOSSY, OPEN, OPEN], [0], [1], streams=True),
    Case("the shortest one", [LOSSY, OPEN, Sample(rtt=0.02)], [0], [2], streams=True),
    Case("and so have large datagrams of a lossy path", [LOSSY, OPEN], [0], [1], streams=True, size=LARGE),
    Case("what has just passed takes the path", [OPEN], [0], streams=True, size=NEEDED_SIZE, is_new=True),
    Case("what is larger than has passed takes streams", [OPEN], [], streams=True, size=NEEDED_SIZE + 1),
    Case("or the path where there are none", [OPEN], [0], size=NEEDED_SIZE + 1, with_streams=[]),
    Case("without a path in use streams carry", [], [], streams=True, in_use=False),
    Case("small datagrams take what was found wanting, too", [NARROW, LOSSY], [0], streams=True, in_use=False),
    Case("large ones do not", [NARROW], [], streams=True, in_use=False, size=LARGE),
    Case("unless the stream is late", [NARROW], [0], in_use=False, size=LARGE, streams=True, with_streams=[
        stream(is_late=True)
    ]),
    Case("without streams two paths carry", [NARROW, NARROW, NARROW], [0], [1], in_use=False, with_streams=[]),
    Case("nothing is left", [], [], in_use=False, with_streams=[]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.about)
def test_the_carriers_of_a_datagram(case: Case) -> None:
    """Paths, further paths and streams, as the table has them."""
    known = [made(sample, port) for port, sample in enumerate(case.known)]
    current = known[0] if case.in_use else None
    taken = route(case.size, NOW, current=current, is_new=case.is_new, known=known, streams=case.with_streams)
    assert [known.index(path) for path in taken.paths] == case.paths
    assert [known.index(path) for path in taken.beside] == case.beside
    assert taken.streams == (case.with_streams if case.streams else [])


def test_a_path_with_a_queue_shares_no_copies() -> None:
    """They would wait behind the rest."""
    current, other = made(Sample(), 1), made(Sample(), 2)
    known = [current, other]
    assert route(SMALL_DATAGRAM, NOW, current=current, is_new=False, known=known, streams=[]).paths == known
    for number in range(QUEUED):
        other.trips.learn(NOW - 1, NOW - 1 + 0.15 + number / 100)
    assert other.trips.has_queue
    assert route(SMALL_DATAGRAM, NOW, current=current, is_new=False, known=known, streams=[]).paths == [current]


def test_the_path_that_answered_last_is_the_last_resort() -> None:
    """Even one that has gone silent since, when there is no stream."""
    early, late = made(Sample(), 1), made(Sample(), 2)
    for path, when in ((early, NOW - 9), (late, NOW - 8)):
        path.expect(1, when - 0.05)
        path.take_answer(1, path.sent, when)
    gone = made(Sample(), 3)
    gone.give_up(NOW)
    for known, paths in (([early, late, gone], [late, early]), ([gone, early], [early, gone])):
        taken = route(SMALL_DATAGRAM, NOW, current=None, is_new=False, known=known, streams=[])
        assert [*taken.paths, *taken.beside] == paths
    assert route(SMALL_DATAGRAM, NOW, current=None, is_new=False, known=[gone], streams=[stream()]).paths == []


def test_a_path_is_new_for_a_second_or_two_round_trips() -> None:
    """Whichever is longer."""
    short, long = made(Sample(rtt=0.05)), made(Sample(rtt=0.7))
    assert is_new(short, NOW - NEW_FOR + 0.01, NOW)
    assert not is_new(short, NOW - NEW_FOR, NOW)
    assert is_new(long, NOW - 1.39, NOW)
    assert not is_new(long, NOW - 1.41, NOW)
