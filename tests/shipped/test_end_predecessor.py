"""The program that a session runs on its relay: which process it ends, and which it never touches."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.until import wait_until
from tunneld.shipped import end_predecessor
from tunneld.shipped.end_predecessor import MOST_RECORDS, Process, Record, open_record, parse_records

own_session = end_predecessor.own_session  # the fixture `own` replaces it
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's process or file")


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain programs play sshd."""
    monkeypatch.setattr(end_predecessor, "SSHD_NAMES", ("sleep", "sh"))
    monkeypatch.setattr(end_predecessor, "END_TIMEOUT", 0.1)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where records lie."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(end_predecessor, "FALLBACK_PLACE", str(tmp_path))
    before = os.umask(0o022)
    yield tmp_path / "tunneld" / "sessions"
    os.umask(before)


@contextlib.contextmanager
def process(*argv: str, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv or ("sleep", "1000"), **more) as started:
        try:
            wait_until(lambda: Process(started.pid).title, what="it has begun")
            yield started
        finally:
            started.kill()


@pytest.fixture
def stale() -> Iterator[subprocess.Popen[bytes]]:
    """A process as a session left it."""
    with process() as started:
        yield started


def record_of(stale: subprocess.Popen[bytes], **changes: Any) -> Record:
    given: dict[str, Any] = {
        "pid": stale.pid,
        "start": Process(stale.pid).start,
        "booted": end_predecessor.boot(),
        "instance": "ours",
    }
    return Record(**(given | changes))


def takes_over(home: Path, *records: Record | str, displaces: bool = False) -> tuple[str, bool]:
    """What a session does that finds these records; this process plays its own sshd."""
    home.mkdir(parents=True, mode=0o700, exist_ok=True)
    (home / "key").touch(mode=0o600)
    (home / "key").write_text("".join(map(str, records)))
    return end_predecessor.take_over("key", "ours", displaces)


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> Process:
    """This process plays the new session's sshd."""
    mine = Process(os.getpid())
    monkeypatch.setattr(end_predecessor, "own_session", lambda: mine)
    return mine


def left(home: Path) -> list[int]:
    """The processes on record."""
    return [record.pid for record in parse_records((home / "key").read_text())]


def test_our_own_stale_session_is_ended(home: Path, stale: subprocess.Popen[bytes]) -> None:
    """By SIGTERM; the new one's record is all that is left."""
    assert takes_over(home, record_of(stale)) == ("ended", True)
    assert stale.wait(5) == -signal.SIGTERM
    assert left(home) == [os.getpid()]


def test_one_that_does_not_listen_is_killed(home: Path) -> None:
    """It has END_TIMEOUT to leave by itself."""
    script = ("sh", "-c", "trap '' TERM; echo; read line")
    with process(*script, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None and deaf.stdout.readline()
        assert takes_over(home, record_of(deaf)) == ("ended", True)
        assert deaf.wait(5) == -signal.SIGKILL


def test_one_that_is_stopped_is_ended_as_well(home: Path) -> None:
    """It would take SIGTERM only when it runs again."""
    with process() as stopped:
        stopped.send_signal(signal.SIGSTOP)
        assert takes_over(home, record_of(stopped)) == ("ended", True)
        assert stopped.wait(5) < 0


NEVER: dict[str, Callable[[subprocess.Popen[bytes]], Record]] = {
    "a number that was given to another process": lambda stale: record_of(stale, start=Process(stale.pid).start - 1),
    "another boot": lambda stale: record_of(stale, booted="another/pid:[1]"),
    "another view of the processes": lambda stale: record_of(
        stale, booted=end_predecessor.boot().split("/")[0] + "/pid:[1]"
    ),
}


@pytest.mark.parametrize("record", NEVER.values(), ids=NEVER)
@pytest.mark.parametrize("displaces", [False, True])
def test_a_record_that_does_not_fit_ends_nothing(
    home: Path, stale: subprocess.Popen[bytes], record: Callable[[subprocess.Popen[bytes]], Record], displaces: bool
) -> None:
    """Whoever has the number now is somebody else."""
    assert takes_over(home, record(stale), displaces=displaces) == ("alone", True)
    assert stale.poll() is None


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(("tail", "-f", "/dev/null"), id="not an sshd"),
        pytest.param(("sh", "-c", "read line", "sshd: sshd -D [listener] 0 of 10-100 startups"), id="the listener"),
        pytest.param(("sh", "-c", "read line", "sshd: root [priv]"), id="the monitor"),
    ],
)
def test_what_is_no_session_is_never_ended(home: Path, argv: tuple[str, ...]) -> None:
    """Whatever the record says: a relay's sshd must not be ended by root's mistake."""
    with process(*argv, stdin=subprocess.PIPE) as other:
        assert takes_over(home, record_of(other), displaces=True) == ("alone", True)
        assert other.poll() is None


def test_a_process_that_has_ended_is_no_session(home: Path, stale: subprocess.Popen[bytes]) -> None:
    """It has its number until its parent asks how it ended, and holds no port any more."""
    record = record_of(stale)
    stale.kill()
    os.waitid(os.P_PID, stale.pid, os.WEXITED | os.WNOWAIT)
    assert takes_over(home, record) == ("alone", True)


@needs_root
def test_another_users_process_is_never_ended(home: Path) -> None:
    """Not even by root."""
    with process("sleep", "1000", user=65534) as other:
        assert takes_over(home, record_of(other), displaces=True) == ("alone", True)
        assert other.poll() is None


def test_another_instance_is_a_clone(home: Path, stale: subprocess.Popen[bytes]) -> None:
    """Its session stays, and both are on record."""
    assert takes_over(home, record_of(stale, instance="theirs")) == ("clone", True)
    assert stale.poll() is None
    assert left(home) == [os.getpid(), stale.pid]


def test_a_successor_displaces_another_instance(home: Path, stale: subprocess.Popen[bytes]) -> None:
    """After a power cut the daemon is another one, and the session is still its own."""
    assert takes_over(home, record_of(stale, instance="before"), displaces=True) == ("ended", True)
    assert stale.wait(5) == -signal.SIGTERM


def test_ours_is_ended_and_a_clones_is_not(home: Path, stale: subprocess.Popen[bytes]) -> None:
    """Each of two clones can end its own."""
    with process() as theirs:
        assert takes_over(home, record_of(theirs, instance="theirs"), record_of(stale)) == ("ended", True)
        assert theirs.poll() is None
        assert left(home) == [os.getpid(), theirs.pid]


def test_a_session_never_ends_itself(home: Path, own: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program may run twice on one connection."""
    monkeypatch.setattr(end_predecessor, "SSHD_NAMES", (own.name,))
    mine = Record(own.pid, own.start, end_predecessor.boot(), "ours")
    assert takes_over(home, mine, displaces=True) == ("alone", True)


@pytest.mark.parametrize(
    "text", ["", "\n", "1 2 3\n", "2 1 1 boot ours\n", "1 -1 1 boot ours\n", "1 99999999999999999999 1 b i\n", "\0\xff"]
)
def test_a_record_that_makes_no_sense_is_none(home: Path, text: str) -> None:
    """And is replaced."""
    assert takes_over(home, text, displaces=True) == ("alone", True)
    assert left(home) == [os.getpid()]


def test_a_record_is_one_line() -> None:
    """docs/protocol.md has the same one."""
    text = "1 4711 1268611 ed07ef8c-7817-4a42-af7b-9958f4257567/pid:[4026531836] 2fc1\n"
    assert [str(record) for record in parse_records(text)] == [text]


def test_a_kernel_without_descriptors_of_processes_ends_nothing(
    home: Path, stale: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number alone may be another's by the time of the signal. The record is kept for a better day."""
    monkeypatch.delattr(os, "pidfd_open")
    assert takes_over(home, record_of(stale)) == ("unable", True)
    assert stale.poll() is None
    assert left(home) == [os.getpid(), stale.pid]


def test_a_number_that_was_given_away_in_the_last_moment_is_let_be(
    home: Path, stale: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process on record ended after the first look at it, so the descriptor is of its successor."""
    successor = Process(stale.pid)
    successor.start += 1

    def open_too_late(pid: int) -> int:
        monkeypatch.setattr(end_predecessor, "process_of", {pid: successor}.get)
        return pidfd_open(pid)

    pidfd_open = os.pidfd_open
    monkeypatch.setattr(os, "pidfd_open", open_too_late)
    assert takes_over(home, record_of(stale)) == ("ended", True)
    assert stale.poll() is None
    assert left(home) == [os.getpid()]


@pytest.mark.parametrize("kind", ["readable to the group", "writable to others", "another user's", "a pipe"])
def test_a_record_that_is_not_ours_alone_is_not_read(
    home: Path, tmp_path: Path, stale: subprocess.Popen[bytes], kind: str
) -> None:
    """Whoever could have written it could have named any process of ours. A record elsewhere takes its place."""
    home.mkdir(parents=True, mode=0o700)
    file = home / "key"
    os.mkfifo(file, 0o600) if kind == "a pipe" else file.touch(mode=0o600)
    if kind != "a pipe":
        file.write_text(str(record_of(stale)))
    file.chmod({"readable to the group": 0o640, "writable to others": 0o602}.get(kind, 0o600))
    if kind == "another user's":
        if os.geteuid() != 0:
            pytest.skip("takes another user's file")
        os.chown(file, 65534, 65534)
    assert end_predecessor.take_over("key", "ours", True) == ("alone", True)
    assert stale.poll() is None
    assert left(tmp_path / f"tunneld-{os.geteuid()}") == [os.getpid()]


@pytest.mark.parametrize(
    ("above", "found"),
    [
        pytest.param(["sshd"], 1, id="sshd started us"),
        pytest.param(["sh", "sh", "sh", "sshd"], 4, id="behind three shells"),
        pytest.param(["sh", "sh", "sh", "sh", "sshd"], None, id="too far away"),
        pytest.param(["sh"], None, id="out of our sight"),
    ],
)
def test_our_own_sshd_is_the_nearest_one_above_us(
    monkeypatch: pytest.MonkeyPatch, above: list[str], found: int | None
) -> None:
    """A few processes may stand between sshd and us."""
    ancestors: dict[int, Any] = {
        at: SimpleNamespace(pid=at, parent=at + 1, is_session=name == "sshd") for at, name in enumerate(above, 1)
    }
    monkeypatch.setattr(os, "getppid", lambda: 1)
    monkeypatch.setattr(end_predecessor, "process_of", ancestors.get)
    assert own_session() is ancestors.get(found or 0)


def test_a_file_of_records_is_bounded(home: Path) -> None:
    """Clones of clones are forgotten; this session is always on record."""
    with contextlib.ExitStack() as stack:
        clones = [stack.enter_context(process()) for _ in range(MOST_RECORDS + 2)]
        records = [record_of(each, instance=str(at)) for at, each in enumerate(clones)]
        assert takes_over(home, *records) == ("clone", True)
        assert left(home) == [os.getpid(), *(each.pid for each in clones[: MOST_RECORDS - 1])]


def test_records_are_ours_alone(home: Path) -> None:
    """Folder and file are made so."""
    os.close(open_record("key"))
    assert (home.stat().st_mode & 0o777, (home / "key").stat().st_mode & 0o777) == (0o700, 0o600)


@pytest.mark.parametrize("kind", ["open to others", "a link", "another user's"])
def test_a_folder_that_is_not_ours_alone_is_not_used(home: Path, tmp_path: Path, kind: str) -> None:
    """Somebody could name there which process we are to end. Another folder takes its place."""
    home.parent.mkdir()
    if kind == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        home.symlink_to(tmp_path / "elsewhere")
    else:
        home.mkdir()
        home.chmod(0o777 if kind == "open to others" else 0o700)
    if kind == "another user's":
        if os.geteuid() != 0:
            pytest.skip("takes another user's folder")
        os.chown(home, 65534, 65534)
    assert end_predecessor.take_over("key", "ours", True)[1]
    assert (tmp_path / f"tunneld-{os.geteuid()}" / "key").exists()
    assert not list(home.iterdir())


def test_a_link_in_the_records_place_is_not_followed(home: Path, tmp_path: Path) -> None:
    """Nor written through."""
    home.mkdir(parents=True, mode=0o700)
    (tmp_path / "precious").touch(mode=0o600)
    (tmp_path / "precious").write_text("precious")
    (home / "key").symlink_to(tmp_path / "precious")
    assert end_predecessor.take_over("key", "ours", True)[1]
    assert (tmp_path / "precious").read_text() == "precious"


def test_one_session_of_a_profile_at_a_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first, but not for ever."""
    monkeypatch.setattr(end_predecessor, "LOCK_TIMEOUT", 0.02)
    monkeypatch.setattr(end_predecessor, "record_folders", lambda: [str(home)])
    held = open_record("key")
    assert end_predecessor.take_over("key", "ours", True) == ("unrecorded", False)
    os.close(held)
    assert end_predecessor.take_over("key", "ours", True) == ("alone", True)


def test_where_nothing_can_be_written_nothing_is_ended(
    home: Path, stale: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay whose disk is read-only."""
    monkeypatch.setattr(end_predecessor, "record_folders", lambda: ["/proc/nowhere"])
    assert end_predecessor.take_over("key", "ours", True) == ("unrecorded", False)
    assert stale.poll() is None


def test_a_session_waits_until_the_record_is_free(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another session of the profile may be looking at it: for as long as it takes to end one process, and longer."""
    monkeypatch.setattr(end_predecessor, "record_folders", lambda: [str(home)])
    held = open_record("key")
    monkeypatch.setattr("tunneld.shipped.end_predecessor.time.sleep", lambda _: os.close(held))
    assert end_predecessor.take_over("key", "ours", True) == ("alone", True)
    assert end_predecessor.LOCK_TIMEOUT == 3


@pytest.mark.parametrize(("pid", "is_session"), [(0, False), (1, False), (2, True)])
def test_the_first_process_is_no_session(
    own: Process, monkeypatch: pytest.MonkeyPatch, pid: int, is_session: bool
) -> None:
    """In a container that may be an sshd, and everything would end with it."""
    monkeypatch.setattr(end_predecessor, "SSHD_NAMES", (own.name,))
    own.pid = pid
    assert own.is_session is is_session


@needs_root
def test_a_process_that_is_only_in_part_ours_is_no_session() -> None:
    """Its real user is another one than its effective user."""
    with process(preexec_fn=lambda: os.setresuid(65534, 0, 0)) as started:
        mixed = Process(started.pid)
        assert mixed.uids == {0, 65534}
        assert not mixed.is_session


def test_a_process_starts_at_a_tick_since_boot(stale: subprocess.Popen[bytes]) -> None:
    """So that nobody who is given its number later can be taken for it."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 <= uptime - Process(stale.pid).start / os.sysconf("SC_CLK_TCK") < 60
