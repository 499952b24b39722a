"""The one table of failures: complete, and not said twice."""

from __future__ import annotations

import re

import pytest

from tunneld.core.supervise.failures import RULES, Failure, Pace, Share
from tunneld.ssh.connect.failure import NUMBERS, ROWS


def test_every_class_has_a_row() -> None:
    """A new class without a row would end the daemon when it first happens."""
    assert set(RULES) == set(Failure)
    assert all(each.rule is RULES[each] for each in Failure)


def test_what_needs_a_person() -> None:
    """A refused key and a wrong host key; nothing else asks for somebody in the first line of the status."""
    assert {each for each in Failure if each.rule.needs_person} == {Failure.AUTHENTICATION, Failure.HOST_KEY}


def test_what_costs_the_relay_nothing() -> None:
    """A relay that is away, and one where nothing listens; these follow the outage."""
    cheap = {each: each.rule.share for each in Failure if each.rule.is_cheap}
    assert cheap == {Failure.NETWORK: Share(1 / 60, 1 / 4), Failure.CLOSED: Share(1 / 5, 1)}


def test_the_pace_of_each_class() -> None:
    """The longest first wait as a multiple of `initial`, the shortest wait as a part of that, and the least seconds."""
    paces = {each: (each.rule.pace.times, each.rule.pace.part, each.rule.pace.least) for each in Failure}
    assert paces == {
        Failure.NETWORK: (1, 1 / 2, 0),
        Failure.CLOSED: (1, 1 / 2, 0),
        Failure.REFUSED: (4, 1 / 4, 0),
        Failure.AUTHENTICATION: (1, 1 / 2, 60),
        Failure.HOST_KEY: (1, 1 / 2, 60),
        Failure.FORWARD_BUSY: (5, 1 / 2, 0),
        Failure.FORWARD_FORBIDDEN: (10, 1 / 2, 15),
        Failure.PROTOCOL: (5, 1 / 2, 0),
    }


def test_what_needs_a_person_is_tried_once_a_minute() -> None:
    """OpenSSH's PerSourcePenalties would lock the address out at a shorter pace."""
    assert all(each.rule.pace == Pace(least=60) for each in Failure if each.rule.needs_person)


@pytest.mark.parametrize("failure", list(Failure))
def test_advice_does_not_repeat_the_words_of_the_error(failure: Failure) -> None:
    """Status prints the one below the other: no four words in a row of the advice stand in an error's text."""
    texts = [row.words for row in ROWS if row.failure is failure]
    texts += [words for each, words in NUMBERS.values() if each is failure]
    said = {words for text in texts for words in four_in_a_row(text)}
    assert not said & set(four_in_a_row(failure.rule.advice))


def four_in_a_row(text: str) -> list[tuple[str, ...]]:
    words = re.findall(r"[\w./{}]+", text.lower())
    return list(zip(words, words[1:], words[2:], words[3:], strict=False))
