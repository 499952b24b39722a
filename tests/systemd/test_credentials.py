"""The files that a service is lent: their names, the drop-in, and how the daemon finds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tunnel.supervised import profile_of
from tunneld.errors import ProfileError, UsageError
from tunneld.profile import Relay, lent_files, load
from tunneld.profile.lent_files import credential_id, is_lent, readable, was_absent
from tunneld.systemd.credentials import drop_in, files_of


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with everything that ssh looks for."""
    folder = tmp_path / "home" / ".ssh"
    folder.mkdir(parents=True)
    for name in ("id_ed25519", "id_ed25519-cert.pub", "id_ed25519.pub", "known_hosts", "config"):
        (folder / name).write_text("\n")
        (folder / name).chmod(0o600)
    return folder.parent


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that systemd would make."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


def lend(path: Path, credentials: Path) -> Path:
    """What systemd does: a copy under the credential's name."""
    copy = credentials / credential_id(path)
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o400)
    return copy


def test_a_credentials_name_is_fixed() -> None:
    """A drop-in of an older version serves a newer daemon."""
    assert credential_id(Path("/root/.ssh/id_ed25519")) == "id_ed25519-3c31094f414b"


def test_two_files_never_share_a_name() -> None:
    """Also where their own names are the same, or odd."""
    paths = ["/a/key", "/b/key", "/a/kéy", "/a/k y", "/a/k:y", "/a/" + "k" * 200, "/a/" + "k" * 201]
    names = [credential_id(Path(path)) for path in paths]
    assert len(set(names)) == len(paths)
    assert all(name.isascii() and len(name) < 200 and not set(name) & set(": /") for name in names)


@pytest.mark.parametrize("end", [".pub", "-cert.pub"])
def test_what_lies_beside_a_key_lies_beside_its_copy(end: str) -> None:
    """SSH finds a certificate by the key's own name."""
    assert credential_id(Path(f"/root/key{end}")) == credential_id(Path("/root/key")) + end


def test_the_drop_in_lends_what_the_profile_names(home: Path) -> None:
    """The key and the files beside it, and known_hosts; each has a stand-in for a start at which it is gone."""
    key, known = home / ".ssh/id_ed25519", home / ".ssh/known_hosts"
    relay = Relay("relay", identity=(key,), known_hosts=known, ssh_config=False)
    name, hosts = credential_id(key), credential_id(known)
    text = drop_in(profile_of(relay), home)
    assert text.startswith("# Written by `tunneld enable`")
    assert text.splitlines()[1:] == [
        "[Service]",
        f"LoadCredential={name}:{key}",
        f"SetCredential={name}:#",
        f"LoadCredential={name}-cert.pub:{key}-cert.pub",
        f"SetCredential={name}-cert.pub:#",
        f"LoadCredential={name}.pub:{key}.pub",
        f"SetCredential={name}.pub:#",
        f"LoadCredential={hosts}:{known}",
        f"SetCredential={hosts}:#",
    ]


def test_a_profile_that_names_nothing_gets_the_usual_files(home: Path) -> None:
    """The files of the user who enables the service, as far as they exist."""
    found = files_of(profile_of(Relay("relay")), home)
    names = ["id_ed25519", "id_ed25519-cert.pub", "id_ed25519.pub", "known_hosts", "config"]
    assert [path.name for path in found] == names


def test_files_that_the_profile_names_take_the_place_of_the_usual_ones(home: Path, tmp_path: Path) -> None:
    """Nothing is lent that the service does not need."""
    key, known, config = (tmp_path / name for name in ("key", "hosts", "ssh_config"))
    for path in (key, known, config):
        path.touch()
    relay = Relay("relay", identity=(key,), known_hosts=known, ssh_config=config)
    assert files_of(profile_of(relay), home) == (key, known, config)


def test_the_home_is_that_of_the_user_who_asks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tunneld enable` sets HOME to root's, also under sudo."""
    monkeypatch.setenv("HOME", str(home))
    assert files_of(profile_of(Relay("relay"))) == files_of(profile_of(Relay("relay")), home)
    assert files_of(profile_of(Relay("relay"))) != ()


def test_every_relays_files_are_lent(home: Path) -> None:
    """When the second relay takes over, its key has to be there."""
    key, known = home / ".ssh/id_ed25519", home / ".ssh/known_hosts"
    first, second = Relay("first", known_hosts=known), Relay("second", identity=(key,), ssh_config=False)
    assert set(files_of(profile_of(second, others=(first,)), home)) == set(files_of(profile_of(first), home))
    assert known not in files_of(profile_of(replace(second, known_hosts=key)), home)


def test_a_path_with_a_percent_sign_is_written_for_a_unit() -> None:
    """`%h` would mean the home."""
    assert "/100%%/key" in "".join(_lines_for("/100%/key"))


@pytest.mark.parametrize("path", ["/a\nExecStart=/bin/sh/key", "/a/key\\"])
def test_a_path_that_no_unit_can_hold_is_refused(path: str) -> None:
    """It would be another line of the unit."""
    with pytest.raises(UsageError, match="plainer name"):
        _lines_for(path)


def _lines_for(path: str) -> list[str]:
    from tunneld.systemd.credentials import _lines

    return list(_lines(Path(path)))


def test_a_copy_is_read_where_there_is_one(home: Path, credentials: Path) -> None:
    """Anything else is read where it is."""
    key, known = home / ".ssh/id_ed25519", home / ".ssh/known_hosts"
    copy = lend(key, credentials)
    assert readable(key) == copy
    assert is_lent(key)
    assert readable(known) == known
    assert not is_lent(known)


def test_a_file_that_was_gone_at_the_start_is_known(home: Path, credentials: Path) -> None:
    """Its stand-in is a comment; a file that was not lent, or lent with other words in it, was there."""
    key = home / ".ssh/id_ed25519"
    assert not was_absent(key)
    copy = lend(key, credentials)
    assert not was_absent(key)
    copy.chmod(0o600)
    copy.write_text(lent_files.ABSENT)
    assert was_absent(key)


def test_without_credentials_every_file_is_itself(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal, and in a user's own service."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert readable(home) == home


def test_a_folder_lent_as_a_whole_is_found(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tunneld.service lends /etc/tunneld/keys as `keys`: systemd names its files `keys_NAME`."""
    (credentials / "keys_pi").write_text("\n")
    (credentials / "keys_pi-cert.pub").write_text("\n")
    assert readable(lent_files.KEYS_FOLDER / "pi") == credentials / "keys_pi"
    assert readable(lent_files.KEYS_FOLDER / "pi-cert.pub") == credentials / "keys_pi-cert.pub"
    assert readable(Path("/elsewhere/pi")) == Path("/elsewhere/pi")


def test_a_profile_is_right_when_its_files_are_lent(home: Path, credentials: Path, tmp_path: Path) -> None:
    """The service cannot see the files themselves; the profile keeps their paths, and messages name them."""
    key, known = home / ".ssh/id_ed25519", home / ".ssh/known_hosts"
    file = tmp_path / "pi.toml"
    file.write_text(
        f'[relay]\nhost = "relay"\nidentity = "{key}"\nknown_hosts = "{known}"\n'
        '[[forward]]\nlisten = "127.0.0.1:2222"\nto = "127.0.0.1:22"\n'
    )
    for path in (key, known):
        lend(path, credentials)
        path.unlink()
    relay = load(str(file)).relay
    assert (relay.identity, relay.known_hosts) == ((key,), known)
    (credentials / credential_id(key)).unlink()
    with pytest.MonkeyPatch.context() as hidden:
        hidden.setattr(Path, "is_dir", denied)
        with pytest.raises(ProfileError, match=f"{key} is not lent to this service: `tunneld enable` the"):
            load(str(file))
    with pytest.raises(ProfileError, match=f"there is no file {key}"):
        load(str(file))


def denied(path: Path) -> bool:
    """As for a file in a home that ProtectHome= hides; root, who runs the tests, may see every file."""
    raise PermissionError(13, "Permission denied", str(path))
