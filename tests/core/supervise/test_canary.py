"""What the steps of a visit mean, and when a forward is visited."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.supervise.canary import (
    Beat,
    Finding,
    Step,
    Verdict,
    Visit,
    judge,
    step_timeout,
)

TRIED = {Step.TRIED}
OPENED = TRIED | {Step.OPENED}
ARRIVED = OPENED | {Step.ARRIVED}
ACCEPTED = ARRIVED | {Step.ACCEPTED}


@pytest.mark.parametrize(
    ("steps", "verdict", "says"),
    [
        (ACCEPTED | {Step.SPOKE}, Verdict.PASSES, ""),
        (ACCEPTED | {Step.SPOKE, Step.ENDED}, Verdict.PASSES, ""),
        (ACCEPTED | {Step.ENDED}, Verdict.TARGET, "hangs up"),
        (ARRIVED | {Step.FAILED}, Verdict.TARGET, "why"),
        (ARRIVED | {Step.FAILED, Step.ENDED}, Verdict.TARGET, "why"),
        (TRIED | {Step.REFUSED}, Verdict.BROKEN, "nothing listens"),
        (OPENED | {Step.ENDED}, Verdict.BROKEN, "something else"),
        (OPENED | {Step.SPOKE}, Verdict.BROKEN, "something else"),
        (TRIED | {Step.FORBIDDEN}, Verdict.UNKNOWN, "why"),
        (ARRIVED | {Step.FORBIDDEN}, Verdict.UNKNOWN, "why"),
    ],
)
def test_steps_that_say_it_all(steps: set[Step], verdict: Verdict, says: str) -> None:
    """As soon as the last of these steps is seen, it is known how far the connection gets."""
    finding = judge(steps, "why", waited=False)
    assert finding is not None
    assert (finding.verdict, says in finding.text) == (verdict, True)


@pytest.mark.parametrize(
    ("steps", "speaks_first", "verdict", "says"),
    [
        (ACCEPTED, False, Verdict.PASSES, "waits for the client"),
        (ACCEPTED, True, Verdict.TARGET, "as it used to"),
        (ARRIVED, False, Verdict.TARGET, "does not answer"),
        (ARRIVED | {Step.ENDED}, False, Verdict.TARGET, "does not answer"),
        (OPENED, False, Verdict.BROKEN, "never come to this host"),
        (TRIED, False, Verdict.BROKEN, "does not accept"),
        (set(), False, Verdict.UNKNOWN, "does not say"),
    ],
)
def test_steps_that_another_should_follow(steps: set[Step], speaks_first: bool, verdict: Verdict, says: str) -> None:
    """The next step is waited for, and when it does not come, its absence tells who is to blame."""
    assert judge(steps, waited=False, speaks_first=speaks_first) is None
    finding = judge(steps, waited=True, speaks_first=speaks_first)
    assert finding is not None
    assert (finding.verdict, says in finding.text) == (verdict, True)


@given(st.sets(st.sampled_from(Step)), st.booleans())
def test_there_is_a_verdict_in_bounded_time(steps: set[Step], speaks_first: bool) -> None:
    """Whatever a relay reports, each wait is bounded, and waiting never changes a verdict that was there before."""
    early = judge(steps, waited=False, speaks_first=speaks_first)
    late = judge(steps, waited=True, speaks_first=speaks_first)
    assert late is not None
    assert early in (None, late)
    assert 0 < step_timeout(steps) <= 12


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [
        (set(), 10),
        (TRIED, 10),
        (OPENED, 5),
        (ARRIVED, 12),
        (ACCEPTED, 2),
    ],
)
def test_each_step_has_its_time(steps: set[Step], seconds: float) -> None:
    """The visit waits for the step that comes next as long as that one may take."""
    assert step_timeout(steps) == seconds


THERE = set(Step) - {Step.ARRIVED, Step.ACCEPTED, Step.FAILED}


@given(st.sets(st.sampled_from(sorted(THERE, key=str))))
def test_only_what_has_arrived_passes(steps: set[Step]) -> None:
    """Whatever the relay says, and whatever answers there proves nothing about the tunnel by itself."""
    finding = judge(steps, waited=True)
    assert finding is not None
    assert finding.verdict in (Verdict.BROKEN, Verdict.UNKNOWN)


def test_both_ends_of_a_visit_note_its_steps() -> None:
    """Each step is told at once; of several reasons the first one counts."""
    told: list[int] = []
    visit = Visit("127.0.0.1", lambda: told.append(len(visit.steps)))
    assert (visit.why, visit.is_mixed_up) == ("", False)
    visit.saw(Step.ARRIVED)
    visit.saw(Step.FAILED, "Connection refused")
    visit.saw(Step.FORBIDDEN, "open failed")
    assert told == [1, 2, 3]
    assert visit.why == "Connection refused"


def test_a_forward_is_visited_soon_and_then_seldom() -> None:
    """A second after it listens, then about once in an interval, never in step with others."""
    beat = Beat(now=100)
    assert (beat.due, beat.is_new) == (101, True)
    waits = []
    for chance in (0, 0.5, 1):
        beat.note(Finding(Verdict.PASSES, at=beat.due), interval=300, chance=chance)
        waits.append(beat.due)
    assert not beat.is_new
    assert [after - before for before, after in zip([101, *waits], waits, strict=False)] == pytest.approx(
        [270, 300, 330]
    )


@pytest.mark.parametrize("verdict", [Verdict.PASSES, Verdict.TARGET, Verdict.UNKNOWN])
def test_one_broken_visit_is_an_accident(verdict: Verdict) -> None:
    """The forward is visited again soon, and only two broken visits in a row cost the session."""
    beat, broken = Beat(0), Finding(Verdict.BROKEN, at=50)
    for finding in (broken, replace(broken, verdict=verdict), broken):
        beat.note(finding, interval=300, chance=0.5)
        assert not beat.is_lost
    assert beat.due == 50 + 30
    beat.note(broken, interval=300, chance=0.5)
    assert beat.is_lost


def test_the_first_two_visits_may_cost_the_session() -> None:
    """A forward whose first two visits are broken has never worked."""
    beat, lost = Beat(0), []
    for _ in range(2):
        beat.note(Finding(Verdict.BROKEN), interval=300, chance=0.5)
        lost.append(beat.is_lost)
    assert lost == [False, True]


def test_a_visit_may_be_put_off_and_brought_forward() -> None:
    """It is put off by a moment; a shorter interval brings it forward, and never puts it off."""
    beat = Beat(0)
    beat.postpone(50)
    assert beat.due == 51
    beat.shorten(50, 300)
    assert beat.due == 51
    beat.note(Finding(Verdict.PASSES, at=51), interval=3600, chance=0.5)
    beat.shorten(60, 300)
    assert beat.due == pytest.approx(60 + 330)


def test_a_finding_says_no_more_than_it_knows() -> None:
    """Without a word about it, another visit may find something else, and no round trip was measured."""
    assert Finding(Verdict.TARGET) == Finding(Verdict.TARGET, text="", is_final=False, rtt=None, at=0)
