"""Which path is used, from a table, and how few paths the network can make."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.core.pair.sample_paths import HERE, NOW, Sample, answers, made
from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.core.pair.path import FORGIVE_AFTER, NEEDED_SIZE, Path
from tunneld.core.pair.paths import FORGET_AFTER, MAX_FOUND, MAX_PATHS, MIN_STAY, Paths, choose_path

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


def with_paths(*candidates: Candidate) -> tuple[Paths, list[Path]]:
    """Paths to these candidates, all of which have answered a minute ago; the best is in use since."""
    paths = Paths(Counter[str](), NOW - 60)
    paths.open("4", 4, NOW - 60)
    paths.offer(candidates, NOW - 60)
    for path in paths:
        answers(path, 0.05, NOW - 60)
    paths.review(NOW - 59)
    return paths, list(paths)


def at(port: int, kind: str = "lan") -> Candidate:
    return Candidate(kind, HERE._replace(port=port))


def grows_shorter(path: Path, now: float) -> None:
    """The path answers a question within 10 ms."""
    path.expect(77, now - 0.01)
    path.take_answer(77, path.sent, now)


def test_only_a_packet_that_asks_makes_a_path() -> None:
    """Others, answers above all, are taken without one."""
    paths = Paths(Counter[str](), NOW)
    assert paths.heard("4", HERE, NOW, asks=False) is None
    assert len(paths) == 0
    assert paths.heard("4", HERE, NOW, asks=True) is not None


def test_offered_paths_and_those_that_answer_give_no_way() -> None:
    """A new source address is refused when all places are taken by such paths, or by the one in use."""
    full, _ = with_paths(*[at(1 + port) for port in range(MAX_PATHS)])
    assert full.heard("4", HERE._replace(port=999), NOW, asks=True) is None
    paths = Paths(Counter[str](), NOW)
    found = [paths.heard("4", HERE._replace(port=1 + port), NOW, asks=True) for port in range(MAX_FOUND)]
    for path in filter(None, found):
        answers(path, 0.05, NOW)
    paths.review(NOW + 1)
    assert paths.heard("4", HERE._replace(port=999), NOW + 100, asks=True) is None
    assert paths.current
    paths.current.answered = None
    assert paths.heard("4", HERE._replace(port=999), NOW + 200, asks=True) is None


@pytest.mark.parametrize(
    ("sent", "lost", "is_held"), [(100, 25, False), (100, 26, True), (19, 19, False), (20, 20, True), (20, 5, False)]
)
def test_a_path_that_surely_lost_over_a_fifth_is_held_back(sent: int, lost: int, is_held: bool) -> None:
    """By more than chance, and of twenty packets at least."""
    paths, (path,) = with_paths(at(1))
    path.loss.forget()
    for count, missing, when in ((0, 0, NOW - 3), (sent, lost, NOW - 1), (sent, lost, NOW)):
        path.loss.learn(count, count - missing, when)
    paths.review(NOW)
    assert (path.state(NOW) == "held back") is is_held


@pytest.mark.parametrize(("is_doubtful", "held"), [(False, 30), (True, 60)])
def test_two_minutes_in_use_without_a_doubt_forgive_earlier_faults(is_doubtful: bool, held: float) -> None:
    """The next hold is as short as the first."""
    paths, (path,) = with_paths(at(1))
    path.hold_for_loss(NOW - 59)
    path.held_until = NOW - 59
    later = NOW - 59 + FORGIVE_AFTER + 1
    if is_doubtful:
        path.warn(later)
    paths.review(later)
    path.hold_for_loss(later)
    assert path.held_until == later + held


def test_the_path_in_use_is_not_forgotten() -> None:
    """Though nobody offers it any more, and nothing was heard there for a minute."""
    paths, (path,) = with_paths(at(1))
    path.heard = NOW - 59
    paths.offer([], NOW)
    assert path.kind == "peer"
    paths.review(NOW + 2 * FORGET_AFTER)
    assert list(paths) == [path]


def test_a_move_lets_a_better_path_count_at_once() -> None:
    """After moves between paths that live the next one waits, and the choice is due when that ends."""
    paths, (first, second) = with_paths(at(1), at(2))
    first.expect(78, NOW - 0.05)
    first.take_answer(78, first.sent, NOW)
    grows_shorter(second, NOW)
    assert paths.review(NOW) == "shorter round trip"
    assert paths.due(NOW, is_active=False) == NOW + MIN_STAY
    first.trips.forget_shortest()
    first.trips.usual = 0.001
    assert paths.review(NOW + 0.5) is None
    paths.moved(NOW + 0.5)
    first.trips.usual = 0.001
    assert paths.review(NOW + 0.6) == "shorter round trip"


def test_leaving_a_dead_path_makes_no_move_wait() -> None:
    """Only moves between paths that live could swing."""
    paths, (first, second) = with_paths(at(1), at(2))
    first.give_up(NOW)
    assert paths.review(NOW) == "the one before went silent"
    answers(first, 0.01, NOW)
    assert paths.review(NOW + 0.1) == "shorter round trip"
    assert paths.current is first
    assert second.passes()


def test_a_path_whose_socket_closed_is_left_for_another_at_once() -> None:
    """The reason names the socket."""
    paths, (first,) = with_paths(at(1))
    paths.open("other", 4, NOW)
    (second,) = (path for path in paths if path is not first)
    answers(second, 0.05, NOW)
    paths.shut("4")
    assert paths.review(NOW + 1) == "the one before its socket is gone"
    assert paths.current is second


def test_a_relayed_path_is_not_direct() -> None:
    """So rounds go on, to find a direct one; of two kinds for one address the first counts."""
    assert not with_paths(at(1, "relay"), at(1))[0].has_direct(NOW)
    assert with_paths(at(1), at(1, "relay"))[0].has_direct(NOW)
