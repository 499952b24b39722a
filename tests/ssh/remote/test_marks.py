"""What this process is known by on its relays."""

from __future__ import annotations

from tunneld.profile import Relay
from tunneld.ssh.remote.marks import Marks
from tunneld.ssh.remote.takeover import Takeover

FIRST, SECOND = Relay("relay"), Relay("relay", port=2200)


def test_each_relay_has_a_name_of_its_own() -> None:
    """Two ways to one machine do not end one another's sessions; another process of the same profile finds them."""
    ours, theirs = Marks("pi"), Marks("pi")
    assert ours.of(FIRST).key != ours.of(SECOND).key
    assert ours.of(FIRST).key == theirs.of(FIRST).key != Marks("vault").of(FIRST).key
    assert ours.of(FIRST).instance == ours.of(SECOND).instance != theirs.of(FIRST).instance


def test_only_who_is_not_on_record_displaces_others() -> None:
    """From then on, another instance there is no predecessor but a clone."""
    marks = Marks("pi")
    marks.taken_over(FIRST, Takeover(False, "", recorded=False))
    assert marks.of(FIRST).displaces
    marks.taken_over(FIRST, Takeover(True, "", recorded=True))
    assert not marks.of(FIRST).displaces
    assert marks.of(SECOND).displaces
