"""One path: when it is probed, when it may be used, and what makes it doubtful, dead or held back."""

from __future__ import annotations

from math import inf

import pytest

from tests.core.pair.sample_paths import HERE, NOW, Sample, answers, made
from tunneld.core.pair.path import (
    ACTIVE_BEAT,
    COMPANION_AFTER,
    DEAD_AFTER,
    DOUBT_AFTER,
    HOLD_AFTER_LOSS,
    IDLE_BEAT,
    MAX_FULL_PROBES,
    MAX_QUESTIONS,
    NEEDED_SIZE,
    PROBE_TIMES,
    RECHECK_AFTER,
    URGENT_BEAT,
    Path,
)


def test_a_candidate_is_tried_and_then_left_until_the_next_round() -> None:
    """A candidate is probed at the moments of PROBE_TIMES, and no more often."""
    path = Path("lan", "4", HERE, NOW)
    moments = list[float]()
    while (due := path.due(in_use=False, is_active=False)) < NOW + 1000:
        path.ask(len(moments), NEEDED_SIZE, due)
        moments.append(due)
    assert moments == [NOW + after for after in PROBE_TIMES]
    path.start(NOW + 100)
    assert path.due(in_use=False, is_active=False) == NOW + 100


def test_a_path_passes_after_a_small_and_a_full_answer() -> None:
    """An answer to a small probe alone proves nothing about a large screen."""
    path = Path("lan", "4", HERE, NOW)
    assert path.ask(0, NEEDED_SIZE, NOW) == 0
    assert path.take_answer(0, 1, NOW + 0.05)
    assert not path.passes()
    assert path.ask(1, NEEDED_SIZE, NOW + 0.05) == NEEDED_SIZE
    assert path.take_answer(1, 2, NOW + 0.1)
    assert path.passes()


def test_an_answer_that_was_overtaken_brings_no_doubt_back() -> None:
    """Once a later question was answered, a question that got lost before it is no silence."""
    path = Path("lan", "4", HERE, NOW - 10)
    answers(path, 0.05, NOW - 10)
    for number in range(3):
        path.expect(number, NOW + number / 10)
    path.take_answer(2, path.sent, NOW + 0.3)
    path.take_answer(0, path.sent, NOW + 3)
    assert path.waited(NOW + 3) == 0


def test_a_queue_that_comes_and_goes_is_no_longer_round_trip() -> None:
    """A short queue does not change the shortest round trip, however many questions meet the queue."""
    path = Path("lan", "4", HERE, NOW - 10)
    answers(path, 0.05, NOW - 10)
    for number in range(100):
        path.expect(number, NOW + number / 50)
        path.take_answer(number, path.sent, NOW + number / 50 + 1)
    assert path.trips.shortest == pytest.approx(0.05)


def test_an_answer_that_nobody_asked_for_is_none() -> None:
    """An answer counts once, and only to a question that was asked."""
    path = Path("lan", "4", HERE, NOW)
    path.ask(0, NEEDED_SIZE, NOW)
    assert not path.take_answer(1, 1, NOW)
    assert path.take_answer(0, 1, NOW)
    assert not path.take_answer(0, 1, NOW)


def test_silence_is_doubted_and_then_ends_the_path() -> None:
    """Silence is counted from the first question without an answer; an answer to an earlier one does not end it."""
    path = made(Sample(), 1)
    path.ask(10, NEEDED_SIZE, NOW)
    path.ask(11, NEEDED_SIZE, NOW + 0.2)
    assert not path.is_doubtful(NOW + 0.49)
    assert path.is_doubtful(NOW + DOUBT_AFTER)
    path.take_answer(10, 5, NOW + DOUBT_AFTER)
    assert not path.is_doubtful(NOW + 0.69)
    assert path.is_doubtful(NOW + 0.2 + DOUBT_AFTER)
    assert path.is_dead(NOW + 0.2 + DEAD_AFTER)


def test_a_long_round_trip_is_given_its_time() -> None:
    """A satellite's path is doubted after three of its round trips, 2.1 s."""
    path = made(Sample(rtt=0.7), 1)
    path.ask(10, NEEDED_SIZE, NOW)
    assert not path.is_doubtful(NOW + 2.0)
    assert path.is_doubtful(NOW + 2.2)
    assert not path.is_dead(NOW + DEAD_AFTER)


def test_a_path_that_dies_again_and_again_is_held_back_for_longer() -> None:
    """The first death costs no hold, since a link may blink; each further one doubles it, up to 30 s."""
    path = made(Sample(), 1)
    held = []
    for when in range(1100, 1700, 100):
        path.give_up(float(when))
        held.append(path.held_until - when)
        answers(path, 0.05, when + 60)
    assert held == [0, 2, 6, 14, 30, 30]


def test_loss_holds_a_path_back_and_time_forgives() -> None:
    """Loss holds a path back for 30 s, then twice that; a change of network ends the hold."""
    path = made(Sample(), 1)
    path.hold_for_loss(NOW)
    assert path.held_until == NOW + HOLD_AFTER_LOSS
    path.hold_for_loss(NOW)
    assert path.held_until == NOW + 2 * HOLD_AFTER_LOSS
    path.doubt_everything(NOW)
    assert path.held_until == NOW
    assert path.is_doubtful(NOW)


def test_a_full_probe_without_an_answer_is_no_silence() -> None:
    """The size may be what does not pass, so only small questions put a path in doubt."""
    path = made(Sample())
    path.grow(NOW)
    assert path.ask(10, NEEDED_SIZE, NOW) == NEEDED_SIZE
    assert path.waited(NOW + 100) == 0
    assert not path.is_doubtful(NOW + 100)
    assert path.next_change(NOW) == inf
    path.expect(11, NOW + 1)
    path.ask(12, NEEDED_SIZE, NOW + 1.2)
    path.take_answer(11, path.sent, NOW + 1.25)
    assert path.waited(NOW + 100) == 0


def test_the_seventh_full_probe_without_an_answer_makes_a_path_narrow() -> None:
    """The path lives on, since small questions are answered, and a full answer opens it again."""
    path = made(Sample())
    path.grow(NOW)
    for number in range(MAX_FULL_PROBES):
        assert path.ask(number, NEEDED_SIZE, NOW + number) == NEEDED_SIZE
    assert path.state(NOW + 6) == "open"
    path.ask(6, NEEDED_SIZE, NOW + 6)
    assert (path.state(NOW + 6), path.fault) == ("narrow", "large packets do not pass")
    path.take_answer(6, path.sent, NOW + 6.05)
    assert path.state(NOW + 6.1) == "open"


def test_large_datagrams_have_full_probes_now_and_then() -> None:
    """A full probe follows five seconds after a datagram of more than half the full size, however many follow it."""
    path = made(Sample())
    path.expect(1, NOW)
    path.take_answer(1, path.sent, NOW + 0.05)
    path.carries(NEEDED_SIZE // 2, NEEDED_SIZE, NOW)
    assert path.due(in_use=True, is_active=False) == NOW + IDLE_BEAT
    path.carries(NEEDED_SIZE // 2 + 1, NEEDED_SIZE, NOW)
    path.carries(NEEDED_SIZE, NEEDED_SIZE, NOW + 1)
    assert path.due(in_use=True, is_active=False) == NOW + RECHECK_AFTER
    assert path.ask(2, NEEDED_SIZE, NOW + RECHECK_AFTER - 0.01) == 0
    assert path.ask(3, NEEDED_SIZE, NOW + RECHECK_AFTER) == NEEDED_SIZE


def test_a_path_in_use_is_asked_more_often_while_somebody_types() -> None:
    """Probes come each second then, each ten seconds otherwise, and five times a second while the path is in doubt."""
    path = made(Sample())
    path.expect(1, NOW)
    path.take_answer(1, path.sent, NOW + 0.05)
    assert path.due(in_use=True, is_active=True) == NOW + ACTIVE_BEAT
    assert path.due(in_use=False, is_active=True) == NOW + IDLE_BEAT
    assert path.due(in_use=True, is_active=False) == NOW + IDLE_BEAT
    path.expect(2, NOW + 1)
    assert path.due(in_use=False, is_active=False) == NOW + 1.1
    path.trips.usual = 0.5
    assert path.due(in_use=False, is_active=False) == NOW + 1 + 1.25 * 0.5
    path.expect(3, NOW + 1 + 3 * 0.5)
    assert path.due(in_use=False, is_active=False) == NOW + 1 + 3 * 0.5 + URGENT_BEAT


def test_a_warning_is_settled_by_an_answer_to_what_was_asked_since() -> None:
    """A warned path is probed at once, and an answer to an earlier question proves nothing."""
    path = made(Sample())
    path.expect(1, NOW - 0.1)
    path.warn(NOW)
    assert path.due(in_use=False, is_active=False) == NOW
    path.expect(2, NOW)
    assert path.due(in_use=False, is_active=False) > NOW
    path.take_answer(1, path.sent, NOW + 0.01)
    assert path.is_doubtful(NOW + 0.01)
    path.take_answer(2, path.sent, NOW + 0.05)
    assert not path.is_doubtful(NOW + 0.05)


def test_a_doubt_of_the_peers_is_no_news_to_it() -> None:
    """Telling the peer its own doubt would make the ends alarm each other forever; silence is always our own doubt."""
    path = made(Sample())
    path.warn(NOW, by_peer=True)
    assert path.is_doubtful(NOW)
    assert not path.is_our_doubt(NOW)
    path.expect(1, NOW)
    assert path.is_our_doubt(NOW + DOUBT_AFTER)
    mine = made(Sample())
    mine.warn(NOW)
    mine.warn(NOW, by_peer=True)
    assert mine.is_our_doubt(NOW)


def test_questions_are_bounded_and_the_oldest_is_forgotten() -> None:
    """The answer to a forgotten question does not count."""
    path = made(Sample())
    for number in range(MAX_QUESTIONS + 1):
        path.expect(number, NOW)
    assert not path.take_answer(0, path.sent, NOW)
    assert path.take_answer(1, path.sent, NOW)


def test_a_candidate_whose_peer_is_heard_is_tried_anew() -> None:
    """A round begins, unless the candidate's next probe comes soon anyway."""
    path = Path("lan", "4", HERE, NOW)
    for number in range(len(PROBE_TIMES)):
        path.ask(number, NEEDED_SIZE, NOW)
    path.nudge(NOW + 9)
    assert path.due(in_use=False, is_active=False) == NOW + 9
    path.ask(9, NEEDED_SIZE, NOW + 9)
    path.nudge(NOW + 9)
    assert path.due(in_use=False, is_active=False) == NOW + 9 + PROBE_TIMES[1]


def test_a_probe_that_is_left_out_counts_as_sent() -> None:
    """Otherwise it would be due again at once, forever."""
    path = Path("lan", "4", HERE, NOW)
    path.skip(NOW)
    assert path.due(in_use=False, is_active=False) == NOW + PROBE_TIMES[1]
    live = made(Sample())
    live.grow(NOW)
    live.skip(NOW)
    assert live.due(in_use=True, is_active=True) == NOW + ACTIVE_BEAT


def test_a_large_datagram_has_a_probe_beside_it_now_and_then() -> None:
    """It has one when the path was last asked a quarter of a second ago, and never on a mere candidate."""
    path = made(Sample())
    path.expect(1, NOW)
    assert not path.wants_company(NOW + COMPANION_AFTER - 0.01)
    assert path.wants_company(NOW + COMPANION_AFTER)
    assert not Path("lan", "4", HERE, NOW).wants_company(NOW)


def test_the_judgement_changes_by_itself_at_known_moments() -> None:
    """The moments are those when silence becomes doubt, when doubt becomes death, and when a hold ends."""
    path = made(Sample())
    path.expect(1, NOW)
    assert path.next_change(NOW) == NOW + DOUBT_AFTER
    assert path.next_change(NOW + DOUBT_AFTER) == NOW + DEAD_AFTER
    path.take_answer(1, path.sent, NOW + 1)
    path.hold_for_loss(NOW + 1)
    assert path.next_change(NOW + 1) == NOW + 1 + HOLD_AFTER_LOSS
    assert not path.is_open(NOW + HOLD_AFTER_LOSS)
    assert path.is_open(NOW + 1 + HOLD_AFTER_LOSS)


@pytest.mark.parametrize("state", ["open", "tried", "narrow"])
def test_the_state_is_a_word(state: str) -> None:
    """`tunneld mosh --paths` shows it."""
    assert made(Sample(state=state)).state(NOW) == state


@pytest.mark.parametrize(
    ("state", "word"), [("silent", "doubtful"), ("warned", "doubtful"), ("held", "held back"), ("lossy", "held back")]
)
def test_the_state_of_a_path_in_trouble_is_a_word(state: str, word: str) -> None:
    """A path that was given up is silent, whatever its trouble was before."""
    path = made(Sample(state=state))
    assert path.state(NOW) == word
    path.give_up(NOW)
    assert (path.state(NOW), path.fault) == ("silent", "went silent")


def test_after_a_move_a_candidate_is_tried_anew_and_a_path_doubted() -> None:
    """What was learnt in the other network holds no more."""
    candidate = Path("lan", "4", HERE, NOW)
    for number in range(len(PROBE_TIMES)):
        candidate.ask(number, NEEDED_SIZE, NOW)
    candidate.doubt_everything(NOW + 9)
    assert candidate.due(in_use=False, is_active=False) == NOW + 9
    assert not candidate.is_doubtful(NOW + 9)
    path = made(Sample())
    path.doubt_everything(NOW)
    assert path.is_our_doubt(NOW)
