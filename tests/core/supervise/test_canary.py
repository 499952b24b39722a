"""What a canary's steps mean, and when it flies."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.supervise.canary import (
    AGAIN,
    FIRST,
    MOST_BROKEN,
    Beat,
    Finding,
    Step,
    Verdict,
    Visit,
    judge,
    patience,
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
    """Where the way ends, or that it does not, is known as soon as the last of these steps is seen."""
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
    """They are waited for, and the one that does not come tells who is to blame."""
    assert judge(steps, waited=False, speaks_first=speaks_first) is None
    finding = judge(steps, waited=True, speaks_first=speaks_first)
    assert finding is not None
    assert (finding.verdict, says in finding.text) == (verdict, True)


@given(st.sets(st.sampled_from(Step)), st.booleans())
def test_there_is_a_verdict_in_bounded_time(steps: set[Step], speaks_first: bool) -> None:
    """Whatever a relay makes of it; and waiting never makes a verdict another one."""
    early = judge(steps, waited=False, speaks_first=speaks_first)
    late = judge(steps, waited=True, speaks_first=speaks_first)
    assert late is not None
    assert early in (None, late)
    assert 0 < patience(steps) <= 12


THERE = set(Step) - {Step.ARRIVED, Step.ACCEPTED, Step.FAILED}


@given(st.sets(st.sampled_from(sorted(THERE, key=str))))
def test_only_what_has_arrived_passes(steps: set[Step]) -> None:
    """Whatever the relay says, and whatever answers there: it proves nothing about the tunnel by itself."""
    finding = judge(steps, waited=True)
    assert finding is not None
    assert finding.verdict in (Verdict.BROKEN, Verdict.UNKNOWN)


def test_both_ends_of_a_visit_note_its_steps() -> None:
    """Each is told at once; of several reasons the first counts."""
    told: list[int] = []
    visit = Visit("127.0.0.1", lambda: told.append(len(visit.steps)))
    visit.saw(Step.ARRIVED)
    visit.saw(Step.FAILED, "Connection refused")
    visit.saw(Step.FORBIDDEN, "open failed")
    assert told == [1, 2, 3]
    assert visit.why == "Connection refused"


def test_a_forward_is_visited_soon_and_then_seldom() -> None:
    """A second after it listens, then about once per interval, never in step with others."""
    beat = Beat(now=100)
    assert beat.due == 100 + FIRST
    waits = []
    for chance in (0, 0.5, 0.999):
        beat.note(Finding(Verdict.PASSES, at=beat.due), interval=300, chance=chance)
        waits.append(beat.due)
    assert [after - before for before, after in zip([101, *waits], waits, strict=False)] == pytest.approx(
        [270, 300, 330], rel=0.01
    )


@pytest.mark.parametrize("verdict", [Verdict.PASSES, Verdict.TARGET, Verdict.UNKNOWN])
def test_one_broken_visit_is_an_accident(verdict: Verdict) -> None:
    """It is looked at again soon, and only several in a row cost the session."""
    beat, broken = Beat(0), Finding(Verdict.BROKEN, at=50)
    for finding in (broken, replace(broken, verdict=verdict), broken):
        beat.note(finding, interval=300, chance=0.5)
        assert not beat.is_lost
    assert beat.due == 50 + AGAIN
    for _ in range(MOST_BROKEN - 1):
        beat.note(broken, interval=300, chance=0.5)
    assert beat.is_lost
