"""Where two ends may meet: what they tell each other, what STUN servers see, and when rounds begin."""

from __future__ import annotations

from typing import Any

from tunneld.core.pair import stun
from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.core.pair.offer import Offer
from tunneld.core.pair.rendezvous import MAX_HOSTS, MAX_SERVERS, QUESTION_TIMES, ROUND_PAUSES, Rendezvous
from tunneld.core.stream import frame
from tunneld.core.stream.frame import Frame

NOW = 1000.0
SERVER = UdpAddress("198.51.100.1", 3478)
LAN = Candidate("lan", UdpAddress("192.168.1.7", 41000))


def said(one: Frame | None) -> dict[str, Any]:
    assert one
    return frame.body(one)


def meeting() -> Rendezvous:
    rendezvous = Rendezvous(bytes(32), NOW)
    rendezvous.open("4", 4, 41000, NOW)
    return rendezvous


def test_an_offer_is_said_once_until_something_changes() -> None:
    """An unchanged offer is repeated only so that the peer tries again."""
    rendezvous = meeting()
    rendezvous.offer([LAN])
    assert said(rendezvous.changed_offer())["round"] == 1
    assert rendezvous.changed_offer() is None
    rendezvous.offer([LAN, LAN])
    assert rendezvous.changed_offer() is None
    assert said(rendezvous.next_offer())["round"] == 2
    rendezvous.offer([])
    assert said(rendezvous.changed_offer()) == {"round": 3, "ports": {"4": 41000}, "candidates": []}


def test_an_offer_counts_once_and_they_may_not_come_too_fast() -> None:
    """A copy, an older offer and the ninth at once are ignored."""
    rendezvous = meeting()
    body = said(Offer(5, {}, (LAN,)).encode())
    assert rendezvous.take_offer(body, NOW)
    assert not rendezvous.take_offer(body, NOW)
    assert not rendezvous.take_offer({**body, "round": 4}, NOW)
    assert sum(rendezvous.take_offer({**body, "round": number}, NOW) for number in range(6, 100)) == 7
    assert rendezvous.take_offer({**body, "round": 100}, NOW + 1)


def test_what_ssh_shows_is_tried_with_the_peers_ports() -> None:
    """The port is that of the same family; without one the address is not tried."""
    rendezvous = meeting()
    rendezvous.sees_peer(["203.0.113.9", "2001:db8::9"])
    assert rendezvous.candidates() == ()
    rendezvous.take_offer(said(Offer(1, {4: 42000}, (LAN,)).encode()), NOW)
    assert rendezvous.candidates() == (LAN, Candidate("visible", UdpAddress("203.0.113.9", 42000)))


def test_what_ssh_shows_through_a_tunnel_is_not_tried() -> None:
    """SSH shows a loopback address there, where other programs listen."""
    rendezvous = meeting()
    rendezvous.sees_peer(["127.0.0.1", "::1", "fe80::1", "0.0.0.0", "pi"])
    rendezvous.take_offer({"round": 1, "ports": {"4": 41000, "6": 41001}, "candidates": []}, 0)
    assert rendezvous.candidates() == ()


def asked(rendezvous: Rendezvous, now: float) -> list[bytes]:
    return [data for _, _, data in rendezvous.take_questions(now)]


def test_a_server_is_asked_until_it_answers_and_the_answer_is_offered() -> None:
    """Each question has the same transaction, so that any answer will do."""
    rendezvous = meeting()
    rendezvous.use_servers([SERVER], NOW)
    first = asked(rendezvous, NOW)
    assert asked(rendezvous, NOW + 0.1) == []
    assert asked(rendezvous, NOW + 0.2) == first
    answer = stun.respond(first[0], UdpAddress("203.0.113.7", 61000))
    assert answer
    assert rendezvous.take_stun_answer("4", SERVER, answer)
    assert asked(rendezvous, NOW + 10) == []
    assert said(rendezvous.changed_offer())["candidates"] == [["reflexive", "203.0.113.7", 61000]]


def test_a_server_that_is_silent_is_left_alone() -> None:
    """After five questions the server is not asked again until the next round."""
    rendezvous = meeting()
    rendezvous.use_servers([SERVER], NOW)
    assert sum(len(asked(rendezvous, NOW + step / 10)) for step in range(100)) == len(QUESTION_TIMES)


def test_answers_of_others_do_not_count() -> None:
    """A wrong server, transaction or socket, or a second answer is refused; a useless address is not offered."""
    rendezvous = meeting()
    rendezvous.use_servers([SERVER], NOW)
    (request,) = asked(rendezvous, NOW)
    answer = stun.respond(request, UdpAddress("203.0.113.7", 61000))
    wrong = stun.respond(stun.request(bytes(12)), UdpAddress("203.0.113.7", 61000))
    useless = stun.respond(request, UdpAddress("127.0.0.1", 61000))
    assert answer
    assert wrong
    assert useless
    assert not rendezvous.take_stun_answer("4", SERVER._replace(port=1), answer)
    assert not rendezvous.take_stun_answer("4", SERVER, wrong)
    assert not rendezvous.take_stun_answer("6", SERVER, answer)
    assert rendezvous.take_stun_answer("4", SERVER, useless)
    assert not rendezvous.take_stun_answer("4", SERVER, answer)
    assert said(rendezvous.changed_offer())["candidates"] == []


def test_rounds_follow_each_other_more_slowly() -> None:
    """In the end a round comes every half minute, and every five minutes with a direct path."""
    rendezvous = meeting()
    began, moments = NOW, list[float]()
    for _ in range(6):
        due = rendezvous.due(has_direct=False)
        assert rendezvous.begin_due_round(due, has_direct=False)
        moments.append(due - began)
        began = due
    assert moments == [5, 10, 15, 30, 30, 30]
    assert rendezvous.due(has_direct=True) == began + 300


def test_servers_and_addresses_are_bounded() -> None:
    """Four servers are asked, and eight of the addresses that SSH shows are tried."""
    rendezvous = meeting()
    rendezvous.use_servers([SERVER._replace(port=1 + port) for port in range(9)], NOW)
    assert len(asked(rendezvous, NOW)) == MAX_SERVERS == 4
    rendezvous.sees_peer([f"203.0.113.{host}" for host in range(1, 20)])
    rendezvous.take_offer(said(Offer(1, {4: 42000}, ()).encode()), NOW)
    assert len(rendezvous.candidates()) == MAX_HOSTS == 8


def test_what_a_server_saw_goes_with_the_server_and_with_the_socket() -> None:
    """The address is offered no longer; one that is our own candidate is not offered twice."""
    for is_socket in (False, True):
        rendezvous = meeting()
        rendezvous.open("other", 4, 41002, NOW)
        rendezvous.use_servers([SERVER], NOW)
        for local, _, request in rendezvous.take_questions(NOW):
            seen = UdpAddress("203.0.113.7", 61000) if local == "4" else LAN.address
            assert rendezvous.take_stun_answer(local, SERVER, stun.respond(request, seen) or b"")
        rendezvous.offer([LAN])
        mine = ["lan", *LAN.address]
        assert said(rendezvous.next_offer())["candidates"] == [["reflexive", "203.0.113.7", 61000], mine]
        if is_socket:
            rendezvous.shut("4")
        else:
            rendezvous.use_servers([], NOW)
        assert said(rendezvous.next_offer())["candidates"] == [mine]


def test_after_a_change_or_a_direct_path_rounds_are_quick_again() -> None:
    """The pauses begin anew, as whatever ended may come back soon."""
    for is_change in (False, True):
        rendezvous = meeting()
        now = NOW
        for _ in range(4):
            now = rendezvous.due(has_direct=False)
            assert rendezvous.begin_due_round(now, has_direct=False)
        if is_change:
            rendezvous.hurry(now)
        else:
            assert not rendezvous.begin_due_round(now + 1, has_direct=True)
        assert rendezvous.due(has_direct=False) == now + ROUND_PAUSES[0]
