"""Which host keys are trusted, by the lines of known_hosts files. Whole dials are tested in test_dial.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tunneld.ssh.connect.hop import Hop
from tunneld.ssh.connect.known_hosts import KnownHosts, Trusted

KEY = asyncssh.generate_private_key("ssh-ed25519").convert_to_public()
LINE = KEY.export_public_key("openssh").decode()


def trusted(hop: Hop, *files: Path) -> Trusted:
    return KnownHosts(files, hop)(hop.host, "192.0.2.1", hop.port)


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    return path


def test_every_file_counts(tmp_path: Path) -> None:
    """A missing one is no obstacle, and trusts nobody."""
    hop = Hop("relay")
    other = written(tmp_path / "other", f"elsewhere {LINE}")
    right = written(tmp_path / "k", f"relay {LINE}")
    assert list(trusted(hop, tmp_path / "none", other, right)[0]) == [KEY]
    assert hop.host_known
    assert hop.known_hosts == f"{tmp_path}/other, {tmp_path}/k"


def test_without_any_file_nobody_is_trusted(tmp_path: Path) -> None:
    """The first is the one that the user is told to make."""
    hop = Hop("relay")
    assert not any(trusted(hop, tmp_path / "one", tmp_path / "two"))
    assert not hop.host_known
    assert hop.known_hosts == f"{tmp_path}/one"


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("relay {}", True),
        ("@cert-authority *.example,relay {}", True),
        ("@revoked relay {}", False),
        ("elsewhere {}", False),
        ("[relay]:2022 {}", False),
    ],
)
def test_a_host_is_known_by_a_key_or_an_authority(line: str, known: bool, tmp_path: Path) -> None:
    """Then a key that does not fit has changed; else it is unknown."""
    hop = Hop("relay")
    trusted(hop, written(tmp_path / "k", line.format(LINE)))
    assert hop.host_known is known


def test_a_line_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    """As with ssh: bad keys, bad markers, bytes that are no text."""
    (tmp_path / "k").write_bytes(b"relay ssh-ed25519 %%%\n@what relay x\n\xff\xfe\n" + f"relay {LINE}\n".encode())
    assert list(trusted(Hop("relay"), tmp_path / "k")[0]) == [KEY]


def test_a_file_in_a_hidden_home_is_no_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service cannot see what would be added there; where all are hidden the first has to do."""
    home, everyones = tmp_path / "home/known_hosts", tmp_path / "etc"
    hidden = {home}
    stat = os.stat

    def stats(path: Path, **settings: Any) -> os.stat_result:
        if path in hidden:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **settings)

    monkeypatch.setattr(os, "stat", stats)
    hop = Hop("relay")
    KnownHosts([home, everyones], hop)
    assert hop.known_hosts == str(everyones)
    hidden.add(everyones)
    KnownHosts([home, everyones], hop)
    assert hop.known_hosts == str(home)
