"""The keys that a server is offered: the profile's, or else the agent's and those of the usual files."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from tunneld.core.supervise.failures import Failure
from tunneld.profile.lent_files import readable, was_absent
from tunneld.ssh.connect.failure import SessionError

# ssh's own order and names (ssh_config(5), IdentityFile).
USUAL_FILES = tuple(
    Path("~/.ssh") / name for name in ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
)

_GONE = "there was no key file {} when the service started: put it there, then restart the service"


@dataclass(slots=True)
class Keys:
    """What one hop is offered."""

    pairs: list[asyncssh.SSHKeyPair] = field(default_factory=list)
    agent: str = ""  # the path of the agent's socket; empty: no agent
    only: list[asyncssh.SSHKey] = field(default_factory=list)  # the agent's keys that may be used; empty: all

    def arguments(self) -> dict[str, object]:
        """These keys as arguments of `asyncssh.connect`."""
        return {"client_keys": self.pairs, "agent_path": self.agent, "agent_identities": self.only or None}

    @property
    def are_at_hand(self) -> bool:
        """Whether there are keys and each can sign without asking a person: no agent, no key that wants a touch."""
        local = all(pair.get_key_type() == "local" and not pair.use_executor for pair in self.pairs)
        return bool(self.pairs) and local and not self.agent

    @property
    def sign_in_one_way(self) -> bool:
        """Whether we can sign before we know what the relay can verify.

        An RSA key cannot: it signs in several ways, of which the relay names those that it verifies.
        """
        return all(len(pair.sig_algorithms) == 1 for pair in self.pairs)

    def in_words(self) -> tuple[str, ...]:
        """Kinds and fingerprints for a person, as `ssh-keygen -l` shows them; never the keys."""
        shown = [f"{pair.get_algorithm()} {_fingerprint(pair.key_public_data)}" for pair in self.pairs]
        return (*dict.fromkeys(shown), "the agent's") if self.agent else tuple(dict.fromkeys(shown))


def named(paths: Sequence[Path], environment: Mapping[str, str] = os.environ) -> Keys:
    """Exactly these key files. A certificate `KEY-cert.pub` beside a key file is used as well.

    The agent is asked only for those of them that have a passphrase. Its other keys would use up the logins that the
    relay allows (MaxAuthTries) before the right key is tried.

    Raises:
        SessionError: a file is missing or unreadable, or it needs a passphrase and the agent cannot help.
    """
    keys = Keys()
    for path in paths:
        try:
            keys.pairs.extend(asyncssh.load_keypairs(str(readable(path))))
        except OSError as error:
            raise SessionError(Failure.AUTHENTICATION, _unreadable(path, error)) from error
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            if was_absent(path):
                raise SessionError(Failure.AUTHENTICATION, _GONE.format(path)) from error
            if "assphrase" not in str(error):
                raise SessionError(Failure.AUTHENTICATION, f"{path} is not a private key that can be used") from error
            keys.only.append(_from_agent(path, environment))
            keys.agent = environment["SSH_AUTH_SOCK"]
    return keys


def usual(
    configured: Sequence[str] | None, *, agent: str | None, only: bool, environment: Mapping[str, str] = os.environ
) -> Keys:
    """The agent's keys and those of ssh_config's files, or else of the usual files.

    As with ssh, a file that does not exist, cannot be read or has a passphrase is passed over.

    Args:
        configured: ssh_config's IdentityFile, with every value.
        agent: ssh_config's IdentityAgent; None where it is not set.
        only: ssh_config's IdentitiesOnly: the agent is asked only for the keys of these files.
    """
    keys = Keys(agent=_socket(agent, environment))
    for path in [Path(name) for name in configured or ()] or USUAL_FILES:
        path = path.expanduser()
        try:
            keys.pairs.extend(asyncssh.load_keypairs(str(readable(path)), ignore_encrypted=True))
        except (OSError, ValueError):
            continue
        if only:
            keys.only.extend(_public(path))
    if only and not keys.only:
        keys.agent = ""
    return keys


def _socket(configured: str | None, environment: Mapping[str, str]) -> str:
    """The path of the agent's socket for an IdentityAgent of ssh_config(5); empty for no agent."""
    if configured == "none":
        return ""
    if configured in (None, "SSH_AUTH_SOCK"):
        return environment.get("SSH_AUTH_SOCK", "")
    return os.path.expanduser(configured or "")


def _public(path: Path) -> list[asyncssh.SSHKey]:
    """The public key beside a private key's file; empty where there is none."""
    try:
        return [asyncssh.read_public_key(str(readable(path.with_name(f"{path.name}.pub"))))]
    except (OSError, asyncssh.KeyImportError):
        return []


def _unreadable(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no key file {path}: correct relay.identity, or make one (ssh-keygen -t ed25519 -f {path})"
    return f"the key file {path} cannot be read ({error.strerror}): check its owner and mode"


def _from_agent(path: Path, environment: Mapping[str, str]) -> asyncssh.SSHKey:
    """The public half of a key that only the agent can use.

    Raises:
        SessionError: there is no agent, or no public half; with what to do about it.
    """
    advice = f"{path} needs a passphrase and tunneld never asks: load it into an agent (ssh-add {path})"
    if not environment.get("SSH_AUTH_SOCK"):
        raise SessionError(Failure.AUTHENTICATION, f"{advice} and set SSH_AUTH_SOCK, or name a key without one")
    for key in _public(path):
        return key
    raise SessionError(Failure.AUTHENTICATION, f"{advice}, and keep {path}.pub beside it so that the agent can find it")


def _fingerprint(public: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip("=")
