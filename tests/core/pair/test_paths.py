"""Which path is used, from a table, and what the network can make of the paths: little."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest

from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.core.pair.path import DEAD_AFTER, DOUBT_AFTER, HOLD_AFTER_LOSS, NEEDED_SIZE, PROBE_TIMES, Path
from tunneld.core.pair.paths import MAX_FOUND, MAX_PATHS, MIN_STAY, Paths, choose_path

NOW = 1000.0
HERE = UdpAddress("192.0.2.1", 5000)


def answers(path: Path, rtt: float, when: float, *, full: int = NEEDED_SIZE, lost: int = 0) -> None:
    """The path is asked as often as it wants to be, and answers after `rtt`, until full datagrams have passed."""
    number = int(when * 1000) * 100
    while not path.passes():
        path.ask(number, full, when)
        path.take_answer(number, path.sent - lost, when + rtt)
        number += 1
        when += rtt
    path.held_until = 0.0


class Alike(NamedTuple):
    """A path as the table below has it."""

    kind: str = "lan"
    rtt: float = 0.05
    state: str = "open"


def made(alike: Alike, port: int) -> Path:
    path = Path(alike.kind, "4", UdpAddress("192.0.2.1", port), NOW - 100)
    if alike.state == "tried":
        return path
    answers(path, alike.rtt, NOW - 60)
    if alike.state == "silent":
        path.ask(1, NEEDED_SIZE, NOW - DOUBT_AFTER)
    elif alike.state == "warned":
        path.warn(NOW)
    elif alike.state == "held":
        path.give_up(NOW - 50)
        answers(path, alike.rtt, NOW - 50)
        path.held_until = NOW + 5
    elif alike.state == "lossy":
        path.hold_for_loss(NOW - 1)
    return path


# Current first (None: there is none), then the others; the place of the one to use, of all; whether we are patient.
TABLE: list[tuple[list[Alike | None], int | None, bool]] = [
    ([None], None, False),
    ([None, Alike(state="tried")], None, False),
    ([None, Alike(rtt=0.1), Alike(rtt=0.05)], 2, False),
    ([None, Alike("relay", 0.01), Alike(rtt=0.3)], 2, False),
    ([None, Alike(state="held")], None, False),
    ([None, Alike(state="lossy")], 1, False),
    ([None, Alike(state="lossy"), Alike("relay")], 2, False),
    ([Alike(), Alike(rtt=0.046)], 0, False),  # not 5 ms
    ([Alike(rtt=0.1), Alike(rtt=0.092)], 0, False),  # not a tenth
    ([Alike(), Alike(rtt=0.04)], 1, False),
    ([Alike(), Alike(rtt=0.04)], 0, True),
    ([Alike("relay", 0.01), Alike(rtt=0.3)], 1, False),
    ([Alike("relay", 0.01), Alike(rtt=0.3)], 0, True),
    ([Alike(), Alike("relay", 0.001)], 0, False),
    ([Alike(state="silent"), Alike("relay", 0.3)], 1, False),
    ([Alike(state="silent"), Alike("relay", 0.3)], 0, True),
    ([Alike(state="silent"), Alike(rtt=0.04, state="silent")], 0, False),
    ([Alike(state="silent"), Alike(state="held")], 0, False),
    ([Alike(state="warned"), Alike(rtt=0.046)], 0, False),
    ([Alike(state="lossy"), Alike("relay", 0.3)], 1, False),
    ([Alike(state="lossy"), Alike("relay", 0.3)], 0, True),
    ([Alike(state="lossy"), Alike(state="silent")], 1, False),
    ([Alike(state="lossy"), Alike(state="tried")], 0, False),
    ([Alike(state="lossy"), Alike(state="held")], 0, False),
    ([Alike(state="held"), Alike(state="tried")], None, False),
]


@pytest.mark.parametrize(("alikes", "expected", "must_stay"), TABLE)
def test_the_path_to_use(alikes: list[Alike | None], expected: int | None, must_stay: bool) -> None:
    """Direct before relayed, then the shortest round trip, and no change for less than is felt."""
    paths = [made(alike, port) if alike else None for port, alike in enumerate(alikes)]
    real = [path for path in paths if path]
    chosen = choose_path(paths[0], real, NOW, must_stay=must_stay)
    assert (paths.index(chosen) if chosen else None) == expected


def test_a_candidate_is_tried_and_then_left_until_the_next_round() -> None:
    """At the moments of the table, and no more often."""
    path = Path("lan", "4", HERE, NOW)
    moments = list[float]()
    while (due := path.due(in_use=False, is_active=False)) < NOW + 1000:
        path.ask(len(moments), NEEDED_SIZE, due)
        moments.append(due)
    assert moments == [NOW + after for after in PROBE_TIMES]
    path.start(NOW + 100)
    assert path.due(in_use=False, is_active=False) == NOW + 100


def test_a_path_passes_after_a_small_and_a_full_answer() -> None:
    """A small one alone proves nothing about a large screen."""
    path = Path("lan", "4", HERE, NOW)
    assert path.ask(0, NEEDED_SIZE, NOW) == 0
    assert path.take_answer(0, 1, NOW + 0.05)
    assert not path.passes()
    assert path.ask(1, NEEDED_SIZE, NOW + 0.05) == NEEDED_SIZE
    assert path.take_answer(1, 2, NOW + 0.1)
    assert path.passes()


def test_an_answer_that_was_overtaken_brings_no_doubt_back() -> None:
    """A later question was answered, and one between the two got lost: the path lives."""
    path = Path("lan", "4", HERE, NOW - 10)
    answers(path, 0.05, NOW - 10)
    for number in range(3):
        path.expect(number, NOW + number / 10)
    path.take_answer(2, path.sent, NOW + 0.3)
    path.take_answer(0, path.sent, NOW + 3)
    assert path.waited(NOW + 3) == 0


def test_a_queue_that_comes_and_goes_is_no_longer_round_trip() -> None:
    """However many questions meet it."""
    path = Path("lan", "4", HERE, NOW - 10)
    answers(path, 0.05, NOW - 10)
    for number in range(100):
        path.expect(number, NOW + number / 50)
        path.take_answer(number, path.sent, NOW + number / 50 + 1)
    assert path.trips.shortest == pytest.approx(0.05)


def test_an_answer_that_nobody_asked_for_is_none() -> None:
    """Nor is a second one to the same question."""
    path = Path("lan", "4", HERE, NOW)
    path.ask(0, NEEDED_SIZE, NOW)
    assert not path.take_answer(1, 1, NOW)
    assert path.take_answer(0, 1, NOW)
    assert not path.take_answer(0, 1, NOW)


def test_silence_is_doubted_and_then_ends_the_path() -> None:
    """Counted from the first probe without an answer; the answer to an earlier one does not count."""
    path = made(Alike(), 1)
    path.ask(10, NEEDED_SIZE, NOW)
    path.ask(11, NEEDED_SIZE, NOW + 0.2)
    assert not path.is_doubtful(NOW + 0.49)
    assert path.is_doubtful(NOW + DOUBT_AFTER)
    path.take_answer(10, 5, NOW + DOUBT_AFTER)
    assert not path.is_doubtful(NOW + 0.69)
    assert path.is_doubtful(NOW + 0.2 + DOUBT_AFTER)
    assert path.is_dead(NOW + 0.2 + DEAD_AFTER)


def test_a_long_round_trip_is_given_its_time() -> None:
    """Three of a satellite's are 2.1 seconds."""
    path = made(Alike(rtt=0.7), 1)
    path.ask(10, NEEDED_SIZE, NOW)
    assert not path.is_doubtful(NOW + 2.0)
    assert path.is_doubtful(NOW + 2.2)
    assert not path.is_dead(NOW + DEAD_AFTER)


def test_a_path_that_dies_again_and_again_is_held_back_for_longer() -> None:
    """Not the first time: a link that blinks is used again at once."""
    path = made(Alike(), 1)
    held = []
    for when in range(1100, 1700, 100):
        path.give_up(float(when))
        held.append(path.held_until - when)
        answers(path, 0.05, when + 60)
    assert held == [0, 2, 6, 14, 30, 30]


def test_loss_holds_a_path_back_and_time_forgives() -> None:
    """Thirty seconds, then twice that; a change of network starts anew."""
    path = made(Alike(), 1)
    path.hold_for_loss(NOW)
    assert path.held_until == NOW + HOLD_AFTER_LOSS
    path.hold_for_loss(NOW)
    assert path.held_until == NOW + 2 * HOLD_AFTER_LOSS
    path.doubt_everything(NOW)
    assert path.held_until == NOW
    assert path.is_doubtful(NOW)


def test_paths_are_bounded_whatever_is_offered() -> None:
    """And whatever sources authenticated packets come from: the stalest that never answered gives way."""
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
    """Eight at once, then one each five seconds: two NATs could go on inventing ports."""
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
    """A hundred a second."""
    paths = Paths(Counter(), NOW)
    assert sum(paths.may_probe(NOW + step / 1000) for step in range(10_000)) <= 100 + 1000


def test_what_is_no_longer_offered_and_never_spoke_is_forgotten() -> None:
    """What spoke stays as long as it speaks."""
    paths = Paths(Counter(), NOW)
    paths.open("4", 4, NOW)
    paths.offer([Candidate("lan", HERE), Candidate("lan", HERE._replace(port=6))], NOW)
    paths.heard("4", HERE, NOW, asks=True)
    paths.offer([], NOW)
    assert [path.kind for path in paths] == ["peer"]
    paths.review(NOW + 61)
    assert len(paths) == 0


def test_a_socket_takes_its_paths_along() -> None:
    """The one in use, too."""
    paths = Paths(Counter(), NOW)
    paths.open("4", 4, NOW)
    paths.offer([Candidate("lan", HERE)], NOW)
    answers(next(iter(paths)), 0.05, NOW)
    assert paths.review(NOW + 1) == "it answers"
    paths.shut("4")
    assert paths.review(NOW + 2) == "its socket is gone"
    assert paths.current is None


def test_a_family_is_tried_from_its_own_socket_alone() -> None:
    """IPv6 addresses from the IPv6 socket."""
    paths = Paths(Counter(), NOW)
    paths.offer([Candidate("lan", HERE), Candidate("lan", UdpAddress("2001:db8::1", 5000))], NOW)
    paths.open("six", 6, NOW)
    paths.open("four", 4, NOW)
    assert {(path.local, path.remote.family) for path in paths} == {("six", 6), ("four", 4)}


def test_the_first_better_path_counts_at_once_and_later_ones_must_wait() -> None:
    """The relay answers first, and the direct path a moment later; after that, each move doubles the wait."""
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
