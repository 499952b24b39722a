"""What waits to leave over UDP: copies in time, probes and answers within bounds."""

from __future__ import annotations

from collections import Counter
from math import inf

import pytest

from tests.core.pair.sample_paths import HERE, NOW, answers
from tunneld.core.pair import packet
from tunneld.core.pair.candidate import Candidate
from tunneld.core.pair.outbox import MAX_PACKETS, Outbox, OutgoingPacket
from tunneld.core.pair.packet import Seal
from tunneld.core.pair.path import COMPANION_AFTER, Path
from tunneld.core.pair.paths import Paths
from tunneld.core.pair.redundancy import SPACING, Budget
from tunneld.core.pair.round_trips import QUEUED
from tunneld.core.stream.choice import SMALL_DATAGRAM


class End:
    """An outbox with one path, in use since NOW."""

    def __init__(self, budget: float = 64.0) -> None:
        self.counts = Counter[str]()
        self.paths = Paths(self.counts, NOW - 1)
        self.paths.open("4", 4, NOW - 1)
        self.paths.offer([Candidate("lan", HERE)], NOW - 1)
        self.path: Path = next(iter(self.paths))
        answers(self.path, 0.05, NOW - 1)
        self.paths.review(NOW)
        seal = Seal(bytes(32), self.counts, is_client=True)
        self.outbox = Outbox(seal, self.paths, Budget(budget, NOW - 1), self.counts)
        self.opener = Seal(bytes(32), Counter(), is_client=False)

    def kinds(self) -> list[int]:
        """The kinds of the packets that leave now."""
        opened = [self.opener.open(each.data) for each in self.outbox.take()]
        return [each.kind for each in opened if each]

    def loses(self, share: float) -> None:
        """The peer has received so much less of a hundred packets."""
        for step in range(10):
            sent = 10 * step
            self.path.loss.learn(sent, sent - round(sent * share), NOW + step)


def test_a_copy_leaves_in_its_time() -> None:
    """A new path is uncertain, so a datagram has one further copy."""
    end = End()
    assert end.outbox.due() == inf
    end.outbox.plan_copies(7, b"key", NOW)
    assert end.outbox.due() == NOW  # how many there are is to be worked out
    assert end.outbox.take_due_copies(NOW) == []
    assert end.outbox.due() == NOW + SPACING[1]
    (copy,) = end.outbox.take_due_copies(NOW + SPACING[1])
    assert (copy.number, copy.place, copy.datagram) == (7, 1, b"key")
    assert end.outbox.due() == inf


def test_to_ask_when_copies_are_due_changes_nothing() -> None:
    """What is planned stays planned, and what is not stays so."""
    end = End()
    end.outbox.plan_copies(7, b"key", NOW)
    assert {end.outbox.due() for _ in range(3)} == {NOW}
    end.loses(0.5)
    assert end.outbox.take_due_copies(NOW + 1) != []
    assert len(end.outbox) == 0


def test_copies_are_as_many_as_the_loss_asks_for() -> None:
    """Two on a path that is new, or unmeasured for five seconds; none further without a budget or a path."""
    end = End()
    assert end.outbox.copies(NOW) == 2
    assert end.outbox.copies(NOW + 4.99) == 2
    assert end.outbox.copies(NOW + 5) == 1
    end.loses(0.15)
    assert end.outbox.copies(NOW + 9) == 4
    end.paths.current = None
    assert end.outbox.copies(NOW + 9) == 1
    assert End(budget=0.0).outbox.copies(NOW) == 1


def test_copies_that_wait_are_bounded() -> None:
    """Whatever mosh sends; the rest is counted."""
    end = End()
    for _ in range(2):
        for number in range(MAX_PACKETS):
            end.outbox.plan_copies(number, b"key", NOW)
        end.outbox.plan_copies(0, b"key", NOW)
        end.outbox.take_due_copies(NOW)
    assert len(end.outbox) == MAX_PACKETS
    assert end.counts["copies_refused"] == 2 + MAX_PACKETS


def test_packets_that_wait_are_bounded() -> None:
    """Datagrams, answers and questions to STUN servers."""
    end = End()
    for number in range(MAX_PACKETS + 1):
        end.outbox.send(end.path, number, b"key", NOW)
        end.outbox.answer(end.path, number)
    end.outbox.add([OutgoingPacket("4", HERE, b"question")])
    assert end.counts["packets_untaken"] == 2
    assert len(end.outbox.take()) == MAX_PACKETS
    assert end.counts["packets_untaken"] == 2 + MAX_PACKETS
    end.outbox.add([OutgoingPacket("4", HERE, b"question")] * (MAX_PACKETS + 1))
    assert len(end.outbox.take()) == MAX_PACKETS
    assert end.outbox.take() == []


def test_a_small_datagram_asks_itself_and_a_large_one_has_a_probe_beside_it() -> None:
    """The probe only when the path was not asked a moment ago; nothing asks on a path that does not answer."""
    end = End()
    end.outbox.send(end.path, 0, bytes(SMALL_DATAGRAM), NOW)
    end.outbox.send(end.path, 1, bytes(SMALL_DATAGRAM + 1), NOW)
    assert end.kinds() == [packet.ASKING, packet.DATAGRAM]
    end.outbox.send(end.path, 2, bytes(SMALL_DATAGRAM + 1), NOW + COMPANION_AFTER)
    assert end.kinds() == [packet.PROBE, packet.DATAGRAM]
    end.path.give_up(NOW + 1)
    end.outbox.send(end.path, 3, bytes(SMALL_DATAGRAM), NOW + 1)
    assert end.kinds() == [packet.DATAGRAM]


def test_a_full_probe_is_as_long_as_a_full_datagram() -> None:
    """A small one has no body."""
    end = End()
    end.outbox.probe(end.path, NOW)
    end.path.grow(NOW)
    end.outbox.probe(end.path, NOW)
    end.outbox.send(end.path, 0, bytes(end.paths.full), NOW)
    small, full, datagram = (len(each.data) for each in end.outbox.take())
    assert small == 31
    assert full == datagram == end.paths.full + packet.PACKET_OVERHEAD


def test_too_many_probes_are_left_out() -> None:
    """And counted; the path is not due at once again."""
    end = End()
    for _ in range(101):
        end.outbox.probe(end.path, NOW)
    assert end.kinds() == [packet.PROBE] * 100
    assert end.counts["probes_refused"] == 1
    assert end.path.due(in_use=True, is_active=True) > NOW


@pytest.mark.parametrize("has_queue", [False, True])
def test_a_copy_is_paid_for(has_queue: bool) -> None:
    """Its headers included; where a queue stands on the way nothing is left to pay with."""
    end = End(budget=8.0)  # 1000 bytes a second, two seconds' worth at once
    for number in range(QUEUED if has_queue else 0):
        end.path.trips.learn(NOW + number / 100 - 0.5, NOW + number / 100)
    datagram = bytes(400 - packet.PACKET_OVERHEAD - 28)
    allowed = [end.outbox.spend(end.path, datagram, NOW) for _ in range(6)]
    assert allowed == ([False] * 6 if has_queue else [True] * 5 + [False])
    assert end.counts["copies_out"] == sum(allowed)
    assert end.counts["copies_over_budget"] == 6 - sum(allowed)


def test_an_answer_says_how_many_packets_have_come() -> None:
    """At the moment of the packet that it answers."""
    end = End()
    end.path.received = 5
    end.outbox.answer(end.path, 9)
    end.path.received = 6
    sent = end.path.sent
    (answer,) = end.outbox.take()
    assert end.path.sent == sent + 1
    opened = end.opener.open(answer.data)
    assert opened
    assert packet.read_answer(opened.body) == (9, 5)


def test_the_budget_is_one_for_all_paths() -> None:
    """A path with headroom of its own has no copies when others have spent the budget."""
    end = End(budget=8.0)
    other = Path("lan", "4", HERE._replace(port=6), NOW)
    datagram = bytes(1000)
    assert end.outbox.spend(end.path, datagram, NOW)
    assert not end.outbox.spend(other, datagram, NOW)


def test_512_datagrams_wait_for_their_copies_to_be_planned() -> None:
    """One more has none, and is counted."""
    end = End()
    for number in range(513):
        end.outbox.plan_copies(number, b"key", NOW)
    assert len(end.outbox) == 512
    assert end.counts["copies_refused"] == 1


def test_copies_are_planned_when_the_first_datagram_asks_for_it() -> None:
    """A later one does not put that off."""
    end = End()
    end.outbox.plan_copies(7, b"key", NOW)
    end.outbox.plan_copies(8, b"key", NOW + 0.001)
    assert end.outbox.due() == NOW


@pytest.mark.parametrize(("size", "is_allowed"), [(1937, True), (1938, False)])
def test_a_copy_costs_63_bytes_beside_its_datagram(size: int, is_allowed: bool) -> None:
    """35 in the packet, and 28 of IPv4 and UDP; 2000 bytes may be spent at once."""
    end = End(budget=8.0)
    assert end.outbox.spend(end.path, bytes(size), NOW) is is_allowed


def test_copies_wait_for_the_earliest() -> None:
    """Of three further copies each leaves in its own time."""
    end = End()
    end.loses(0.15)
    end.outbox.plan_copies(7, b"key", NOW + 9)
    end.outbox.take_due_copies(NOW + 9)
    places = []
    while (due := end.outbox.due()) < inf:
        places.append([(round(due - NOW - 9, 6), copy.place) for copy in end.outbox.take_due_copies(due)])
    assert places == [[(0.004, 1)], [(0.012, 2)], [(0.028, 3)]]


def test_all_that_waits_is_counted() -> None:
    """Packets, answers, copies, and datagrams whose copies are not planned yet."""
    end = End()
    end.outbox.plan_copies(7, b"key", NOW)
    end.outbox.take_due_copies(NOW)
    assert len(end.outbox) == 1
    end.outbox.plan_copies(8, b"key", NOW)
    end.outbox.answer(end.path, 9)
    end.outbox.send(end.path, 8, b"key", NOW)
    assert len(end.outbox) == 4
