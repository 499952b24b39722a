"""How the demo tells a tunnel's events; tests/cli/test_demo.py plays the whole story."""

from __future__ import annotations

import pytest
from structlog.typing import EventDict

from tunneld.demo.story import told_as


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ({"event": "tunnel_started", "relay": "demo@r:22"}, ("dialing demo@r:22", "plain")),
        ({"event": "session_lost", "reason": "silent", "retry_in": 0.0}, ("DOWN: silent; tries again at once", "bad")),
        ({"event": "dial_failed", "reason": "no", "retry_in": 1.25}, ("DOWN: no; tries again in 1.2 s", "bad")),
        (
            {"event": "mosh_ready", "ports": "1-2"},
            ("mosh is ready: UDP ports 1-2 on the relay lead to the host", "good"),
        ),
        ({"event": "forward_busy", "level": "warning", "reason": "taken"}, ("forward_busy: taken", "bad")),
        ({"event": "forward_opened", "level": "info"}, None),
    ],
)
def test_an_event_is_told_in_words(event: EventDict, told: tuple[str, str] | None) -> None:
    """Warnings that the story does not expect are told as they are; what says little is left out."""
    assert told_as(event) == told
