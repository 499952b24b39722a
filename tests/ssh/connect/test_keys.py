"""Which keys a server is offered. What a missing or locked key means for a dial is tested in test_dial.py."""

from __future__ import annotations

from pathlib import Path

import asyncssh
import pytest

from tests.sshd import lock_key, make_key
from tunneld.core.supervise.failures import Failure
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.connect.keys import Keys, named, usual

AGENT = {"SSH_AUTH_SOCK": "/agent"}


def fingerprints(keys: Keys) -> list[str]:
    return [words.split()[1] for words in keys.in_words() if "SHA256" in words]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any key."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


# The profile's own keys


def test_named_keys_are_offered_in_their_order_and_no_agent_is_asked(tmp_path: Path) -> None:
    """Even where there is an agent."""
    made = [make_key(tmp_path / name) for name in ("one", "two")]
    keys = named([tmp_path / "two", tmp_path / "one"], AGENT)
    assert fingerprints(keys) == [key.get_fingerprint() for key in reversed(made)]
    assert keys.arguments() == {"client_keys": keys.pairs, "agent_path": "", "agent_identities": None}


def test_a_locked_key_is_the_only_one_that_the_agent_is_asked_for(tmp_path: Path) -> None:
    """Its other keys would use up the logins that the relay allows."""
    locked = make_key(tmp_path / "locked")
    lock_key(tmp_path / "locked", "open sesame")
    keys = named([tmp_path / "locked"], AGENT)
    assert keys.agent == "/agent"
    assert [key.get_fingerprint() for key in keys.only] == [locked.get_fingerprint()]
    assert keys.arguments()["agent_identities"] == keys.only
    assert keys.in_words() == ("the agent's",)


def test_a_locked_key_without_its_public_half_is_said(tmp_path: Path) -> None:
    """The agent could not be told which key is meant."""
    make_key(tmp_path / "locked")
    lock_key(tmp_path / "locked", "open sesame")
    (tmp_path / "locked.pub").unlink()
    with pytest.raises(SessionError, match=r"keep .*/locked\.pub beside it") as caught:
        named([tmp_path / "locked"], AGENT)
    assert caught.value.failure is Failure.AUTHENTICATION


def test_a_key_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    """With the system's reason: here it is a folder."""
    with pytest.raises(SessionError, match=r"cannot be read .*: check its owner and mode"):
        named([tmp_path], {})


# The usual ones


@pytest.mark.parametrize("name", ["id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk"])
def test_the_usual_files_are_those_of_ssh(name: str, home: Path) -> None:
    """ssh_config(5), IdentityFile."""
    made = make_key(home / ".ssh" / name)
    assert fingerprints(usual(None, agent=None, only=False, environment={})) == [made.get_fingerprint()]


def test_files_of_ssh_config_take_the_place_of_the_usual_ones(home: Path) -> None:
    """The tilde is its home's; what is missing, broken or locked is passed over, as with ssh."""
    make_key(home / ".ssh/id_ed25519")
    made = make_key(home / "other")
    make_key(home / "locked")
    lock_key(home / "locked", "open sesame")
    (home / "broken").write_text("no key")
    configured = ["~/missing", "~/broken", "~/locked", "~/other"]
    assert fingerprints(usual(configured, agent=None, only=False, environment={})) == [made.get_fingerprint()]


@pytest.mark.parametrize(
    ("configured", "environment", "agent"),
    [
        (None, AGENT, "/agent"),
        (None, {}, ""),
        ("SSH_AUTH_SOCK", AGENT, "/agent"),
        ("none", AGENT, ""),
        ("/other", AGENT, "/other"),
        ("~/agent", AGENT, "{home}/agent"),
    ],
)
def test_the_agent_is_the_one_that_ssh_would_ask(
    configured: str | None, environment: dict[str, str], agent: str, home: Path
) -> None:
    """ssh_config(5), IdentityAgent."""
    found = usual(None, agent=configured, only=False, environment=environment).agent
    assert found == agent.format(home=home)


def test_identities_only_narrows_the_agent_to_the_files(home: Path) -> None:
    """ssh_config(5), IdentitiesOnly: by the public halves, without which the agent is not asked at all."""
    made = make_key(home / ".ssh/id_ed25519")
    keys = usual(None, agent=None, only=True, environment=AGENT)
    assert [key.get_fingerprint() for key in keys.only] == [made.get_fingerprint()]
    assert keys.agent == "/agent"
    (home / ".ssh/id_ed25519.pub").unlink()
    keys = usual(None, agent=None, only=True, environment=AGENT)
    assert (keys.only, keys.agent) == ([], "")


def test_identities_only_finds_a_locked_key_in_the_agent(home: Path) -> None:
    """The file's public half is enough."""
    locked = make_key(home / ".ssh/id_ed25519")
    lock_key(home / ".ssh/id_ed25519", "open sesame")
    keys = usual(None, agent=None, only=True, environment=AGENT)
    assert [key.get_fingerprint() for key in keys.only] == [locked.get_fingerprint()]
    assert (keys.pairs, keys.agent) == ([], "/agent")


def test_without_identities_only_every_key_of_the_agent_counts(home: Path) -> None:
    """asyncssh takes an empty list for none, and None for all."""
    make_key(home / ".ssh/id_ed25519")
    assert usual(None, agent=None, only=False, environment=AGENT).arguments()["agent_identities"] is None


# What a login may do with them


def test_keys_that_ask_somebody_are_not_at_hand(tmp_path: Path) -> None:
    """An agent, a security key, and no key at all."""
    make_key(tmp_path / "key")
    pairs = list(asyncssh.load_keypairs(str(tmp_path / "key")))
    assert Keys(pairs).are_at_hand
    assert not Keys(pairs, agent="/agent").are_at_hand
    assert not Keys([]).are_at_hand
    touched = list(asyncssh.load_keypairs(str(tmp_path / "key")))
    touched[0].use_executor = True  # as asyncssh marks keys that wait for a touch
    assert not Keys(touched).are_at_hand
    assert not Keys([*pairs, *touched]).are_at_hand


def test_an_rsa_key_signs_in_more_ways_than_one(tmp_path: Path) -> None:
    """SHA-2 in two lengths, and what older relays know."""
    make_key(tmp_path / "key")
    rsa = asyncssh.generate_private_key("ssh-rsa")
    (tmp_path / "rsa").write_bytes(rsa.export_private_key())
    pairs = list(asyncssh.load_keypairs(str(tmp_path / "key")))
    assert Keys(pairs).sign_in_one_way
    assert not Keys([*pairs, *asyncssh.load_keypairs(str(tmp_path / "rsa"))]).sign_in_one_way


def test_words_about_keys_hold_no_key(tmp_path: Path) -> None:
    """Kind and fingerprint, each once, as `ssh-keygen -l` shows them."""
    made = make_key(tmp_path / "key")
    pairs = list(asyncssh.load_keypairs(str(tmp_path / "key")))
    assert Keys([*pairs, *pairs], agent="/agent").in_words() == (f"ssh-ed25519 {made.get_fingerprint()}", "the agent's")
