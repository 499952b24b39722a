"""Which path is used, from a table, and how few paths the network can make."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.core.pair.sample_paths import HERE, NOW, Sample, answers, made
from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.core.pair.path import NEEDED_SIZE
from tunneld.core.pair.paths import MAX_FOUND, MAX_PATHS, MIN_STAY, Paths, choose_path

# Current first (None: there is none), then the others; the place of the one to use, of all; whether we are patient.
TABLE: list[tuple[list[Sample | None], int | None, bool]] = [
    ([None], None, False),
    ([None, Sample(state="tried")], None, False),
    ([None, Sample(rtt=0.1), Sample(rtt=0.05)], 2, False),
    ([None, Sample("relay", 0.01), Sample(rtt=0.3)], 2, False),
    ([None, Sample(state="held")], None, False),
    ([None, Sample(state="lossy")], 1, False),
    ([None, Sample(state="lossy"), Sample("relay")], 2, False),
    ([Sample(), Sample(rtt=0.046)], 0, False),  # not 5 ms
    ([Sample(rtt=0.1), Sample(rtt=0.092)], 0, False),  # not a tenth
    ([Sample(), Sample(rtt=0.04)], 1, False),
    ([Sample(), Sample(rtt=0.04)], 0, True),
    ([Sample("relay", 0.01), Sample(rtt=0.3)], 1, False),
    ([Sample("relay", 0.01), Sample(rtt=0.3)], 0, True),
    ([Sample(), Sample("relay", 0.001)], 0, False),
    ([Sample(state="silent"), Sample("relay", 0.3)], 1, False),
    ([Sample(state="silent"), Sample("relay", 0.3)], 0, True),
    ([Sample(state="silent"), Sample(rtt=0.04, state="silent")], 0, False),
    ([Sample(state="silent"), Sample(state="held")], 0, False),
    ([Sample(state="warned"), Sample(rtt=0.046)], 0, False),
    ([Sample(state="lossy"), Sample("relay", 0.3)], 1, False),
    ([Sample(state="lossy"), Sample("relay", 0.3)], 0, True),
    ([Sample(state="lossy"), Sample(state="silent")], 1, False),
    ([Sample(state="lossy"), Sample(state="tried")], 0, False),
    ([Sample(state="lossy"), Sample(state="held")], 0, False),
    ([Sample(state="held"), Sample(state="tried")], None, False),
]


@pytest.mark.parametrize(("samples", "expected", "must_stay"), TABLE)
def test_the_path_to_use(samples: list[Sample | None], expected: int | None, must_stay: bool) -> None:
    """A direct path comes first, then the shortest round trip, and nobody moves for less than a person feels."""
    paths = [made(sample, port) if sample else None for port, sample in enumerate(samples)]
    real = [path for path in paths if path]
    chosen = choose_path(paths[0], real, NOW, must_stay=must_stay)
    assert (paths.index(chosen) if chosen else None) == expected


def test_paths_are_bounded_whatever_is_offered() -> None:
    """Of paths from new source addresses, the one heard longest ago that never answered gives way to a new one."""
    counts = Counter[str]()
    paths = Paths(counts, NOW)
    paths.open("4", 4, NOW)
    for port in range(1, 1000):
        paths.heard("4", HERE._replace(port=port), NOW + port, asks=True)
        assert len(paths) <= MAX_FOUND
    assert sum(1 for path in paths if path.created > NOW + 900) == MAX_FOUND
    paths.offer([Candidate("lan", HERE._replace(port=port)) for port in range(1000, 1100)], NOW)
    assert len(paths) == MAX_PATHS
    assert counts["paths_refused"] > 0


def test_new_addresses_of_the_peers_make_few_paths() -> None:
    """Eight may appear at once and then one each five seconds, because two NATs could go on inventing ports."""
    paths = Paths(Counter(), NOW)
    for step in range(300):
        paths.heard("4", HERE._replace(port=1 + step), NOW + step / 10, asks=True)
    assert len(paths) == MAX_FOUND
    assert paths._counts["paths_refused"] == 300 - MAX_FOUND - 5


def test_paths_that_take_turns_in_being_shorter_do_not_swing() -> None:
    """Each move makes the next one wait twice as long, up to a minute."""
    paths = Paths(Counter(), NOW)
    paths.open("4", 4, NOW)
    paths.offer([Candidate("lan", HERE), Candidate("lan", HERE._replace(port=6))], NOW)
    moves = 0
    for second in range(600):
        now = NOW + second
        for path in paths:
            rtt = 0.05 if path is paths.current else 0.01
            for number in range(16):
                path.ask(second * 100 + number, NEEDED_SIZE, now - rtt)
                path.take_answer(second * 100 + number, path.sent, now)
        moves += paths.review(now) is not None
    assert 6 <= moves <= 16


def test_probes_are_bounded_whatever_happens() -> None:
    """All paths together may send a hundred probes a second."""
    paths = Paths(Counter(), NOW)
    assert sum(paths.may_probe(NOW + step / 1000) for step in range(10_000)) <= 100 + 1000


def test_what_is_no_longer_offered_and_never_spoke_is_forgotten() -> None:
    """A path whose peer was heard is kept for a minute after the last packet."""
    paths = Paths(Counter(), NOW)
    paths.open("4", 4, NOW)
    paths.offer([Candidate("lan", HERE), Candidate("lan", HERE._replace(port=6))], NOW)
    paths.heard("4", HERE, NOW, asks=True)
    paths.offer([], NOW)
    assert [path.kind for path in paths] == ["peer"]
    paths.review(NOW + 61)
    assert len(paths) == 0


def test_a_socket_takes_its_paths_along() -> None:
    """When a socket closes its paths go, the one in use included."""
    paths = Paths(Counter(), NOW)
    paths.open("4", 4, NOW)
    paths.offer([Candidate("lan", HERE)], NOW)
    answers(next(iter(paths)), 0.05, NOW)
    assert paths.review(NOW + 1) == "it answers"
    paths.shut("4")
    assert paths.review(NOW + 2) == "its socket is gone"
    assert paths.current is None


def test_a_family_is_tried_from_its_own_socket_alone() -> None:
    """IPv6 addresses are probed from the IPv6 socket, IPv4 addresses from the IPv4 socket."""
    paths = Paths(Counter(), NOW)
    paths.offer([Candidate("lan", HERE), Candidate("lan", UdpAddress("2001:db8::1", 5000))], NOW)
    paths.open("six", 6, NOW)
    paths.open("four", 4, NOW)
    assert {(path.local, path.remote.family) for path in paths} == {("six", 6), ("four", 4)}


def test_the_first_better_path_counts_at_once_and_later_ones_must_wait() -> None:
    """The relay answers first and the direct path a moment later; after that move, each move doubles the wait."""
    paths = Paths(Counter[str](), NOW)
    paths.open("4", 4, NOW)
    by_relay, far, near = (HERE._replace(port=port) for port in (1, 2, 3))
    paths.offer([Candidate("relay", by_relay), Candidate("lan", far), Candidate("lan", near)], NOW)
    known = {path.remote: path for path in paths}
    used = []
    for remote, rtt, when in ((by_relay, 0.02, 0.0), (far, 0.05, 0.1), (near, 0.03, 0.2)):
        answers(known[remote], rtt, NOW + when)
        paths.review(NOW + when + 0.001)
        used.append(paths.current)
    paths.review(NOW + 0.101 + MIN_STAY)
    assert [*used, paths.current] == [known[remote] for remote in (by_relay, far, far, near)]
