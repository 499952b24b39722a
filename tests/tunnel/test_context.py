"""What a tunnel's parts share: above all, which events get a line in the log."""

from __future__ import annotations

from tests.virtual import Journal
from tunneld.tunnel.context import TunnelContext


def test_repetitions_are_told_at_growing_intervals_with_their_number() -> None:
    """The first needs no number, and the events between are there at debug level."""
    journal = Journal()
    context = TunnelContext(journal.log)
    for _ in range(5):
        context.tell("warning", "dial_failed", key="away", reason="away")
    told = [(event["level"], event.get("times")) for event in journal.events]
    assert told == [("warning", None), ("warning", 2), ("debug", None), ("warning", 4), ("debug", None)]
    assert all(event["reason"] == "away" for event in journal.events)


def test_each_kind_of_event_is_counted_for_itself() -> None:
    """An event that has not happened before gets a line."""
    journal = Journal()
    context = TunnelContext(journal.log)
    for key in "aab":
        context.tell("error", "dial_failed", key=key)
    assert [(event["level"], event.get("times")) for event in journal.events] == [
        ("error", None),
        ("error", 2),
        ("error", None),
    ]
