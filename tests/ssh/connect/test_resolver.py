"""What is remembered of names, without a name server."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest

from tunneld.core.happy_eyeballs import SocketAddress
from tunneld.ssh.connect.resolver import MOST_REMEMBERED, NameCache, Question, is_no_answer

RELAY = Question("relay", 22, 0)


class AnsweringResolver:
    """Stands for socket.getaddrinfo; notes who was asked for, and what the cache said meanwhile."""

    def __init__(self, cache: NameCache) -> None:
        self.cache = cache
        self.hosts: list[str] = ["192.0.2.1"]
        self.error: OSError | None = None
        self.being_asked: list[bool] = []

    def getaddrinfo(self, host: str, port: int, **settings: Any) -> list[Any]:
        self.being_asked.append(self.cache.is_being_asked(Question(host, port, settings["family"])))
        assert settings["type"] is socket.SOCK_STREAM
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in self.hosts]


@pytest.fixture
def cache() -> NameCache:
    return NameCache()


@pytest.fixture
def resolver(cache: NameCache, monkeypatch: pytest.MonkeyPatch) -> AnsweringResolver:
    made = AnsweringResolver(cache)
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    return made


def test_the_last_answer_is_remembered(cache: NameCache, resolver: AnsweringResolver) -> None:
    """For this question alone: another port or family is another question."""
    assert cache.last(RELAY) == ()
    assert cache.ask(RELAY) == (SocketAddress(socket.AF_INET, ("192.0.2.1", 22)),)
    resolver.hosts = ["192.0.2.2"]
    cache.ask(RELAY)
    assert cache.last(RELAY) == (SocketAddress(socket.AF_INET, ("192.0.2.2", 22)),)
    assert cache.last(RELAY._replace(port=2222)) == cache.last(RELAY._replace(family=socket.AF_INET6)) == ()


def test_a_failed_lookup_leaves_the_last_answer(cache: NameCache, resolver: AnsweringResolver) -> None:
    """And nobody counts as waiting for it any more."""
    cache.ask(RELAY)
    resolver.error = socket.gaierror(socket.EAI_AGAIN, "not now")
    with contextlib.suppress(OSError):
        cache.ask(RELAY)
    assert cache.last(RELAY) != ()
    assert resolver.being_asked == [True, True]
    assert not cache.is_being_asked(RELAY)


def test_an_answer_of_thousands_of_addresses_is_cut_short(cache: NameCache, resolver: AnsweringResolver) -> None:
    """Who answers for a name decides neither how long a dial takes nor how much it remembers."""
    resolver.hosts = [f"10.0.{number // 256}.{number % 256}" for number in range(5000)]
    assert len(cache.ask(RELAY)) == len(cache.last(RELAY)) == MOST_REMEMBERED


def test_a_forgotten_name_takes_all_its_answers_along(cache: NameCache, resolver: AnsweringResolver) -> None:
    """Other names stay."""
    other, elsewhere = RELAY._replace(host="other"), RELAY._replace(port=2222)
    for question in (RELAY, elsewhere, other):
        cache.ask(question)
    cache.forget("relay")
    assert cache.last(RELAY) == cache.last(elsewhere) == ()
    assert cache.last(other) != ()


@pytest.mark.parametrize(
    ("error", "none"),
    [
        (socket.gaierror(socket.EAI_AGAIN, ""), True),
        (socket.gaierror(socket.EAI_FAIL, ""), True),
        (socket.gaierror(socket.EAI_SYSTEM, ""), True),
        (socket.gaierror(socket.EAI_NONAME, ""), False),
        (OSError(socket.EAI_AGAIN, ""), False),
    ],
)
def test_no_answer_is_told_from_no_such_name(error: OSError, none: bool) -> None:
    """Only who does not know may be passed over for what is remembered."""
    assert is_no_answer(error) is none
