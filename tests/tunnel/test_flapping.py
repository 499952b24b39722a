"""What a link that comes and goes writes into the journal."""

from __future__ import annotations

import os
import signal

from tests.sshd import Sshd, descendants, free_port
from tests.tunnel.supervised import forward, profile_of, relay_of, running
from tests.virtual import Journal, VirtualTime

HOUR = 3600.0


async def test_an_hour_of_flapping_is_a_page(relay: Sshd) -> None:
    """Up for a minute, down, up again, for an hour: the log has the first of each, each doubling, and a sum at the end.

    Each session is long enough for the backoff to begin anew, and yet its end is no news.
    """
    journal, time = Journal(), VirtualTime()
    async with running(profile_of(relay_of(relay), forward(free_port())), journal, time):
        began, flaps = time.now, 0
        while time.now < began + HOUR:
            await journal.says("session_established")
            await time.slept_on(1)  # whoever waits for the calm
            time.advance(60)
            for pid in descendants(relay.pid):
                os.kill(pid, signal.SIGKILL)
            time.advance((await journal.says("session_lost"))["retry_in"])
            flaps += 1
        lines = journal.names()
        assert flaps > 50
        assert len(lines) <= 25
        await journal.says("session_established")
        await time.slept_on(1)
        time.advance(600)
        summed = await journal.says("session_stable")
        assert summed["events_not_shown"] == 2 * flaps + 2 - len(lines)
        for pid in descendants(relay.pid):
            os.kill(pid, signal.SIGKILL)
        assert (await journal.says("session_lost", level="warning")).get("times", 1) == 1


async def test_an_hour_without_network_is_a_page(relay: Sshd) -> None:
    """Nothing answers for an hour: the log has the same failure at growing intervals."""
    journal, time = Journal(), VirtualTime()
    async with running(profile_of(relay_of(relay, port=free_port()), forward(free_port())), journal, time):
        began = time.now
        while time.now < began + HOUR:
            time.advance((await journal.says("dial_failed"))["retry_in"])
        assert len(journal.names(debug=True)) > 60
        assert len(journal.names()) <= 12
